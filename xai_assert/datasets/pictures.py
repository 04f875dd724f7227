"""Pictures that the project makes itself, for a first run without any data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xai_assert.datasets.images import ImageSet
from xai_assert.randomness import generator
from xai_assert.subject import Card

SIZE = (96, 128)
THINGS = 12


def generated(card: Card, *, count: int = 24, seed: int = 0) -> ImageSet:
    """Shaded discs and boxes before a gradient, at the card's input size (or 96x128); no ground truth.

    They have objects, edges and texture, and so serve to try a model and a method; they are no photographs, and no
    verdict should rest on them. A picture depends on its id, the seed and the size alone.

    Example:
        >>> generated(Card(name="depthnet"), count=2)[1].id
        'generated-01'
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be a whole number of at least 1, not {count!r}")
    return ImageSet(Generated(card.input_size or SIZE, count, seed), card)


class Generated:
    """The source behind `generated`."""

    has_depth = False

    def __init__(self, size: tuple[int, int], count: int, seed: int) -> None:
        self.name = "generated"
        self.ids = [f"generated-{i:02d}" for i in range(count)]
        self.size, self.seed = size, seed

    def read(self, index: int) -> tuple[Tensor, None]:
        return torch.from_numpy(draw(self.size, generator(self.seed, self.ids[index], "picture"))), None


def draw(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """One picture, (3, H, W) uint8. Lengths are in units of its height."""
    height, width = size
    y, x = np.mgrid[:height, :width] / height
    picture = shade(x, y, random)
    for radius in np.sort(random.uniform(0.06, 0.28, THINGS))[::-1]:
        centre_x, centre_y, angle = random.uniform((0, 0, 0), (width / height, 1, np.pi))
        along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
        across = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
        box = np.maximum(np.abs(along), np.abs(across) * random.uniform(1, 2.5))
        distance = box if random.random() < 0.5 else np.hypot(along, across)
        cover = np.clip((radius - distance) * height + 0.5, 0, 1)  # an edge one pixel wide
        picture += cover * (shade(along / radius, across / radius, random) - picture)
    grain = 1 + 0.03 * random.standard_normal((1, height, width))
    return np.clip(np.rint(picture * grain * 255), 0, 255).astype(np.uint8)


def shade(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A colour that runs into darkness along one direction, with faint stripes across another, (3, H, W)."""
    colour = random.uniform(0.15, 1.0, (3, 1, 1))
    light, stripes = random.uniform(0, 2 * np.pi, 2)
    ramp = np.clip(0.75 + 0.25 * (x * np.cos(light) + y * np.sin(light)), 0.2, 1)
    wave = random.uniform(8, 40) * (x * np.cos(stripes) + y * np.sin(stripes))
    shaded: np.ndarray = colour * ramp * (1 + 0.08 * np.sin(wave))
    return shaded
