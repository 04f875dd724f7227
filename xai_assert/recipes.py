"""Images, heatmaps and masks by their recipe: a word and a seed, from which the tensor is made on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xai_assert.attributions import Method
from xai_assert.randomness import generator

Size = tuple[int, int]
Array = npt.NDArray[Any]
Maker = Callable[[np.random.Generator, tuple[int, ...]], Array]

LARGEST = float(np.finfo(np.float32).max)
LAYOUTS = ("contiguous", "channels_last", "strided")
IMAGES: dict[str, Maker] = {
    "noise": lambda random, shape: random.normal(size=shape),
    "zeros": lambda random, shape: np.zeros(shape),
    "flat": lambda random, shape: np.zeros(shape) + random.normal(size=(*shape[:2], 1, 1)),
    "extremes": lambda random, shape: random.choice([-2.5, 2.5], shape),
    "denormals": lambda random, shape: random.normal(size=shape) * 1e-39,
}


@dataclass(frozen=True)
class Images:
    """A batch of images.

    >>> Images("noise", (2, 3), 4, "channels_last", torch.float64, seed=0).tensor().shape
    torch.Size([4, 3, 2, 3])
    """

    kind: str
    size: Size
    count: int
    layout: str
    dtype: torch.dtype
    seed: int

    def tensor(self) -> Tensor:
        """(count, 3, *size), as a network's normalised input may be: between about -3 and 3."""
        values = IMAGES[self.kind](generator(self.seed, self.kind, "images"), (self.count, 3, *self.size))
        images = torch.from_numpy(values).to(self.dtype)
        if self.layout == "channels_last":
            return images.contiguous(memory_format=torch.channels_last)
        if self.layout == "strided":  # every other column of a wider tensor
            return images.repeat_interleave(2, dim=-1)[..., ::2]
        return images


def _distinct(low: float, high: float, spoiled: float | None = None) -> Maker:
    """Evenly from low to high, shuffled; one value is `spoiled`."""

    def make(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        values = random.permutation(np.linspace(low, high, shape[0]))
        if spoiled is not None:
            values[0] = spoiled
        return random.permutation(values)

    return make


def _few(*values: float) -> Maker:
    """Many ties: each of a few values, as far as there is room, and otherwise any of them."""

    def make(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        drawn = random.choice(values, shape)
        drawn[: len(values)] = values[: len(drawn)]
        return random.permutation(drawn)

    return make


def _single(value: float, background: float) -> Maker:
    """One pixel apart from all others."""

    def make(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        values = np.full(shape, background)
        values[random.integers(len(values))] = value
        return values

    return make


RANKABLE: dict[str, Maker] = {
    "distinct values": _distinct(0, 1),
    "negative values": _distinct(-2, -1),
    "both signs": _distinct(-1, 1),
    "ties": _few(0.0, 1.0, 2.0),
    "one hot pixel": _single(1.0, 0.0),
    "one cold pixel": _single(0.0, 1.0),
    "signed zeros": _few(0.0, 1.0, -0.0),
    "neighbouring values": _few(1.0, 1 + 2.0**-23, 1 - 2.0**-24),
    "denormals": _few(0.0, 2.0**-149, 2.0**-148, -(2.0**-149)),
    "huge values": _distinct(-LARGEST, LARGEST),
}
DEGENERATE: dict[str, Maker] = {
    "zeros": _few(0.0),
    "zeros of both signs": _few(0.0, -0.0),
    "a constant": _few(0.1),
    "a huge constant": _few(-LARGEST),
    "a NaN": _distinct(0, 1, spoiled=float("nan")),
    "NaN alone": _few(float("nan")),
    "infinity": _distinct(0, 1, spoiled=float("inf")),
    "negative infinity": _distinct(0, 1, spoiled=-float("inf")),
}
HEATMAPS = RANKABLE | DEGENERATE


@dataclass(frozen=True)
class Heatmap:
    """A heatmap; `method()` is the attribution method that finds it in every image.

    >>> Heatmap("one hot pixel", seed=3).tensor((2, 2)).flatten().tolist()
    [0.0, 0.0, 0.0, 1.0]
    """

    kind: str
    seed: int

    def tensor(self, size: Size) -> Tensor:
        """(H, W) float32; of two pixels or more, it ranks them unless its kind says otherwise."""
        values = HEATMAPS[self.kind](generator(self.seed, self.kind, "heatmap"), (size[0] * size[1],))
        return torch.from_numpy(values.astype(np.float32)).reshape(size)

    def method(self, transform: Callable[[Tensor], Tensor] = torch.clone) -> Method:
        """The method that returns `transform` of this map for every image, whatever its size."""

        def find(model: object, images: Tensor, target: object) -> Tensor:
            heatmap = transform(self.tensor((images.shape[2], images.shape[3])))
            return heatmap.to(images.device).expand(len(images), -1, -1)

        return Method(f"heatmap of {self.kind}", find, signed="as_is")


@dataclass(frozen=True)
class Mask:
    """A mask of one pixel ("pixel"), a rectangle ("box"), or any pixels ("scattered").

    >>> int(Mask("pixel", seed=0).tensor((4, 4)).sum())
    1
    """

    kind: str
    seed: int

    def tensor(self, size: Size) -> Tensor:
        """(H, W) bool, true somewhere."""
        random = generator(self.seed, self.kind, "mask")
        mask = random.random(size) < 0.5 if self.kind == "scattered" else np.zeros(size, dtype=bool)
        top, bottom, left, right = (edge for side in size for edge in sorted(random.integers(side, size=2)))
        mask[top, left] = True
        if self.kind == "box":
            mask[top : bottom + 1, left : right + 1] = True
        return torch.from_numpy(mask)
