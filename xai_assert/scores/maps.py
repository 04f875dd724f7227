"""What a heatmap itself shows: sparseness, complexity, localisation, agreement with another method."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from xai_assert.attributions import as_method
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.agreement import AGREEMENT, AgreementCell
from xai_assert.metrics.complexity import COMPLEXITY, ComplexityCell
from xai_assert.metrics.localization import Kind, LocalizationCell, Masks, localization_metric
from xai_assert.metrics.score import Score
from xai_assert.metrics.sparseness import SPARSENESS, SparsenessCell
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.named import register_cell


def sparseness(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """The Gini index of the heatmap, in [0, 1] (1810.06583): 0 if all pixels are equal, near 1 if one has everything.

    It judges the form of a map, not its truth. Negative values (`signed="as_is"`) are raised so that the least is 0.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> 0 < sparseness(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").value < 1
        True
    """
    return as_evaluation(subject, images, options).score(method, SparsenessCell(), SPARSENESS)


def complexity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """The entropy of the heatmap over log(HW), in [0, 1] (2005.00631): 1 if all pixels are equal. Lower is better.

    It judges the form of a map, not its truth. Negative values (`signed="as_is"`) are raised so that the least is 0.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> 0 < complexity(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").value < 1
        True
    """
    return as_evaluation(subject, images, options).score(method, ComplexityCell(), COMPLEXITY)


def localization(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    masks: Masks,
    kind: Kind = "mass",
    **options: Unpack[EvaluationOptions],
) -> Score:
    """How much of the relevance lies inside a mask of where it belongs, in [0, 1].

    "mass": share of the summed relevance inside; "rank": share of the k most relevant pixels inside, k the mask's size
    (both 2003.07258); "pointing": whether the most relevant pixel is inside (1608.00507; equals are drawn by lot). A
    random map is expected to get the mask's share of the picture, which is in `score.details["share"]`.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        masks: true inside, (n, H, W) in the order of the images, or a mapping from image id to (H, W).
        kind: "mass", "rank" or "pointing"; all three are measured at once.

    Raises:
        ValueError: a mask is missing, empty, full, or not of the images' size; it names the images.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> masks = torch.zeros(4, 8, 8, dtype=torch.bool)
        >>> masks[:, :4] = True
        >>> score = localization(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), masks=masks, task="depth")
        >>> score.metric, score.details["share"].tolist()
        ('localization_mass', [0.5, 0.5, 0.5, 0.5])
    """
    metric, cell = localization_metric(kind), LocalizationCell(masks)
    evaluation = as_evaluation(subject, images, options)
    if isinstance(masks, Tensor) and len(masks) != len(evaluation.source):
        raise ValueError(f"masks has {len(masks)} masks for {len(evaluation.source)} images; give one for each")
    return evaluation.score(method, cell, metric)


def rank_agreement(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    other: Any = "edges",
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Spearman's rank correlation of a method's heatmap with that of another method, in [-1, 1] (2202.01602).

    With "edges", the default: how much of a map is just the picture.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        other: a method in any form that `method` takes; it costs its own passes.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> rank_agreement(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").value
        1.0
    """
    return as_evaluation(subject, images, options).score(method, AgreementCell(as_method(other)), AGREEMENT)


register_cell(SPARSENESS, lambda perturbation, fraction: SparsenessCell())
register_cell(COMPLEXITY, lambda perturbation, fraction: ComplexityCell())
register_cell(AGREEMENT, lambda perturbation, fraction: AgreementCell(as_method("edges")))
