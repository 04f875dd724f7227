"""The body of every assert_*: compare, explain, record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from xai_assert.evaluation import Evaluation
from xai_assert.evidence import Kept
from xai_assert.explain import explain
from xai_assert.metrics import Score
from xai_assert.reporting import record
from xai_assert.verdicts import Bound, Control, judge

S = TypeVar("S", bound=Score)
WORST = 3


def assert_score(
    score: Score,
    *,
    min: float | None = None,
    max: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
) -> Score:
    """Assert a bound on any score, of your own too: compare, explain, record.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> mine = Score(torch.tensor([0.4, 0.6]), ("a", "b"), "agreement")
        >>> assert_score(mine, min=0.3)
        <Score agreement 0.500 over 2 images>
    """
    __tracebackhide__ = True
    if not isinstance(score, Score):
        raise TypeError(f"score must be an xa.Score, not {type(score).__name__}; wrap your numbers in one")
    settle(score, Bound(min, max, confidence, beats))
    return score


def hold(bound: Bound, measure: Callable[[Evaluation, Any], S], evaluation: Evaluation, method: Any) -> S:
    """Measure a method, and assert the bound on it; what it must beat is measured in the same way."""
    __tracebackhide__ = True
    score = measure(evaluation, method)
    settle(score, bound, evaluation, control=lambda other: measure(evaluation, other))
    return score


def settle(
    score: Score,
    bound: Bound,
    evaluation: Evaluation | None = None,
    *,
    control: Control | None = None,
    evidence: Sequence[Kept] = (),
    beside: Mapping[str, Score] | None = None,
) -> None:
    """Judge, record, and raise with the explanation if it did not pass; `beside` may tell why."""
    __tracebackhide__ = True
    verdict = judge(score, bound, control)
    contest = record.contest_record(verdict.contest)
    gate = record.gate_record(score.metric, str(bound), verdict.outcome, verdict.because, **contest)
    record.add(lambda: record.make_record({score.metric: score}, [gate], verdict.outcome, pictures=list(evidence)))
    if verdict.outcome != "pass":
        raise failure(score, explain(score, bound, verdict.because, control, beside), evaluation)


def failure(score: Score, text: str, evaluation: Evaluation | None) -> AssertionError:
    """A plain AssertionError (a subclass would hide its first line in pytest's summary) that carries the evidence."""
    error = AssertionError(text)
    error.score = score  # type: ignore[attr-defined]
    known = set(evaluation.image_ids) if evaluation else set()  # a metric of the user's may name what is no image
    ids = [i for i, _ in score.worst(WORST) if i in known]
    error.worst = {i: evaluation.image(i).cpu().clone() for i in ids} if evaluation else {}  # type: ignore[attr-defined]
    return error
