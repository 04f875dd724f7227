"""Which pixels are relevant (R) and irrelevant (I): exact counts, one order for both ends, ties broken by lot."""

from __future__ import annotations

import decimal
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.errors import TiedHeatmapWarning
from xai_assert.randomness import ImageId

UP = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)  # rounded down, the fraction would not be usable


@dataclass(frozen=True, eq=False)
class Ranking:
    """The pixels of each image by relevance.

    `values` (B, H*W): the larger, the more relevant. `make_keys` makes of them whole numbers, all different within an
    image, in which lots decide between equals. An end is taken from the values alone, without sorting the rest, where
    its last pixel has no equal beyond it: to draw lots and to sort cost a third of a forward pass of a small network.
    """

    values: Tensor
    size: tuple[int, int]
    make_keys: Callable[[], Tensor]
    _ends: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def keys(self) -> Tensor:
        """Whole numbers (B, H*W) in the order of relevance, all different within an image."""
        return self.make_keys()

    @functools.cached_property
    def order(self) -> Tensor:
        """Positions (B, H*W) into the flattened map, most relevant first."""
        return self.keys.argsort(dim=1, descending=True)

    def ends(self, fraction: float) -> tuple[Tensor, Tensor]:
        """R and I as positions (B, k): the first and the last k of the order, so they cannot overlap."""
        k = pixel_count(fraction, self.size)
        if k not in self._ends:
            self._ends[k] = self._end(k, largest=True), self._end(k, largest=False)
        return self._ends[k]

    def _end(self, k: int, *, largest: bool) -> Tensor:
        values, positions = self.values.topk(k, dim=1, largest=largest, sorted=False)
        among = self.values >= values.amin(1, True) if largest else self.values <= values.amax(1, True)
        if (among.sum(1) == k).all():
            return positions
        return self.keys.topk(k, dim=1, largest=largest, sorted=False).indices

    def masks(self, fraction: float) -> tuple[Tensor, Tensor]:
        """R and I as boolean masks (B, 1, H, W)."""
        relevant, irrelevant = self.ends(fraction)
        return self.mask(relevant), self.mask(irrelevant)

    def mask(self, positions: Tensor) -> Tensor:
        """These positions (B, k) as a mask (B, 1, H, W)."""
        flat = torch.zeros(self.values.shape, dtype=torch.bool, device=self.values.device)
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
    flat = heatmap.to(torch.float32).flatten(1) + 0.0  # -0.0 becomes 0.0, which has other bits
    size = (heatmap.shape[1], heatmap.shape[2])
    return Ranking(flat, size, functools.partial(_keys, flat, seed, image_ids))


def _keys(flat: Tensor, seed: int, image_ids: Sequence[ImageId]) -> Tensor:
    """Whole numbers in the order of these values (B, n), all different within an image: lots decide between equals."""
    lots = randomness.permutations(flat.shape[1], seed=seed, image_ids=image_ids, purpose="ties").to(flat.device)
    drawn = flat.gather(1, lots)
    # Among equals the lots run forwards or backwards. Which of the two must turn round with the sign of the map, so
    # it is taken from the first two values that the lots draw and that differ.
    first_other = (drawn != drawn[:, :1]).int().argmax(1, keepdim=True)
    backwards = drawn.gather(1, first_other) > drawn[:, :1]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(lots)
    place = torch.empty_like(lots).scatter_(1, lots, places)  # of each pixel among the lots
    place = torch.where(backwards, place, flat.shape[1] - 1 - place)
    return (ordered_bits(flat) << 32) + place


def ordered_bits(values: Tensor) -> Tensor:
    """Whole numbers (int64) in the order of finite float32 values: their bits, those of negative ones turned round.

    >>> ordered_bits(torch.tensor([-2.0, -1.0, 0.0, 1e-45, 3.0])).diff().gt(0).all()
    tensor(True)
    """
    bits = values.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -(bits + 2**31), bits)


def decided_by_lot(heatmap: Tensor, ranking: Ranking, fraction: float) -> Tensor:
    """Where lots, not relevance, chose more than half of either end, (B,)."""
    k = pixel_count(fraction, ranking.size)
    flat = heatmap.flatten(1)
    relevant, irrelevant = (flat.gather(1, end) for end in ranking.ends(fraction))
    least, most = relevant.amin(1, keepdim=True), irrelevant.amax(1, keepdim=True)
    decided = ((flat >= least).sum(1) > k) & ((relevant == least).sum(1) > k / 2)
    decided |= ((flat <= most).sum(1) > k) & ((irrelevant == most).sum(1) > k / 2)
    return decided


def warn_of_ties(decided: Tensor, fraction: float, what: object) -> None:
    """Warn of images (B,) whose relevant or irrelevant pixels were drawn by lot.

    Warns:
        TiedHeatmapWarning: naming the share of images.
    """
    if decided.any():
        warnings.warn(
            f"{what} at {fraction:.3g}: ties decide more than half of the relevant or irrelevant pixels of "
            f"{int(decided.sum())} of {len(decided)} images; these pixels were drawn by lot",
            TiedHeatmapWarning,
            stacklevel=2,
        )
