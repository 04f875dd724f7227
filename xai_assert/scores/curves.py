"""Curves over the share of pixels perturbed: deletion and insertion AUC, SRG, ROAD; and sufficiency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.curves import DELETION_AUC, INSERTION_AUC, SRG, STEPS, CurveCell
from xai_assert.metrics.road import FRACTIONS, ROAD, RoadCell, as_fractions
from xai_assert.metrics.score import Score
from xai_assert.metrics.sufficiency import KEPT, SUFFICIENCY, SufficiencyCell
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.named import register_cell


def deletion_auc(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Area under the error while the most relevant pixels are perturbed first (deletion, 1806.07421).

    The curve is of error over fraction, so higher is better (the paper's, of the output, goes the other way). The
    curves themselves are in `score.details`: "most" and "least" relevant first, (n, steps + 1).

    Args:
        subject, method, images, perturbation, **options: as for `attribution_fidelity`.
        steps: points of the curve; deletion, insertion and SRG share 2 * steps - 1 forward passes an image.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> score = deletion_auc(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth", steps=4)
        >>> score.details["most"].shape
        torch.Size([4, 5])
    """
    cell = CurveCell(as_perturbation(perturbation), steps)
    return as_evaluation(subject, images, options).score(method, cell, DELETION_AUC)


def insertion_auc(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Area under the error while the most relevant pixels are put back first into a perturbed picture (1806.07421).

    Lower is better: a true map brings the prediction back at once. It passes through the same pictures as perturbing
    the least relevant pixels first, backwards, and so has the area of that curve.

    Args:
        (all): as for `deletion_auc`.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> score = insertion_auc(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth", steps=4)
        >>> score.higher_is_better
        False
    """
    cell = CurveCell(as_perturbation(perturbation), steps)
    return as_evaluation(subject, images, options).score(method, cell, INSERTION_AUC)


def srg(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    steps: int = STEPS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Symmetric relevance gain (2401.06654): the area with the most relevant first minus that with the least.

    Higher is better, exactly 0 is expected of a random map, and an inverted map has the same value with the other sign.
    In the unit of the model's output.

    Args:
        (all): as for `deletion_auc`.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> srg(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth", steps=4).chance
        0.0
    """
    cell = CurveCell(as_perturbation(perturbation), steps)
    return as_evaluation(subject, images, options).score(method, cell, SRG)


def road(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "noisy_linear",
    fractions: Sequence[float] = FRACTIONS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """ROAD (2202.00449): the error without the most relevant pixels minus that without the least, mean of `fractions`.

    Pixels are imputed by `noisy_linear`, so that what is left does not betray the shape of the mask. Imputing edges
    changes a picture far more than imputing walls, so look at the control `edges` beside it. Higher is better, 0 is a
    random map; in the unit of the model's output.

    Args:
        subject, method, images, perturbation, **options: as for `attribution_fidelity`.
        fractions: above 0 and at most 0.5 each; two forward passes an image for each.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> road(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").metric
        'road'
    """
    cell = RoadCell(as_perturbation(perturbation), as_fractions(fractions))
    return as_evaluation(subject, images, options).score(method, cell, ROAD)


def sufficiency(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    fraction: float = KEPT,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """Whether the most relevant pixels alone carry the prediction: the AF of what is kept (1911.03429).

    Everything but the most relevant `fraction` is perturbed, then everything but the least relevant. The score is
    (error with the least - error with the most relevant kept) / (their sum), in [-1, 1]; higher is better, a random map
    is at 0.

    Args:
        subject, method, images, perturbation, **options: as for `attribution_fidelity`.
        fraction: of the pixels that are kept, above 0 and at most 0.5. Where everything else is lost, a few kept pixels
            hardly count, whichever they are: small fractions tell little.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> sufficiency(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").range
        (-1.0, 1.0)
    """
    cell = SufficiencyCell(as_perturbation(perturbation), fraction)
    return as_evaluation(subject, images, options).score(method, cell, SUFFICIENCY)


for _metric in (DELETION_AUC, INSERTION_AUC, SRG):
    register_cell(_metric, lambda perturbation, fraction: CurveCell(perturbation))
register_cell(ROAD, lambda perturbation, fraction: RoadCell(as_perturbation("noisy_linear")))
register_cell(SUFFICIENCY, lambda perturbation, fraction: SufficiencyCell(perturbation))
