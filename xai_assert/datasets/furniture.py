"""What stands in the rendered rooms, drawn at random; things have the sizes that things have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xai_assert.datasets.renderer import Shape, Texture, Vector


class Part(NamedTuple):
    """One solid of a thing: `at` is its centre, y above the floor, z away from the thing's back."""

    shape: Shape
    at: Vector
    half: Vector
    texture: Texture


@dataclass
class Thing:
    """What stands in a room: a class, its parts, half its width and depth on the floor, how high things lie on it."""

    kind: str
    parts: list[Part]
    half: tuple[float, float]
    top: float = 0.0


class Palette:
    """Random sizes, colours and textures."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def size(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def colour(self, low: float = 0.05, high: float = 0.8) -> Vector:
        grey, tint = self.random.uniform(low, high), self.random.normal(0, 0.22, 3)
        r, g, b = np.clip(grey * (1 + tint), 0.02, 0.95)
        return float(r), float(g), float(b)

    def wood(self, period: float = 0.12) -> Texture:
        tone, depth = self.size(0.15, 0.9), self.size(0.45, 0.8)
        dark = tone * depth
        return Texture("wood", (0.75 * tone, 0.5 * tone, 0.28 * tone), (0.45 * dark, 0.27 * dark, 0.13 * dark), period)

    def cloth(self) -> Texture:
        pattern = self.random.choice(["plain", "noise", "stripes", "checker"], p=[0.3, 0.35, 0.2, 0.15])
        return Texture(pattern, self.colour(), self.colour(), self.size(0.04, 0.2))

    def paint(self) -> Texture:
        return Texture("plain", self.colour())

    def hard(self) -> Texture:
        return self.wood() if self.random.random() < 0.6 else self.paint()

    def floor(self) -> Texture:
        pattern = self.random.choice(["wood", "tiles", "checker", "noise"], p=[0.4, 0.25, 0.15, 0.2])
        if pattern == "wood":
            return self.wood(self.size(0.1, 0.2))
        period = {"tiles": self.size(0.3, 0.6), "checker": self.size(0.25, 0.5), "noise": self.size(0.05, 0.2)}[pattern]
        return Texture(pattern, self.colour(0.2, 0.7), self.colour(0.08, 0.4), period)

    def wall(self) -> Texture:
        pattern = self.random.choice(["plain", "noise", "stripes", "tiles"], p=[0.4, 0.3, 0.2, 0.1])
        colour = self.colour(0.45, 0.85)
        fade = self.size(0.75, 0.95)
        other: Vector = (colour[0] * fade, colour[1] * fade, colour[2] * fade)
        return Texture(pattern, colour, other, self.size(0.1, 0.3))


def legs(x: float, z: float, height: float, thick: float, texture: Texture) -> list[Part]:
    return [
        Part("box", (a * (x - thick), height / 2, b * (z - thick)), (thick, height / 2, thick), texture)
        for a in (-1, 1)
        for b in (-1, 1)
    ]


def table(p: Palette) -> Thing:
    x, z, height, wood = p.size(0.4, 0.9), p.size(0.3, 0.45), p.size(0.70, 0.76), p.hard()
    if p.random.random() < 0.3:
        parts = [
            Part("cylinder", (0, height - 0.02, 0), (x, 0.02, x), wood),
            Part("cylinder", (0, height / 2, 0), (0.05, height / 2 - 0.02, 0.05), p.paint()),
            Part("cylinder", (0, 0.02, 0), (0.3, 0.02, 0.3), p.paint()),
        ]
        return Thing("table", parts, (x, x), height)
    top = Part("box", (0, height - 0.02, 0), (x, 0.02, z), wood)
    return Thing("table", [top, *legs(x, z, height - 0.04, 0.025, wood)], (x, z), height)


def low_table(p: Palette) -> Thing:
    x, z, height, wood = p.size(0.35, 0.6), p.size(0.25, 0.35), p.size(0.38, 0.46), p.hard()
    top = Part("box", (0, height - 0.03, 0), (x, 0.03, z), wood)
    return Thing("table", [top, *legs(x, z, height - 0.06, 0.03, wood)], (x, z), height)


def chair(p: Palette) -> Thing:
    wood, seat = p.hard(), p.cloth()
    parts = [
        Part("box", (0, 0.44, 0), (0.21, 0.025, 0.21), seat),
        Part("box", (0, 0.72, -0.19), (0.21, 0.2, 0.02), seat),
        *legs(0.21, 0.21, 0.42, 0.02, wood),
    ]
    return Thing("chair", parts, (0.22, 0.22))


def sofa(p: Palette) -> Thing:
    x, cloth = p.size(0.7, 1.1), p.cloth()
    cushion = p.cloth() if p.random.random() < 0.5 else cloth
    parts = [
        Part("box", (0, 0.2, 0), (x, 0.2, 0.42), cloth),
        Part("box", (0, 0.45, 0.05), (x - 0.16, 0.06, 0.37), cushion),
        Part("box", (0, 0.42, -0.33), (x, 0.42, 0.1), cloth),
        *(Part("box", (a * (x - 0.08), 0.3, 0), (0.08, 0.3, 0.42), cloth) for a in (-1, 1)),
        *(Part("ball", (a * (x - 0.4), 0.62, -0.15), (0.2, 0.18, 0.1), p.cloth()) for a in (-1, 1)),
    ]
    return Thing("sofa", parts, (x, 0.43))


def bed(p: Palette) -> Thing:
    x, cover, wood = p.size(0.45, 0.9), p.cloth(), p.hard()
    parts = [
        Part("box", (0, 0.15, 0), (x, 0.15, 1.0), wood),
        Part("box", (0, 0.4, 0.02), (x, 0.1, 0.98), cover),
        Part("box", (0, 0.5, -0.99), (x, 0.5, 0.03), wood),
        Part("ball", (-x / 2, 0.53, -0.7), (x * 0.45, 0.09, 0.2), p.paint()),
        Part("ball", (x / 2, 0.53, -0.7), (x * 0.45, 0.09, 0.2), p.paint()),
    ]
    return Thing("bed", parts, (x, 1.02))


def cabinet(p: Palette) -> Thing:
    x, z, wood = p.size(0.35, 0.7), p.size(0.2, 0.3), p.hard()
    height = p.size(0.75, 1.1) if p.random.random() < 0.5 else p.size(1.7, 2.1)
    front, knob = (p.hard() if p.random.random() < 0.4 else wood), p.paint()
    parts = [Part("box", (0, height / 2, 0), (x, height / 2, z), wood)]
    for a in (-1, 1):
        parts.append(Part("box", (a * x / 2, height / 2, z + 0.01), (x / 2 - 0.015, height / 2 - 0.04, 0.01), front))
        parts.append(Part("ball", (a * 0.06, height / 2, z + 0.03), (0.02, 0.02, 0.02), knob))
    return Thing("cabinet", parts, (x, z + 0.02), height if height < 1.2 else 0.0)


def shelf(p: Palette) -> Thing:
    x, z, height, wood = p.size(0.35, 0.6), 0.15, p.size(1.2, 2.0), p.hard()
    parts = [Part("box", (a * x, height / 2, 0), (0.012, height / 2, z), wood) for a in (-1, 1)]
    parts.append(Part("box", (0, height / 2, -z + 0.005), (x, height / 2, 0.005), wood))
    count = round(height / 0.36)
    for i in range(count + 1):
        y = height * i / count
        parts.append(Part("box", (0, max(y - 0.01, 0.01), 0), (x, 0.01, z), wood))
        if i < count and p.random.random() < 0.85:
            wide, tall = x * p.size(0.5, 0.95), p.size(0.09, 0.14)
            books = Texture("stripes", p.colour(), p.colour(), p.size(0.03, 0.05))
            side = (x - wide) * p.random.choice([-1, 1])
            parts.append(Part("box", (side, y + tall, 0), (wide, tall, z * 0.8), books))
    return Thing("shelf", parts, (x + 0.02, z))


def lamp(p: Palette) -> Thing:
    pole, shade = p.paint(), Texture("plain", p.colour(0.6, 0.9), glow=p.size(0.3, 1.5))
    height = p.size(1.3, 1.7)
    parts = [
        Part("cylinder", (0, 0.015, 0), (0.14, 0.015, 0.14), pole),
        Part("cylinder", (0, height / 2, 0), (0.015, height / 2, 0.015), pole),
        Part("cylinder", (0, height, 0), (0.2, 0.14, 0.2), shade),
    ]
    return Thing("lamp", parts, (0.2, 0.2))


def plant(p: Palette) -> Thing:
    leaf = Texture("noise", (0.08, 0.3, 0.06), (0.02, 0.08, 0.02), p.size(0.04, 0.1))
    pot, size, trunk = p.size(0.12, 0.2), p.size(0.2, 0.4), p.size(0.3, 0.9)
    parts = [
        Part("cylinder", (0, pot, 0), (pot, pot, pot), p.hard()),
        Part("cylinder", (0, 2 * pot + trunk / 2, 0), (0.02, trunk / 2, 0.02), p.wood()),
    ]
    for _ in range(3):
        x, y, z = p.random.normal(0, 0.12, 3)
        parts.append(Part("ball", (x, 2 * pot + trunk + y, z), (size * 0.8, size * 0.7, size * 0.8), leaf))
    return Thing("plant", parts, (size, size))


def box(p: Palette) -> Thing:
    x, y, z = p.random.uniform(0.12, 0.35, 3)
    card = Texture("noise", (0.55, 0.38, 0.2), (0.42, 0.28, 0.14), 0.1) if p.random.random() < 0.5 else p.cloth()
    return Thing("box", [Part("box", (0, y, 0), (x, y, z), card)], (x, z), 2 * y)


def ball(p: Palette) -> Thing:
    r = p.size(0.1, 0.14) if p.random.random() < 0.6 else p.size(0.25, 0.35)
    return Thing("ball", [Part("ball", (0, r, 0), (r, r, r), p.cloth())], (r, r))


def clutter(p: Palette) -> Thing:
    """A bottle, a book, a bowl, a mug or a screen; its y is above what it stands on."""
    kind = p.random.integers(5)
    if kind == 0:
        glass = p.paint()
        parts = [Part("cylinder", (0, 0.1, 0), (0.035, 0.1, 0.035), glass)]
        parts.append(Part("cylinder", (0, 0.24, 0), (0.014, 0.05, 0.014), glass))
    elif kind == 1:
        parts = [Part("box", (0, 0.02, 0), (0.1, 0.02, 0.14), p.cloth())]
    elif kind == 2:
        parts = [Part("ball", (0, 0.06, 0), (0.1, 0.06, 0.1), p.cloth())]
    elif kind == 3:
        parts = [Part("cylinder", (0, 0.05, 0), (0.04, 0.05, 0.04), p.paint())]
    else:
        dark = Texture("plain", (0.03, 0.03, 0.035))
        parts = [Part("box", (0, 0.27, 0), (0.27, 0.16, 0.015), dark)]
        parts.append(Part("cylinder", (0, 0.06, 0), (0.03, 0.06, 0.03), dark))
    return Thing("clutter", parts, (0.15, 0.15))


Maker = Callable[[Palette], Thing]
AT_WALL: tuple[Maker, ...] = (table, sofa, bed, cabinet, cabinet, shelf, shelf, lamp, plant, chair)
FREE: tuple[Maker, ...] = (table, low_table, low_table, chair, chair, box, box, ball, plant, sofa)
