"""Assertions on completeness, parameter randomisation and input shift."""

from __future__ import annotations

import functools
from typing import Any, Unpack

from torch import Tensor

from xai_assert.assertions.base import hold
from xai_assert.attributions.baselines import Baseline
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.input_shift import SHIFT
from xai_assert.metrics.randomization import LAYERS, Order
from xai_assert.metrics.score import Score
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.sanity import completeness, input_shift, randomization_sensitivity
from xai_assert.verdicts import Bound


def assert_completeness(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_gap: float | None = None,
    max_gap: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    baseline: Baseline | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on the completeness gap; see `xa.completeness` for what is measured.

    Args:
        min_gap, max_gap: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", "edges" or another method's name: better than that on the same images, by a sign-flip test
            (needs 5 images).
        (the others): as for `xa.completeness`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from xai_assert import describe
        >>> model = describe(nn.Conv2d(3, 1, 1), name="linear", task="depth", mean=[0.5] * 3, std=[0.5] * 3)
        >>> assert_completeness(model, "integrated_gradients", torch.rand(4, 3, 8, 8), max_gap=0.01).metric
        'completeness'
    """
    __tracebackhide__ = True
    bound = Bound(min_gap, max_gap, confidence, beats, label="_gap")
    evaluation = as_evaluation(subject, images, options)
    return hold(bound, functools.partial(completeness, baseline=baseline), evaluation, method)


def assert_randomization_sensitivity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_sensitivity: float | None = None,
    max_sensitivity: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    mode: Order = "cascading",
    layers: int = LAYERS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert that the heatmap changes with the model; see `xa.randomization_sensitivity` for what is measured.

    Args:
        min_sensitivity, max_sensitivity: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", "edges" or another method's name: better than that on the same images, by a sign-flip test
            (needs 5 images).
        (the others): as for `xa.randomization_sensitivity`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model, images = nn.Conv2d(3, 1, 3), torch.rand(4, 3, 8, 8)
        >>> assert_randomization_sensitivity(model, "edges", images, task="depth", max_sensitivity=0).value
        0.0
    """
    __tracebackhide__ = True
    bound = Bound(min_sensitivity, max_sensitivity, confidence, beats, label="_sensitivity")
    evaluation = as_evaluation(subject, images, options)
    return hold(bound, functools.partial(randomization_sensitivity, mode=mode, layers=layers), evaluation, method)


def assert_input_shift(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_change: float | None = None,
    max_change: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    shift: float = SHIFT,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on the change under a shift of the input; see `xa.input_shift` for what is measured.

    Args:
        min_change, max_change: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", "edges" or another method's name: better than that on the same images, by a sign-flip test
            (needs 5 images).
        (the others): as for `xa.input_shift`.

    Raises:
        AssertionError: the bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_input_shift(nn.Conv2d(3, 1, 3), "saliency", images, task="depth", max_change=0.01).metric
        'input_shift'
    """
    __tracebackhide__ = True
    bound = Bound(min_change, max_change, confidence, beats, label="_change")
    evaluation = as_evaluation(subject, images, options)
    return hold(bound, functools.partial(input_shift, shift=shift), evaluation, method)
