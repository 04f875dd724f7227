"""Pixels among those of their picture, or of their patch of it: the colours stay the picture's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.perturbations.base import arrays, register_perturbation, whole
from xai_assert.randomness import ImageId


@register_perturbation("shuffle")
def shuffle(images: Tensor, *, image_ids: Sequence[ImageId], seed: int) -> Tensor:
    """Each pixel gets the colour of another, in one random order an image for all channels; images (B, C, H, W)."""
    pixels = images.shape[2] * images.shape[3]
    return taken(images, randomness.permutations(pixels, seed=seed, image_ids=image_ids, purpose="shuffle"))


@register_perturbation("patch_shuffle")
def patch_shuffle(images: Tensor, *, image_ids: Sequence[ImageId], seed: int, size: int = 16) -> Tensor:
    """A `shuffle` within each patch: texture and edges go, what is seen from afar stays.

    Args:
        images: (B, C, H, W); the last patches are smaller where `size` does not divide H or W.
        size: side of a patch, in pixels.
    """
    side = whole("patch_shuffle: size", size, least=2)
    height, width = images.shape[2:]
    patch = (np.arange(height)[:, None] // side * width + np.arange(width) // side).ravel()
    places = torch.from_numpy(np.argsort(patch, kind="stable"))  # patch by patch
    draws = randomness.uniform((height * width,), seed=seed, image_ids=image_ids, purpose="patch_shuffle")
    orders = torch.from_numpy(np.stack([np.lexsort((draw, patch)) for draw in draws.numpy()]))
    return taken(images, torch.empty_like(orders).index_copy_(1, places, orders))


@register_perturbation("patch_mean")
def patch_mean(images: Tensor, *, size: int = 16) -> Tensor:
    """Each pixel becomes the mean colour of its patch, which is then flat.

    Args:
        images: (B, C, H, W); the last patches are smaller where `size` does not divide H or W.
        size: side of a patch, in pixels.

    >>> patch_mean(torch.tensor([[[[1.0, 3.0, 7.0]]]]), size=2).tolist()
    [[[[2.0, 2.0, 7.0]]]]
    """
    side = whole("patch_mean: size", size, least=2)
    height, width = images.shape[2:]
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(arrays(images), rows, axis=2), columns, axis=3)
    tall, wide = np.diff(rows, append=height), np.diff(columns, append=width)
    means = sums / (tall[:, None] * wide)
    return torch.from_numpy(means.repeat(tall, axis=2).repeat(wide, axis=3)).to(images)


def taken(images: Tensor, sources: Tensor) -> Tensor:
    """Images (B, C, H, W) whose pixel i has the colour of pixel sources[:, i], (B, HW)."""
    flat = images.flatten(2)
    return flat.gather(2, sources.to(images.device)[:, None].expand_as(flat)).reshape(images.shape)
