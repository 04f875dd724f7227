"""Imputation: the pixel becomes what the pixels that are left say of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.perturbations.base import arrays, register_perturbation
from xai_assert.randomness import ImageId
from xai_assert.subject import Card

Array = npt.NDArray[np.float64]
NEIGHBOURS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}  # and their opposites: 1 in all


@register_perturbation("noisy_linear")
def noisy_linear(
    images: Tensor,
    *,
    card: Card,
    image_ids: Sequence[ImageId],
    seed: int,
    mask: Tensor,
    noise: float = 0.01,
) -> Tensor:
    """Noisy linear imputation (ROAD, 2202.00449): the pixels taken away are guessed from those that are left.

    Each becomes the weighted mean of its 8 neighbours, 1/6 for those beside it and 1/12 for the diagonal ones, which
    themselves may have been taken away: a linear system. A little noise hides that the guess is smooth, which would
    betray the shape of the mask. A picture of which nothing is left becomes its own mean colour.

    Args:
        images: (B, C, H, W).
        mask: (B, 1, H, W), true where pixels are taken away.
        noise: of the guess, in ImageNet standard deviations; may be 0.
    """
    if not isinstance(noise, int | float) or not math.isfinite(noise) or noise < 0:
        raise ValueError(f"noisy_linear: noise must be 0 or a positive number, not {noise!r}")
    pictures = arrays(images).copy()
    for picture, removed in zip(pictures, mask[:, 0].cpu().numpy(), strict=True):
        picture[:, removed] = harmonic(picture, removed)
    field = randomness.normal(images.shape[1:], seed=seed, image_ids=image_ids, purpose="noisy_linear").double()
    return torch.from_numpy(pictures) + noise * card.strength(images.shape[1]) * field


def harmonic(picture: Array, removed: npt.NDArray[np.bool_]) -> Array:
    """The removed pixels of a picture (C, H, W), (C, n): each the weighted mean of its neighbours, at the border of
    those that exist. All channels share one factorisation.

    >>> ramp = np.arange(25.0).reshape(1, 5, 5)
    >>> hole = np.zeros((5, 5), dtype=bool)
    >>> hole[2, 1:4] = True
    >>> harmonic(ramp, hole).round(12).tolist()
    [[11.0, 12.0, 13.0]]
    """
    channels, unknown = len(picture), removed.ravel()
    if unknown.all():  # any constant solves the equations
        return np.repeat(picture.reshape(channels, -1).mean(1, keepdims=True), unknown.size, axis=1)
    if not unknown.any():
        return np.empty((channels, 0))
    # sum_j w_ij (x_i - x_j) = 0 for each removed i: row by row the mean of the neighbours, and as a whole symmetric
    weights = _neighbours(removed.shape)[unknown]
    system = scipy.sparse.diags_array(weights.sum(1)) - weights[:, unknown]
    known = weights[:, ~unknown] @ picture.reshape(channels, -1)[:, ~unknown].T
    factors = scipy.sparse.linalg.splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solved: Array = factors.solve(known)
    return solved.T


@functools.lru_cache(maxsize=2)  # both ends of every image ask for the same
def _neighbours(size: tuple[int, int]) -> scipy.sparse.csr_array:
    """The weight of pixel j for pixel i, (HW, HW), symmetric."""
    height, width = size
    index = np.arange(height * width).reshape(size)
    pairs = []
    for (down, right), weight in NEIGHBOURS.items():
        here = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        there = index[down:, max(0, right) : width + min(0, right)].ravel()
        pairs += [(here, there, weight), (there, here, weight)]
    rows, columns = (np.concatenate([pair[end] for pair in pairs]) for end in (0, 1))
    values = np.concatenate([np.full(len(pair[0]), pair[2]) for pair in pairs])
    return scipy.sparse.csr_array((values, (rows, columns)), shape=(index.size, index.size))
