"""An assertion on AF at several fractions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from xai_assert.assertions.base import failure
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.explain import explain
from xai_assert.perturbations import Perturbation
from xai_assert.reporting import record
from xai_assert.scores.af_curve import FRACTIONS, FidelityCurve, fidelity_curve
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.significance import holm
from xai_assert.verdicts import Bound, Verdict, judge


def assert_fidelity_curve(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_af: float | None = None,
    max_af: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    perturbation: str | Perturbation = "gaussian_noise",
    **options: Unpack[EvaluationOptions],
) -> FidelityCurve:
    """Assert a bound on the AF at every fraction; see `xa.fidelity_curve` for what is measured.

    Each fraction must meet the bound at the whole confidence: to ask for all of them takes no correction. The tests
    of `beats` are corrected after Holm all the same, for each is a claim of its own.

    Args:
        min_af, max_af: bounds on each score.
        confidence: ask for each whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random" asks for a mean AF above 0 at each fraction (needs 5 images).
        (the others): as for `xa.fidelity_curve`.

    Raises:
        AssertionError: a fraction does not meet the bound; it carries the worst one's `.score`, and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(12, 3, 8, 8)
        >>> assert_fidelity_curve(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_af=-1).fractions[0]
        0.01
    """
    __tracebackhide__ = True
    if beats not in (None, "random"):
        raise ValueError(f"beats must be 'random' for a curve, not {beats!r}")
    bound = Bound(min_af, max_af, confidence, beats, label="_af")
    evaluation = as_evaluation(subject, images, options)
    curve = fidelity_curve(evaluation, method, fractions=fractions, perturbation=perturbation)
    verdicts = _corrected([judge(score, bound) for score in curve.scores])
    for score, verdict in zip(curve.scores, verdicts, strict=True):
        gate = record.gate_record(score.metric, str(bound), verdict.outcome, verdict.because)
        record.add(functools.partial(record.make_record, {score.metric: score}, [gate], verdict.outcome))
    missed = [i for i, verdict in enumerate(verdicts) if verdict.outcome != "pass"]
    if missed:
        at = min(missed, key=lambda i: curve.scores[i].value)
        text = explain(curve.scores[at], bound, verdicts[at].because)
        names = ", ".join(f"{curve.fractions[i]:.3g}" for i in missed)
        table = str(curve).replace("\n", "\n  ")
        raise failure(curve.scores[at], f"{text}\n  fractions that miss: {names}\n  {table}", evaluation)
    return curve


def _corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """After Holm over the fractions, where a control was to be beaten."""
    contests = [verdict.contest for verdict in verdicts]
    known = [contest for contest in contests if contest is not None]
    if len(known) < len(verdicts):
        return list(verdicts)
    adjusted = holm(np.array([contest.p for contest in known]))
    return [
        Verdict("fail", f"does not beat random after Holm over the fractions (p={p:.3f})", contest)
        if verdict.outcome == "pass" and p > contest.alpha
        else verdict
        for verdict, contest, p in zip(verdicts, known, adjusted.tolist(), strict=True)
    ]
