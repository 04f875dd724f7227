"""Adversarial perturbations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.perturbations.base import Gradient, clipped, positive, register_perturbation, whole
from xai_assert.randomness import ImageId
from xai_assert.subject import Card


@register_perturbation("fgsm", gradient=True, single_step=True)
def fgsm(images: Tensor, *, card: Card, gradient: Gradient, epsilon: float = 3.0, clip: bool = False) -> Tensor:
    """One step of `epsilon` along the sign of the loss gradient (Goodfellow et al., 1412.6572).

    The loss is the task's against the ground truth where that is given (depth: mean squared error), else the target,
    which is lowered if it is the logit of a class (`Task.attack_lowers_target`). A value whose gradient is exactly 0
    stays as it is.

    Args:
        images: (B, C, H, W).
        epsilon: strength, in ImageNet standard deviations whatever the network's own scaling.
        clip: keep the picture between black and white.
    """
    step = positive("fgsm: epsilon", epsilon) * card.strength(images.shape[1]).to(images)
    attacked = images + step * gradient().sign()
    return clipped(attacked, card) if clip else attacked


@register_perturbation("pgd", gradient=lambda steps=10, **_: steps)
def pgd(
    images: Tensor,
    *,
    card: Card,
    image_ids: Sequence[ImageId],
    seed: int,
    gradient: Gradient,
    epsilon: float = 3.0,
    steps: int = 10,
    step: float | None = None,
    clip: bool = False,
) -> Tensor:
    """Projected gradient descent (Madry et al., 1706.06083): `steps` small FGSM steps from a random start.

    The start is uniform within epsilon of the image, and no step leaves that box. It does not start at the image, so
    unlike FGSM it is no step along the gradient that a gradient map shows.

    Args:
        images: (B, C, H, W).
        epsilon: strength, in ImageNet standard deviations whatever the network's own scaling.
        steps: gradient passes.
        step: length of one, in the unit of epsilon; by default 2.5 epsilon / steps, enough to cross the box.
        clip: keep the picture between black and white.
    """
    unit = card.strength(images.shape[1]).to(images)
    reach = positive("pgd: epsilon", epsilon) * unit
    whole("pgd: steps", steps, least=1)
    length = 2.5 * epsilon / steps if step is None else positive("pgd: step", step)
    start = 2 * randomness.uniform(images.shape[1:], seed=seed, image_ids=image_ids, purpose="pgd") - 1
    attacked = images + reach * start.to(images)
    for _ in range(steps):
        attacked = clipped(attacked, card) if clip else attacked
        moved = attacked + length * unit * gradient(attacked).sign()
        attacked = torch.minimum(torch.maximum(moved, images - reach), images + reach)
    return clipped(attacked, card) if clip else attacked
