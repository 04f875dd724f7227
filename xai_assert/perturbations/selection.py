"""Which pixels are relevant (R) and irrelevant (I): exact counts, one order for both ends, ties broken by lot."""

from __future__ import annotations

import decimal
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.errors import TiedHeatmapWarning
from xai_assert.randomness import ImageId

UP = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)  # rounded down, the fraction would not be usable


@dataclass(frozen=True)
class Ranking:
    """The pixels of each image, most relevant first: positions (B, H*W) into the flattened map."""

    order: Tensor
    size: tuple[int, int]

    def masks(self, fraction: float) -> tuple[Tensor, Tensor]:
        """R and I as boolean masks (B, 1, H, W): the first and the last k of the order, so they cannot overlap."""
        k = pixel_count(fraction, self.size)
        return self.mask(self.order[:, :k]), self.mask(self.order[:, -k:])

    def mask(self, positions: Tensor) -> Tensor:
        """These positions (B, k) as a mask (B, 1, H, W)."""
        flat = torch.zeros(self.order.shape, dtype=torch.bool, device=self.order.device)
        return flat.scatter_(1, positions, True).reshape(-1, 1, *self.size)


def pixel_count(fraction: float, size: tuple[int, int]) -> int:
    """k = floor(p H W + 1/2) pixels.

    >>> pixel_count(0.05, (10, 10))
    5

    Raises:
        ValueError: p is not in (0, 0.5], or selects no pixel, or more than half of them.
    """
    pixels = size[0] * size[1]
    if not isinstance(fraction, int | float) or not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must be above 0 and at most 0.5 (R and I may not overlap), not {fraction!r}")
    count = math.floor(fraction * pixels + 0.5)
    if count == 0:
        raise ValueError(
            f"fraction {fraction} of {size[0]}x{size[1]} pixels selects none; "
            f"the smallest usable fraction is {UP.divide(1, 2 * pixels)}"
        )
    if count > pixels // 2:
        raise ValueError(f"fraction {fraction} of {size[0]}x{size[1]} pixels makes R and I overlap; use a smaller one")
    return count


def rank(heatmap: Tensor, *, seed: int, image_ids: Sequence[ImageId]) -> Ranking:
    """Order the pixels of heatmaps (B, H, W) by relevance, equals by a random order of each image.

    The order of -h is exactly the reverse of the order of h, and that of 2h is the same.
    """
    flat = heatmap.flatten(1) + 0.0  # -0.0 becomes 0.0: some sorts tell them apart
    lots = randomness.permutations(flat.shape[1], seed=seed, image_ids=image_ids, purpose="ties").to(flat.device)
    drawn = flat.gather(1, lots)
    # Among equals the lots run forwards or backwards. Which of the two must turn round with the sign of the map, so
    # it is taken from the first two values that the lots draw and that differ.
    first_other = (drawn != drawn[:, :1]).int().argmax(1, keepdim=True)
    backwards = drawn.gather(1, first_other) > drawn[:, :1]
    lots = torch.where(backwards, lots.flip(1), lots)
    by_relevance = flat.gather(1, lots).argsort(dim=1, descending=True, stable=True)
    return Ranking(lots.gather(1, by_relevance), (heatmap.shape[1], heatmap.shape[2]))


def warn_of_ties(heatmap: Tensor, ranking: Ranking, fraction: float, what: object) -> None:
    """Warn if lots, not relevance, decided more than half of either end.

    Warns:
        TiedHeatmapWarning: naming the share of images.
    """
    k = pixel_count(fraction, ranking.size)
    values = heatmap.flatten(1).gather(1, ranking.order)
    decided = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    for edge, beyond, end in (
        (values[:, k - 1], values[:, k], values[:, :k]),
        (values[:, -k], values[:, -k - 1], values[:, -k:]),
    ):
        decided |= (edge == beyond) & ((end == edge[:, None]).sum(1) > k / 2)
    if decided.any():
        warnings.warn(
            f"{what} at {fraction:.3g}: ties decide more than half of the relevant or irrelevant pixels of "
            f"{int(decided.sum())} of {len(values)} images; these pixels were drawn by lot",
            TiedHeatmapWarning,
            stacklevel=2,
        )
