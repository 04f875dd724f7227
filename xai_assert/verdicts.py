"""A bound on a score, and the verdict: pass, fail, or undecided where confidence is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from xai_assert.attributions import method as as_method
from xai_assert.metrics import FaithfulnessScore, FidelityScore, Score
from xai_assert.sequences import confidence_sequence
from xai_assert.significance import FEWEST_SIGNS as FEWEST_SIGNS
from xai_assert.significance import holm as holm
from xai_assert.significance import sign_flips as sign_flips

Outcome = Literal["pass", "fail", "undecided"]
Control = Callable[[Any], Score]  # measures another method in the same way
DRAWS = 8  # random maps, whose mean is what random scores where that is not known exactly


@dataclass(frozen=True)
class Bound:
    """What a score must reach. `label` is how the user wrote it ("min_af"), for the failure text.

    `confidence` asks for the whole interval to clear the bound. `beats` names a registered method, "random" and "edges"
    above all, that must score worse on the same images by a sign-flip test. `early` lets the images end as soon as a
    confidence sequence has decided.

    >>> str(Bound(min=0.25, beats="random", label="_af"))
    "min_af=0.25, beats='random'"

    Raises:
        TypeError: no bound at all.
        ValueError: a value out of its range.
    """

    min: float | None = None
    max: float | None = None
    confidence: float | None = None
    beats: str | None = None
    label: str = ""
    early: bool = False

    def __post_init__(self) -> None:
        if self.min is None and self.max is None and self.beats is None:
            raise TypeError(f"an assertion needs a bound: give min{self.label}=, max{self.label}= or beats='random'")
        for name, value in (("min", self.min), ("max", self.max)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not number:
                raise ValueError(f"{name}{self.label} must be a finite number, not {value!r}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min{self.label}={self.min} is above max{self.label}={self.max}")
        if self.confidence is not None and not (
            isinstance(self.confidence, int | float) and 0.5 <= self.confidence < 1
        ):
            raise ValueError(f"confidence must be at least 0.5 and below 1, not {self.confidence!r}")
        if self.beats is not None:
            if not isinstance(self.beats, str):
                raise ValueError(
                    f"beats must be 'random', 'edges' or another registered method's name, not {self.beats!r}"
                )
            as_method(self.beats)  # which refuses an unknown one
        if not isinstance(self.early, bool):
            raise ValueError(f"early must be true or false, not {self.early!r}")
        if self.early and (self.confidence is None or self.beats is not None):
            raise ValueError(
                f"early decides by an interval: it needs confidence= and min{self.label}= or max{self.label}=, and "
                "does not go with beats=, a test that holds only for a number of images fixed before"
            )

    def __str__(self) -> str:
        limits = (("min", self.min), ("max", self.max))
        parts = [f"{name}{self.label}={value:g}" for name, value in limits if value is not None]
        parts += [f"confidence={self.confidence:g}"] if self.confidence is not None else []
        parts += [f"beats={self.beats!r}"] if self.beats else []
        parts += ["early=True"] if self.early else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Contest:
    """A score beside its control on the same `count` images: `difference` is positive where the score is better.

    >>> contest = Contest("random", value=0.0, difference=0.25, count=8, p=0.25, alpha=0.0625)
    >>> contest.won, str(contest)
    (False, 'random (p=0.250 > 0.062; random 0.000, difference 0.250)')
    """

    control: str
    value: float
    difference: float
    count: int
    p: float
    alpha: float

    @property
    def won(self) -> bool:
        """Whether chance alone would hardly give such a difference."""
        return self.p <= self.alpha

    def __str__(self) -> str:
        sign = "<=" if self.won else ">"
        numbers = f"{self.control} {self.value:.3f}, difference {self.difference:.3f}"
        return f"{self.control} (p={self.p:.3f} {sign} {self.alpha:.2g}; {numbers})"


@dataclass(frozen=True)
class Verdict:
    """How a score did, and the words that say why; none for a pass, but of an early one when that was."""

    outcome: Outcome
    because: str = ""
    contest: Contest | None = None


def judge(score: Score, bound: Bound, control: Control | None = None) -> Verdict:
    """Compare a score with its bound; the worst of several findings counts.

    A score that hardly any image responded to fails whatever its number: of a dead model every error is 0.

    Args:
        score: to judge.
        bound: what it must reach.
        control: measures another method in the same way. It is asked only for `beats`, and not for random maps where
            their expected score is known exactly.

    Raises:
        ValueError: fewer images than `confidence` or `beats` needs, or no control to beat, or `early` for a metric
            whose range is not known.

    >>> import torch
    >>> judge(Score(torch.tensor([0.25, 0.5]), (0, 1), "af"), Bound(min=0.5)).because
    'below min=0.500 (by 0.125)'
    """
    __tracebackhide__ = True
    if bound.early:
        return _early_verdict(score, bound)
    responsive = responsive_of(score)
    if responsive is not None and 2 * responsive.sum() < len(score):
        count = len(score) - int(responsive.sum())
        words = f"unresponsive: nothing that was perturbed moves the prediction on {count} of {len(score)} images"
        return Verdict("fail", f"{words}; raise the strength or the fraction")
    findings = [_limit(score, bound, side) for side in ("min", "max") if getattr(bound, side) is not None]
    contest = _contest(score, bound, control) if bound.beats else None
    if contest and not contest.won:
        findings.append(Verdict("fail", f"does not beat {contest}"))
    worst: Outcome
    for worst in ("fail", "undecided"):
        because = [f.because for f in findings if f.outcome == worst]
        if because:
            return Verdict(worst, "; ".join(because), contest)
    return Verdict("pass", contest=contest)


def responsive_of(score: Score) -> Tensor | None:
    """Which images responded to a perturbation at all, (n,) float64; None for a score that perturbs nothing."""
    if isinstance(score, FidelityScore):
        return score.responsive.double()
    if isinstance(score, FaithfulnessScore):
        return (~score.constant).double()
    found = score.details.get("responsive")
    return None if found is None else found.double()


@dataclass(frozen=True)
class Decision:
    """What a confidence sequence says: after `count` images, with its interval there.

    It fails as `unresponsive` where that many images not responding decided it.

    >>> Decision("pass", 12, (0.25, 0.75)).count
    12
    """

    outcome: Outcome
    count: int
    interval: tuple[float, float]
    unresponsive: bool = False


def decide(score: Score, bound: Bound) -> Decision:
    """The first number of images, in the order of the score, after which an early bound is decided; else all.

    Looking after each image costs nothing in certainty, so neither the size of a batch nor images that were measured
    beside change the verdict. Where images may fail to respond, a second sequence asks whether half of them do; the two
    share what certainty there is.

    Raises:
        ValueError: the metric's range is not known, or the score of the set is not the mean over the images.

    >>> import torch
    >>> score = Score(torch.full((60,), 0.75), tuple(range(60)), "af", range=(-1.0, 1.0))
    >>> decide(score, Bound(min=0.25, confidence=0.95, early=True)).outcome
    'pass'
    """
    if not all(map(math.isfinite, score.range)):
        raise ValueError(f"early needs a metric with a known range, such as af; of {score.metric} it is {score.range}")
    if isinstance(score, FidelityScore) and score.aggregate != "image":
        raise ValueError("early needs aggregate='image': it follows the mean over the images")
    assert bound.confidence is not None
    responsive = responsive_of(score)
    confidence = bound.confidence if responsive is None else 1 - (1 - bound.confidence) / 2
    low, high = confidence_sequence(score.values.numpy(), score.range, confidence)
    least = -math.inf if bound.min is None else bound.min
    most = math.inf if bound.max is None else bound.max
    inside, beyond = (low >= least) & (high <= most), (high < least) | (low > most)
    dead = np.zeros(len(score), bool)
    if responsive is not None:
        alive, ceiling = confidence_sequence(responsive.numpy(), (0.0, 1.0), confidence)
        inside, dead = inside & (alive >= 0.5), ceiling < 0.5
    decided = np.flatnonzero(inside | beyond | dead)
    at = int(decided[0]) if len(decided) else len(score) - 1
    outcome: Outcome = "undecided" if not len(decided) else "pass" if inside[at] else "fail"
    return Decision(outcome, at + 1, (float(low[at]), float(high[at])), bool(dead[at]))


def _early_verdict(score: Score, bound: Bound) -> Verdict:
    __tracebackhide__ = True
    found = decide(score, bound)
    total = score.provenance.get("images", len(score))
    low, high = found.interval
    interval = f"{bound.confidence:.0%} confidence sequence [{low:.3f}, {high:.3f}]"
    if found.outcome == "undecided":
        words = f"not decided against {_limits(bound)} after all {found.count} images ({interval}); more images would"
        return Verdict("undecided", words)
    words = f"decided after {found.count} of {total} images ({interval})"
    if found.outcome == "pass":
        return Verdict("pass", words)
    if found.unresponsive:
        remedy = "raise the strength or the fraction"
        return Verdict("fail", f"unresponsive: most predictions do not move; {words}; {remedy}")
    beyond = "below" if bound.min is not None and high < bound.min else "above"
    limit = f"min{bound.label}={bound.min:.3f}" if beyond == "below" else f"max{bound.label}={bound.max:.3f}"
    return Verdict("fail", f"{beyond} {limit}, {words}")


def _limits(bound: Bound) -> str:
    sides = (("min", bound.min), ("max", bound.max))
    return " and ".join(f"{side}{bound.label}={limit:.3f}" for side, limit in sides if limit is not None)


def _limit(score: Score, bound: Bound, side: Literal["min", "max"]) -> Verdict:
    __tracebackhide__ = True
    limit: float = getattr(bound, side)
    sign, beyond = (1, "below") if side == "min" else (-1, "above")
    missing = sign * (limit - score.value)
    name = f"{side}{bound.label}={limit:.3f}"
    if bound.confidence is None:
        return Verdict("fail", f"{beyond} {name} (by {missing:.3f})") if missing > 0 else Verdict("pass")
    low, high = score.interval(bound.confidence)
    ends = sorted((sign * (low - limit), sign * (high - limit)))
    interval = f"{bound.confidence:.0%} interval [{low:.3f}, {high:.3f}]"
    if ends[0] >= 0:
        return Verdict("pass")
    if ends[1] < 0:
        return Verdict("fail", f"{beyond} {name} ({interval})")
    return Verdict("undecided", f"not decided against {name} ({interval}); {_needed(score, ends, missing)}")


def _needed(score: Score, ends: list[float], missing: float) -> str:
    """An interval shrinks with the root of n: how many images would take its near end to the bound."""
    reach = abs(ends[1] if missing > 0 else ends[0]) + abs(missing)
    if abs(missing) < 1e-3 * reach:
        return "the score lies on the bound: no number of images decides this, move the bound"
    return f"about {math.ceil(len(score) * (reach / missing) ** 2)} images would decide (now {len(score)})"


def _contest(score: Score, bound: Bound, control: Control | None) -> Contest:
    """Test whether a score beats its control; one-sided, so that better is a positive difference."""
    assert bound.beats is not None
    if len(score) < FEWEST_SIGNS:
        raise ValueError(
            f"beats={bound.beats!r} needs at least {FEWEST_SIGNS} images, the score of {score.metric} has {len(score)}"
        )
    values = score.values.numpy()
    if bound.beats == "random" and score.chance is not None:
        other = np.full(len(score), score.chance)
    elif control is not None:
        other = _control_values(score, bound.beats, control)
    else:
        raise ValueError(
            f"beats={bound.beats!r} compares {score.metric} with another method's on the same images, which a score "
            "alone does not have; use the assert_* of the metric, or a gate"
        )
    better = values - other if score.higher_is_better else other - values
    alpha = 1 - (bound.confidence or 0.95)
    return Contest(bound.beats, float(other.mean()), float(better.mean()), len(score), float(sign_flips(better)), alpha)


def _control_values(score: Score, name: str, control: Control) -> np.ndarray:
    """The control's values on the images of the score, (n,): of "random" the mean of several maps."""
    draws = [as_method("random", draw=draw) for draw in range(DRAWS)] if name == "random" else [as_method(name)]
    columns = []
    for draw in draws:
        found = control(draw)
        known = dict(zip(found.image_ids, found.values.tolist(), strict=True))
        missing = [str(i) for i in score.image_ids if i not in known]
        if missing:
            raise ValueError(f"beats={name!r}: the control was not measured on {', '.join(missing[:5])}")
        columns.append([known[i] for i in score.image_ids])
    mean: np.ndarray = np.mean(columns, axis=0)
    return mean


def sign_flip_p(score: Score) -> float:
    """One-sided p of the per-image scores under random signs: how often a random map would do as well.

    Raises:
        ValueError: what a random map is expected to score is not known, or there are fewer than 5 images.

    >>> import torch
    >>> sign_flip_p(Score(torch.full((6,), 0.5), tuple(range(6)), "af", chance=0.0))
    0.015625
    """
    return _contest(score, Bound(beats="random"), None).p
