"""Assertions on what a heatmap itself shows."""

from __future__ import annotations

import functools
from typing import Any, Unpack

from torch import Tensor

from xai_assert.assertions.base import hold
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.localization import Kind, Masks
from xai_assert.metrics.score import Score
from xai_assert.scores import maps
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.verdicts import Bound


def assert_sparseness(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_sparseness: float | None = None,
    max_sparseness: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.sparseness`, which says what is measured.

    Args:
        min_sparseness, max_sparseness: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.sparseness`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_sparseness(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_sparseness=0).metric
        'sparseness'
    """
    __tracebackhide__ = True
    bound = Bound(min_sparseness, max_sparseness, confidence, beats, label="_sparseness")
    return hold(bound, maps.sparseness, as_evaluation(subject, images, options), method)


def assert_complexity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_complexity: float | None = None,
    max_complexity: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.complexity`, which says what is measured.

    Args:
        min_complexity, max_complexity: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.complexity`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_complexity(nn.Conv2d(3, 1, 1), "edges", images, task="depth", max_complexity=1).metric
        'complexity'
    """
    __tracebackhide__ = True
    bound = Bound(min_complexity, max_complexity, confidence, beats, label="_complexity")
    return hold(bound, maps.complexity, as_evaluation(subject, images, options), method)


def assert_localization(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    masks: Masks,
    min_localization: float | None = None,
    max_localization: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    kind: Kind = "mass",
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.localization`, which says what is measured.

    Args:
        min_localization, max_localization: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.localization`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_localization(
        ...     nn.Conv2d(3, 1, 1), "edges", images, task="depth", masks=images[:, 0] > 0.5, min_localization=0
        ... ).metric
        'localization_mass'
    """
    __tracebackhide__ = True
    bound = Bound(min_localization, max_localization, confidence, beats, label="_localization")
    return hold(
        bound,
        functools.partial(maps.localization, masks=masks, kind=kind),
        as_evaluation(subject, images, options),
        method,
    )


def assert_rank_agreement(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    min_agreement: float | None = None,
    max_agreement: float | None = None,
    confidence: float | None = None,
    beats: str | None = None,
    other: Any = "edges",
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Assert a bound on `xa.rank_agreement`, which says what is measured.

    Args:
        min_agreement, max_agreement: bounds on the score of the set.
        confidence: ask for the whole bootstrap interval to clear the bound (needs 10 images).
        beats: "random", or the name of another method, which must do worse on the same images.
        (the others): as for `xa.rank_agreement`.

    Raises:
        AssertionError: a bound is not met or not decided; it carries `.score` and `.worst`.
        TypeError: no bound was given.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> assert_rank_agreement(nn.Conv2d(3, 1, 1), "edges", images, task="depth", min_agreement=0.99).metric
        'rank_agreement'
    """
    __tracebackhide__ = True
    bound = Bound(min_agreement, max_agreement, confidence, beats, label="_agreement")
    return hold(
        bound, functools.partial(maps.rank_agreement, other=other), as_evaluation(subject, images, options), method
    )
