"""Does an attribution say what changes do, and does it hold still under small ones: infidelity, max-sensitivity."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.infidelity import INFIDELITY, RAW_INFIDELITY, SIZE, InfidelityCell
from xai_assert.metrics.infidelity import SAMPLES as PATCHES
from xai_assert.metrics.score import Score
from xai_assert.metrics.sensitivity import MAX_SENSITIVITY, RADIUS, SAMPLES, SensitivityCell
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.named import register_cell


def infidelity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    size: float = SIZE,
    samples: int = PATCHES,
    normalize: bool = True,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """How badly an attribution A predicts what perturbations I of random patches do to the target (1901.09392).

    The paper's definition is the mean of (I . A - (f(x) - f(x - I)))^2, in squared units of the target; attributions
    of another scale do not compare. Normalised, it is the share of the target's squared changes that s A leaves
    unexplained at its best scale s >= 0: 0 predicts them all, 1 predicts nothing (or the contrary). The target is the
    scalar that is explained; a map (B, H, W) counts for all channels alike. Lower is better.

    An attribution is taken as a slope. One that is multiplied by the input (integrated gradients, input x gradient)
    answers another question and does worse here than the slope that it was made of.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        perturbation: what the pixels of a patch become, a name or an `xa.perturbation(...)`; x - I is the result. One
            that changes all pixels one way (`black`) is explained by any positive map, a random one too.
        size: side of the square patches, a share of the image's shorter side.
        samples: patches an image, one forward pass each.
        normalize: False for the paper's definition.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> colours = {"mean": [0.5] * 3, "std": [0.5] * 3}
        >>> score = infidelity(nn.Conv2d(3, 1, 3), "saliency", torch.rand(4, 3, 8, 8), task="depth", **colours)
        >>> score.value < 1e-3
        True
    """
    cell = InfidelityCell(as_perturbation(perturbation), size, samples)
    return as_evaluation(subject, images, options).score(method, cell, INFIDELITY if normalize else RAW_INFIDELITY)


def max_sensitivity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """The largest ||A(x + d) - A(x)|| / ||A(x)|| over changes d of at most `radius` in each value (1901.09392).

    A is the signed attribution, the norm Frobenius's. 0 is perfectly stable; lower is better. A map that ignores the
    image is perfectly stable too: look at a fidelity beside it.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        radius: in ImageNet standard deviations; 0.1 is about 6 of 255 grey levels.
        samples: uniform draws of d, one explanation each.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> max_sensitivity(nn.Conv2d(3, 1, 3), "saliency", torch.rand(4, 3, 8, 8), task="depth").value
        0.0
    """
    return as_evaluation(subject, images, options).score(method, SensitivityCell(radius, samples), MAX_SENSITIVITY)


register_cell(INFIDELITY, lambda perturbation, fraction: InfidelityCell(perturbation))
register_cell(RAW_INFIDELITY, lambda perturbation, fraction: InfidelityCell(perturbation))
register_cell(MAX_SENSITIVITY, lambda perturbation, fraction: SensitivityCell())
