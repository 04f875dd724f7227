"""Blur: the pixel becomes a mean of those around it."""

from __future__ import annotations

import scipy.ndimage
import torch
from torch import Tensor

from xai_assert.perturbations.base import arrays, positive, register_perturbation

WIDEST = 4  # times the longer side: beyond, exp(-(4 pi)^2 / 2) of the contrast is left, which no float tells from none


@register_perturbation("blur")
def blur(images: Tensor, *, sigma: float = 10.0) -> Tensor:
    """A Gaussian blur of `sigma` pixels (Fong & Vedaldi, 1704.03296, take 10); images (B, C, H, W).

    The picture is mirrored at its border, so that its mean colour stays what it is.

    >>> blur(torch.ones(1, 3, 4, 4), sigma=2.0).unique().tolist()
    [1.0]
    """
    widest = WIDEST * max(images.shape[-2:])
    return blurred(images, min(positive("blur: sigma", sigma), widest)).to(images)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) blurred with a standard deviation of `sigma` pixels, in float64 on the CPU."""
    return torch.from_numpy(scipy.ndimage.gaussian_filter(arrays(images), sigma, axes=(2, 3), mode="reflect"))
