"""Adversarial perturbations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xai_assert.perturbations.base import clipped, positive, register_perturbation
from xai_assert.subject import Card


@register_perturbation("fgsm", gradient=True, single_step=True)
def fgsm(
    images: Tensor, *, card: Card, gradient: Callable[[], Tensor], epsilon: float = 3.0, clip: bool = False
) -> Tensor:
    """One step of `epsilon` along the sign of the loss gradient (Goodfellow et al., 1412.6572).

    The loss is the task's against the ground truth where that is given (depth: mean squared error), else the target. A
    value whose gradient is exactly 0 stays as it is.

    Args:
        images: (B, C, H, W).
        epsilon: strength, in ImageNet standard deviations whatever the network's own scaling.
        clip: keep the picture between black and white.
    """
    step = positive("fgsm: epsilon", epsilon) * card.strength(images.shape[1]).to(images)
    attacked = images + step * gradient().sign()
    return clipped(attacked, card) if clip else attacked
