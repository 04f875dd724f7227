"""A run beside an accepted one, image by image: what fell by more than chance and a margin allow (docs/baseline.md)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xai_assert import registry
from xai_assert.attributions.controls import CONTROLS
from xai_assert.metrics import Score
from xai_assert.metrics.score import ALL_IMAGES, FEWEST
from xai_assert.reporting.comparison import Cell, Comparison, Outcome, Row
from xai_assert.reporting.read import as_written, check_complete, check_results, read_results
from xai_assert.significance import holm, images_needed, sign_flips, smallest_p

Results = str | Path | Mapping[str, Any]
Key = tuple[str, float | None, str]  # cell, fraction, metric
Scores = dict[Key, Score]
Pairs = dict[Key, tuple[Score, Score]]  # of this run, of the baseline
SAME = {  # what two scores must share to be compared, and how it is called
    **{name: name for name in ("data", "seed", "task", "method", "perturbation", "fraction", "reference", "aggregate")},
    "asr": "rule of ASR",
    "groups": "number of groups",
    "mode": "mode",
}


def assert_no_regression(
    current: Results | Score, baseline: Results | Score, *, margin: float = 0.05, confidence: float = 0.95
) -> Comparison:
    """Assert that no score of a run fell since an accepted one; see `compare` for the arguments and for what is red.

    Raises:
        AssertionError: a score regressed, is missing, or cannot be judged, or there is none to compare. It carries
            `.comparison`.

    Example:
        >>> import torch
        >>> score = Score(torch.rand(8), tuple(range(8)), "af")
        >>> assert_no_regression(score, score).red
        False
    """
    __tracebackhide__ = True
    comparison = compare(current, baseline, margin=margin, confidence=confidence)
    if comparison.red:
        error = AssertionError(comparison.failure())
        error.comparison = comparison  # type: ignore[attr-defined]
        raise error
    return comparison


def compare(
    current: Results | Score,
    baseline: Results | Score,
    *,
    margin: float = 0.05,
    confidence: float = 0.95,
    excused: Collection[Cell] = (),
) -> Comparison:
    """Compare a run with an accepted one, each metric of each cell paired by image.

    A score regressed if it fell by more than `margin`, and by more than chance allows: one-sided sign-flip test of the
    differences, Holm-corrected over all scores that are compared. The controls, gates on the run and metrics of one
    number are left out. Other weights are what this is for; with other images, seeds, references, parameters or another
    version of this package a score is not comparable. That is red, as are scores that are missing, and scores of too
    few images for any p to be small enough.

    Args:
        current, baseline: a results.json each (its path or its content), or a `Score` each.
        margin: how far a score may fall, in its own unit.
        confidence: 1 - confidence bounds the chance that anything regressed where nothing changed.
        excused: (cell, fraction) of those that this run has and was asked not to run, which may be missing.

    Raises:
        TypeError: a `Score` beside results.
        ValueError: margin or confidence out of range.
        DataError: results that cannot be read, or a baseline of an interrupted run.

    Example:
        >>> import torch
        >>> before, after = (Score(torch.full((8,), value), tuple(range(8)), "af") for value in (0.75, 0.5))
        >>> [(row.outcome, row.drop, row.p) for row in compare(after, before).rows]
        [('regressed', 0.25, 0.00390625)]
    """
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise ValueError(f"margin must be a number of at least 0, not {margin!r}")
    if not isinstance(confidence, int | float) or not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, not {confidence!r}")
    name = str(baseline) if isinstance(baseline, str | Path) else "the baseline"
    now, then, errors = _given(current, baseline, name)
    rows, pairs = _paired(now, then, errors)
    rows += _judged(pairs, margin, confidence)
    rows += [
        Row(*key, "new", "not in the baseline", len(score), after=score.mean)
        for key, score in now.items()
        if key not in then
    ]
    order = {key: place for place, key in enumerate(dict.fromkeys([*then, *now]))}
    rows.sort(key=lambda row: order[row.cell, row.fraction, row.metric])
    return Comparison(tuple(rows), name, margin, confidence, frozenset(excused), tuple(dict.fromkeys(_notes(pairs))))


def _given(current: Results | Score, baseline: Results | Score, name: str) -> tuple[Scores, Scores, dict[Any, str]]:
    """The scores of both; and of the cells of this run that ended in an error or were not run, the text."""
    if isinstance(current, Score) and isinstance(baseline, Score):
        about = baseline.provenance
        cell = "+".join(str(about[part]) for part in ("model", "method", "perturbation") if part in about) or "score"
        key = (cell, about.get("fraction"), baseline.metric)
        return {key: current}, {key: baseline}, {}
    if isinstance(current, Score) or isinstance(baseline, Score):
        kinds = f"{type(current).__name__} and {type(baseline).__name__}"
        raise TypeError(f"current and baseline must be two scores or two results, not {kinds}")
    then, now = _content(baseline, name), _content(current, "of this run")
    check_complete(then, name, "a baseline must be")
    with as_written(name):
        accepted = _scores(then)
    with as_written(str(current) if isinstance(current, str | Path) else "of this run"):
        errors = {
            (record["cell"], record["fraction"]): f"{record['verdict']}: {record['error'].splitlines()[0]}"
            for record in _explained(now)
            if record["error"]
        }
        return _scores(now), accepted, errors


def _content(results: Results, name: str) -> Mapping[str, Any]:
    return check_results(results, name) if isinstance(results, Mapping) else read_results(results)


def _explained(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The records of cells, but for those of controls and of gates on the run."""
    for record in content["cells"]:
        if "cell" in record and not record["of_run"] and record["method"].partition("(")[0] not in CONTROLS:
            yield record


def _scores(content: Mapping[str, Any]) -> Scores:
    """The scores to compare, with all that is said of them in their provenance."""
    found: Scores = {}
    on_run = {name for name in registry.metrics.names() if registry.metrics.get(name).about == "run"}
    for record in _explained(content):
        for metric, score in record["scores"].items():
            if metric in on_run or score["image_ids"] == [ALL_IMAGES]:
                continue
            about = {n: record.get(n) for n in ("model", "method", "perturbation", "fraction", "seed", "data")}
            about |= {"versions": content.get("versions")} | score["provenance"]
            key = (record["cell"], record["fraction"], metric)
            values = torch.from_numpy(np.array(score["values"], float))
            ids, better = tuple(score["image_ids"]), score["higher_is_better"]
            if key in found and (found[key].image_ids != ids or not found[key].values.equal(values)):
                about["twice"] = True
            found[key] = Score(values, ids, metric, score["unit"], better, about)
    return found


def _paired(now: Scores, then: Scores, errors: Mapping[Any, str]) -> tuple[list[Row], Pairs]:
    """Rows for what cannot be compared, and the rest in pairs."""
    rows, pairs = [], {}
    fresh = {_family(score): score for key, score in now.items() if key not in then}
    for key, score in then.items():
        other = now.get(key) or fresh.get(_family(score))
        why = _differences(other, score) if other else []
        if other and not why:
            pairs[key] = other, score
        else:
            absent = errors.get(key[:2], "no such cell in this run")
            outcome: Outcome = "not comparable" if why else "missing"
            rows.append(Row(*key, outcome, "; ".join(why) or absent, len(score), before=score.mean))
    return rows, pairs


def _family(score: Score) -> tuple[str, ...]:
    """What a score is of, without parameters: those may have changed since."""
    parts = (str(score.provenance.get(name)) for name in ("model", "method", "perturbation"))
    return (score.metric, *(part.partition("(")[0] for part in parts))


def _differences(now: Score, then: Score) -> list[str]:
    """Why two scores cannot be compared."""
    old, new = then.provenance, now.provenance
    said = [(word, old.get(name), new.get(name)) for name, word in SAME.items()]
    said += [(name, getattr(then, name), getattr(now, name)) for name in ("metric", "unit", "higher_is_better")]
    before, after = ((about.get("versions") or {}).get("xai_assert") for about in (old, new))
    said.append(("version of xai_assert", before, after))
    why = [f"other {word} ({before}, now {after})" for word, before, after in said if before != after]
    gone, come = set(then.image_ids) - set(now.image_ids), set(now.image_ids) - set(then.image_ids)
    if gone or come:
        why.append(f"other images ({len(gone)} of the baseline's {len(then)} are missing, {len(come)} are new)")
    twice = [score for score in (then, now) if score.provenance.get("twice") or len(set(score.image_ids)) < len(score)]
    return [*why, *(["measured twice, with different numbers"] if twice else [])]


def _judged(pairs: Pairs, margin: float, confidence: float) -> list[Row]:
    """A row for each pair, after Holm."""
    alpha = 1 - confidence
    drops = [_drop(*pair) for pair in pairs.values()]
    p = np.empty(len(drops))
    sizes = np.array([len(drop) for drop in drops])
    for size in set(sizes.tolist()):
        p[sizes == size] = sign_flips(np.stack([drop.values.numpy() for drop in drops if len(drop) == size]))
    rows = []
    for key, drop, one, adjusted in zip(pairs, drops, p.tolist(), holm(p).tolist(), strict=True):
        now, then = pairs[key]
        outcome: Outcome = "regressed" if adjusted <= alpha and drop.mean > margin else "ok"
        because = f"margin {margin:g}"
        if outcome == "ok" and len(drops) * smallest_p(len(drop)) > alpha:
            outcome, because = "undecided", _too_few(len(drop), len(drops), alpha)
        interval = drop.interval(confidence) if len(drop) >= FEWEST else None
        before, after = (dict(zip(s.image_ids, s.values.tolist(), strict=True)) for s in (then, now))
        worst = tuple((i, before[i], after[i]) for i, _ in drop.worst())
        means = then.mean, now.mean, drop.mean
        rows.append(Row(*key, outcome, because, len(drop), *means, interval, one, adjusted, worst))
    return rows


def _drop(now: Score, then: Score) -> Score:
    """How much worse each image became."""
    place = {image: number for number, image in enumerate(now.image_ids)}
    change = then.values - now.values[[place[image] for image in then.image_ids]]
    return Score(change if then.higher_is_better else -change, then.image_ids, "drop", higher_is_better=False)


def _too_few(count: int, tests: int, alpha: float) -> str:
    needed = images_needed(tests, alpha)
    enough = f"{needed} would do" if needed else "no number of images would do"
    return f"cannot be decided with {count} image{'s' * (count > 1)} among {tests} score{'s' * (tests > 1)}; {enough}"


def _notes(pairs: Pairs) -> Iterator[str]:
    """Differences that are said and do not forbid to compare."""
    for now, then in pairs.values():
        old, new = then.provenance, now.provenance
        weights = old.get("fingerprint"), new.get("fingerprint")
        if weights != (None, None):
            same = f"the same weights ({weights[0]})"
            yield f"{new.get('model')}: " + (
                same if len(set(weights)) == 1 else "other weights ({}, now {})".format(*weights)
            )
        versions = [about.get("versions") or {} for about in (old, new)]
        said = [(name, versions[0].get(name), versions[1].get(name)) for name in sorted(versions[0] | versions[1])]
        before, after = (str(about.get("device")).partition(":")[0] for about in (old, new))
        said.append(("device", before, after))
        yield from (f"{name} {before}, now {after}" for name, before, after in said if before != after)
