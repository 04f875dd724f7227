"""A bound on a score, and the verdict: pass, fail, or undecided where confidence is asked for."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

from xai_assert.metrics import FidelityScore, Score

Outcome = Literal["pass", "fail", "undecided"]
FEWEST_SIGNS = 5  # 2^-5 is the first p value under 0.05
EXACT_SIGNS = 16  # up to 2^16 sign patterns are all tried, beyond that as many are drawn


@dataclass(frozen=True)
class Bound:
    """What a score must reach. `label` is how the user wrote it ("min_af"), for the failure text.

    `confidence` asks for the whole bootstrap interval to clear the bound; `beats="random"` for a mean AF above 0 by an
    exact sign-flip test (the expected AF of a random map is exactly 0).

    Raises:
        TypeError: no bound at all.
        ValueError: a value out of its range.
    """

    min: float | None = None
    max: float | None = None
    confidence: float | None = None
    beats: str | None = None
    label: str = ""

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
        if self.beats not in (None, "random"):
            raise ValueError(f"beats must be 'random', not {self.beats!r}")

    def __str__(self) -> str:
        limits = (("min", self.min), ("max", self.max))
        parts = [f"{name}{self.label}={value:g}" for name, value in limits if value is not None]
        parts += [f"confidence={self.confidence:g}"] if self.confidence is not None else []
        parts += [f"beats={self.beats!r}"] if self.beats else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """How a score did, and the words that say why; empty for a pass."""

    outcome: Outcome
    because: str = ""


def judge(score: Score, bound: Bound) -> Verdict:
    """Compare a score with its bound; the worst of several findings counts.

    A fidelity that hardly any image responded to fails whatever its number.

    Raises:
        ValueError: fewer images than `confidence` or `beats` needs.
    """
    __tracebackhide__ = True
    if isinstance(score, FidelityScore) and 2 * score.unresponsive > len(score):
        words = f"unresponsive: neither region moves the prediction on {score.unresponsive} of {len(score)} images"
        return Verdict("fail", f"{words}; raise the strength or the fraction")
    findings = [_limit(score, bound, side) for side in ("min", "max") if getattr(bound, side) is not None]
    findings += [_beats_random(score, bound)] if bound.beats else []
    worst: Outcome
    for worst in ("fail", "undecided"):
        because = [f.because for f in findings if f.outcome == worst]
        if because:
            return Verdict(worst, "; ".join(because))
    return Verdict("pass")


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


def _beats_random(score: Score, bound: Bound) -> Verdict:
    __tracebackhide__ = True
    p, alpha = sign_flip_p(score), 1 - (bound.confidence or 0.95)
    return Verdict("pass") if p <= alpha else Verdict("fail", f"does not beat random (p={p:.3f} > {alpha:.2g})")


def sign_flip_p(score: Score) -> float:
    """One-sided p of the per-image AF under random signs: how often a random map would do as well.

    Raises:
        ValueError: the score is not an AF, or has fewer than 5 images.
    """
    if score.metric != "af":
        raise ValueError(f"beats='random' is for af, whose expectation is 0 for a random map, not for {score.metric}")
    if len(score) < FEWEST_SIGNS:
        raise ValueError(f"beats='random' needs at least {FEWEST_SIGNS} images, the score has {len(score)}")
    return float(sign_flips(score.values.numpy()))


def sign_flips(values: np.ndarray) -> np.ndarray:
    """One-sided p of the mean of values (..., n) under random signs, (...): exact up to 16 values, drawn beyond.

    >>> float(sign_flips(np.array([0.25, 0.25, 0.25])))
    0.125
    """
    if values.shape[-1] == 1:  # which SciPy refuses
        return np.where(values[..., 0] > 0, 0.5, 1.0)
    rows = values.size // values.shape[-1]
    found = scipy.stats.permutation_test(
        (values,),
        functools.partial(np.mean),
        vectorized=True,
        permutation_type="samples",
        alternative="greater",
        n_resamples=2**EXACT_SIGNS if values.shape[-1] > EXACT_SIGNS else np.inf,
        batch=max(1, 4096 // rows),
        axis=-1,
        rng=np.random.default_rng(0),
    )
    return np.asarray(found.pvalue)


def smallest_p(count: int) -> float:
    """The smallest p that `sign_flips` can find for so many values."""
    return 2.0 ** -min(count, EXACT_SIGNS)


def holm(p: np.ndarray) -> np.ndarray:
    """p values (m,) adjusted after Holm: those up to alpha are found among m with at most alpha for any false one.

    >>> holm(np.array([0.5, 0.01, 0.25])).tolist()
    [0.5, 0.03, 0.5]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
