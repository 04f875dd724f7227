"""Assertions on curves: deletion and insertion AUC, SRG, ROAD, sufficiency."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from xai_assert.assertions.base import hold
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.curves import STEPS
from xai_assert.metrics.road import FRACTIONS
from xai_assert.metrics.score import Score
from xai_assert.metrics.sufficiency import KEPT
from xai_assert.perturbations import Perturbation
from xai_assert.scores import curves
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.verdicts import Bound


def assert_deletion_auc(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_auc: float | None = None,
    max_auc: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.deletion_auc`, which says what is measured.

    Args:
        min_auc, max_auc: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.deletion_auc`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_deletion_auc(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_auc=0, steps=4).metric
        'deletion_auc'
    """
    __tracebackhide__ = True
    bound = Bound(min_auc, max_auc, confidence, beats, label="_auc")
    measure = functools.partial(curves.deletion_auc, perturbation=perturbation, steps=steps)
    return hold(bound, measure, as_evaluation(subject, images, options), method)


def assert_insertion_auc(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_auc: float | None = None,
    max_auc: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.insertion_auc`, which says what is measured.

    Args:
        min_auc, max_auc: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.insertion_auc`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_insertion_auc(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_auc=0, steps=4).metric
        'insertion_auc'
    """
    __tracebackhide__ = True
    bound = Bound(min_auc, max_auc, confidence, beats, label="_auc")
    measure = functools.partial(curves.insertion_auc, perturbation=perturbation, steps=steps)
    return hold(bound, measure, as_evaluation(subject, images, options), method)


def assert_srg(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_srg: float | None = None,
    max_srg: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.srg`, which says what is measured.

    Args:
        min_srg, max_srg: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.srg`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_srg(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_srg=-9, steps=4).metric
        'srg'
    """
    __tracebackhide__ = True
    bound = Bound(min_srg, max_srg, confidence, beats, label="_srg")
    measure = functools.partial(curves.srg, perturbation=perturbation, steps=steps)
    return hold(bound, measure, as_evaluation(subject, images, options), method)


def assert_road(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_road: float | None = None,
    max_road: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "noisy_linear",
    fractions: Sequence[float] = FRACTIONS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.road`, which says what is measured.

    Args:
        min_road, max_road: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.road`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_road(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_road=-9).metric
        'road'
    """
    __tracebackhide__ = True
    bound = Bound(min_road, max_road, confidence, beats, label="_road")
    measure = functools.partial(curves.road, perturbation=perturbation, fractions=fractions)
    return hold(bound, measure, as_evaluation(subject, images, options), method)


def assert_sufficiency(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_sufficiency: float | None = None,
    max_sufficiency: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    perturbation: str | Perturbation = "gaussian_noise",
    fraction: float = KEPT,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.sufficiency`, which says what is measured.

    Args:
        min_sufficiency, max_sufficiency: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.sufficiency`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_sufficiency(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_sufficiency=-1).metric
        'sufficiency'
    """
    __tracebackhide__ = True
    bound = Bound(min_sufficiency, max_sufficiency, confidence, beats, label="_sufficiency")
    measure = functools.partial(curves.sufficiency, perturbation=perturbation, fraction=fraction)
    return hold(bound, measure, as_evaluation(subject, images, options), method)
