"""Assertions on AF and FE."""

from __future__ import annotations

import functools
from typing import Any, Unpack

from torch import Tensor

from xai_assert.assertions.base import hold, settle
from xai_assert.batching import Samples
from xai_assert.early import stopping
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics import FaithfulnessCell, FaithfulnessScore, FidelityScore
from xai_assert.metrics.faithfulness import GROUPS, Mode
from xai_assert.metrics.fidelity import Aggregate, AsrRule, Reference
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.reporting import record
from xai_assert.scores import Subjectlike, as_evaluation, attribution_fidelity, faithfulness_estimate
from xai_assert.verdicts import Bound


def assert_attribution_fidelity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_af: float | None = None,
    max_af: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    fraction: float = 0.05,
    reference: Reference = "prediction",
    aggregate: Aggregate = "image",
    asr: AsrRule = "relevant",
    early: bool = False,
    **options: Unpack[EvaluationOptions],
) -> FidelityScore:
    """Assert a bound on the attribution fidelity; see `xa.attribution_fidelity` for what is measured.

    Args:
        min_af, max_af: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random" asks for a mean AF above 0 by an exact sign-flip test (needs 5 images); "edges" or another
            method's name for one above that method's on the same images.
        early: visit the images in random order, and stop as soon as a confidence sequence, which holds at every number
            of images at once, decides; needs `confidence`, and does not go with `beats`. The score then holds the
            images that were measured.
        (the others): as for `xa.attribution_fidelity`.

    Returns:
        The score, to look at or to assert more of.

    Raises:
        AssertionError: the bound is not met or not decided, or more than half of the images are unresponsive. It
            carries `.score` and `.worst`, the worst images on the CPU by id.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(8, 3, 8, 8)
        >>> assert_attribution_fidelity(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_af=-1).metric
        'af'
    """
    __tracebackhide__ = True
    bound = Bound(min_af, max_af, confidence, beats, label="_af", early=early)
    evaluation = as_evaluation(subject, images, options)
    record.want_pictures(evaluation)
    measure = functools.partial(
        attribution_fidelity,
        evaluation,
        perturbation=perturbation,
        fraction=fraction,
        reference=reference,
        aggregate=aggregate,
        asr=asr,
    )
    with stopping(evaluation, method, bound, measure):
        score = measure(method)
        known = evaluation.has_measured(method, FaithfulnessCell(as_perturbation(perturbation)))
        seen = evaluation.take_evidence(method, perturbation, fraction)
        fe = {"fe": faithfulness_estimate(evaluation, method, perturbation=perturbation)} if known else {}
        settle(score, bound, evaluation, control=measure, evidence=seen, beside=fe)
    return score


def assert_faithfulness_estimate(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_fe: float | None = None,
    max_fe: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    groups: int = GROUPS,
    mode: Mode = "single",
    **options: Unpack[EvaluationOptions],
) -> FaithfulnessScore:
    """Assert a bound on the faithfulness estimate; see `xa.faithfulness_estimate` for what is measured.

    Args:
        min_fe, max_fe: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random" (the mean of 8 random maps), "edges" or another method's name asks for more than that scores
            on the same images by a sign-flip test (needs 5 images).
        (the others): as for `xa.faithfulness_estimate`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_faithfulness_estimate(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_fe=-1).mode
        'single'
    """
    __tracebackhide__ = True
    bound = Bound(min_fe, max_fe, confidence, beats, label="_fe")
    evaluation = as_evaluation(subject, images, options)
    measure = functools.partial(faithfulness_estimate, perturbation=perturbation, groups=groups, mode=mode)
    return hold(bound, measure, evaluation, method)
