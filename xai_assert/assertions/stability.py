"""Assertions on infidelity and max-sensitivity."""

from __future__ import annotations

import functools
from typing import Any, Unpack

from torch import Tensor

from xai_assert.assertions.base import hold
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.infidelity import SAMPLES as PATCHES
from xai_assert.metrics.infidelity import SIZE
from xai_assert.metrics.score import Score
from xai_assert.metrics.sensitivity import RADIUS, SAMPLES
from xai_assert.perturbations import Perturbation
from xai_assert.scores import stability
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.verdicts import Bound


def assert_infidelity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_infidelity: float | None = None,
    max_infidelity: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    size: float = SIZE,
    samples: int = PATCHES,
    normalize: bool = True,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on the infidelity; see `xa.infidelity` for what is measured.

    Args:
        min_infidelity, max_infidelity: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", "edges" or another method's name: better than that on the same images, by a sign-flip test
            (needs 5 images).
        (the others): as for `xa.infidelity`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from xai_assert import describe
        >>> model = describe(nn.Conv2d(3, 1, 3), name="linear", task="depth", mean=[0.5] * 3, std=[0.5] * 3)
        >>> assert_infidelity(model, "saliency", torch.rand(4, 3, 8, 8), max_infidelity=0.01).metric
        'infidelity'
    """
    __tracebackhide__ = True
    bound = Bound(min_infidelity, max_infidelity, confidence, beats, label="_infidelity")
    evaluation = as_evaluation(subject, images, options)
    measure = functools.partial(
        stability.infidelity, perturbation=perturbation, size=size, samples=samples, normalize=normalize
    )
    return hold(bound, measure, evaluation, method)


def assert_max_sensitivity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_sensitivity: float | None = None,
    max_sensitivity: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on the max-sensitivity; see `xa.max_sensitivity` for what is measured.

    Args:
        min_sensitivity, max_sensitivity: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", "edges" or another method's name: better than that on the same images, by a sign-flip test
            (needs 5 images).
        (the others): as for `xa.max_sensitivity`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_max_sensitivity(nn.Conv2d(3, 1, 3), "saliency", images, task="depth", max_sensitivity=0.1).value
        0.0
    """
    __tracebackhide__ = True
    bound = Bound(min_sensitivity, max_sensitivity, confidence, beats, label="_sensitivity")
    evaluation = as_evaluation(subject, images, options)
    return hold(bound, functools.partial(stability.max_sensitivity, radius=radius, samples=samples), evaluation, method)
