"""Fillers: the pixel is replaced by a colour."""

from __future__ import annotations

from torch import Tensor

from xai_assert.perturbations.base import register_perturbation
from xai_assert.subject import IMAGENET_MEAN, Card


@register_perturbation("black")
def black(images: Tensor, *, card: Card) -> Tensor:
    """RGB 0 in the network's input space; images (B, C, H, W)."""
    return card.colour((0.0, 0.0, 0.0)).to(images).expand_as(images)


@register_perturbation("mean")
def mean(images: Tensor, *, card: Card) -> Tensor:
    """ImageNet's mean colour in the network's input space; images (B, C, H, W)."""
    return card.colour(IMAGENET_MEAN).to(images).expand_as(images)
