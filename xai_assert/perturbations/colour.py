"""Light: the picture brighter or darker, or with more or less contrast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xai_assert.perturbations.base import arrays, clipped, register_perturbation
from xai_assert.subject import Card


@register_perturbation("brightness")
def brightness(images: Tensor, *, card: Card, delta: float = 1.0, clip: bool = False) -> Tensor:
    """The same light added everywhere.

    Args:
        images: (B, C, H, W).
        delta: strength, in ImageNet standard deviations whatever the network's own scaling; negative is darker.
        clip: keep the picture between black and white.
    """
    if not isinstance(delta, int | float) or not math.isfinite(delta) or delta == 0:
        raise ValueError(f"brightness: delta must be a number other than 0, not {delta!r}")
    brighter = images + delta * card.strength(images.shape[1]).to(images)
    return clipped(brighter, card) if clip else brighter


@register_perturbation("contrast")
def contrast(images: Tensor, *, card: Card, factor: float = 0.25, clip: bool = False) -> Tensor:
    """The distance of every pixel from the picture's own mean colour times `factor`.

    Args:
        images: (B, C, H, W).
        factor: below 1 for less contrast (0: the mean colour alone), above 1 for more.
        clip: keep the picture between black and white.

    >>> contrast(torch.tensor([[[[1.0, 3.0]]]]), card=Card(name="net"), factor=0.5).tolist()
    [[[[1.5, 2.5]]]]
    """
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor < 0 or factor == 1:
        raise ValueError(f"contrast: factor must be a number of at least 0 other than 1, not {factor!r}")
    pictures = arrays(images)
    mean = pictures.mean((2, 3), keepdims=True)
    flatter = torch.from_numpy(mean + factor * (pictures - mean)).to(images)
    return clipped(flatter, card) if clip else flatter
