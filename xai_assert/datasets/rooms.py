"""Furnished rooms for the renderer, each drawn from its seed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from xai_assert.datasets.furniture import AT_WALL, FREE, Palette, Part, Thing, clutter
from xai_assert.datasets.renderer import Camera, Frame, Light, Scene, Solid, Texture, Vector, render

CLASSES = (
    "nothing", "wall", "floor", "ceiling", "door", "window", "picture", "rug", "table", "chair", "sofa", "bed",
    "cabinet", "shelf", "lamp", "plant", "box", "ball", "clutter",
)  # fmt: skip
MARGIN = 0.35  # metres between the camera and things
TRIES = 20  # places tried for one thing
WALLS = (0.0, math.pi / 2, math.pi, -math.pi / 2)  # the yaw of each wall's normal, into the room

Rectangle = tuple[float, float, float, float]  # on the floor: lowest x and z, highest x and z


def scene(seed: int, height: int = 240, width: int = 320) -> Frame:
    """The picture of one room, with its depth and masks; the same for the same seed.

    Example:
        >>> scene(7, 60, 80).depth.shape
        (60, 80)
    """
    return render(room(seed), height, width)


def room(seed: int) -> Scene:
    """Walls and what hangs on them, furniture, clutter on it, two or three lights, and a camera."""
    return Room(np.random.default_rng(seed)).scene()


class Room:
    """A room being furnished: `solids` so far, and the rectangles of the floor that are `taken`."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random, self.palette = random, Palette(random)
        self.width, self.depth, self.height = (float(x) for x in random.uniform((2.6, 3.0, 2.4), (6.5, 8.5, 2.9)))
        self.solids: list[Solid] = []
        self.taken: list[Rectangle] = []
        self.instances = 0

    def scene(self) -> Scene:
        self.shell()
        windows = self.hang()
        self.furnish()
        lights = list(self.lights(windows))
        return Scene(self.solids, lights, self.camera(), self.palette.size(0.36, 0.58))

    def add(self, thing: Thing, at: Vector, yaw: float) -> None:
        """The thing with its back's middle line at `at`; what glows or is part of the room casts no shadow."""
        self.instances += 1
        for part in thing.parts:
            x, y, z = part.at
            centre = (
                at[0] + x * math.cos(yaw) + z * math.sin(yaw), at[1] + y, at[2] - x * math.sin(yaw) + z * math.cos(yaw),
            )  # fmt: skip
            casts = not part.texture.glow and part.shape != "plane"
            label = CLASSES.index(thing.kind)
            self.solids.append(Solid(part.shape, centre, part.half, part.texture, yaw, label, self.instances, casts))

    def shell(self) -> None:
        """Floor, ceiling, walls and their skirting."""
        middle = (self.width / 2, 0.0, self.depth / 2)
        wall, skirting = self.palette.wall(), self.palette.paint()
        feature = self.palette.wall() if self.random.random() < 0.4 else wall
        floor = Part("plane", (0, 0, 0), (0, 1, 0), self.palette.floor())
        ceiling = Part("plane", (0, self.height, 0), (0, -1, 0), Texture("plain", self.palette.colour(0.7, 0.9)))
        self.add(Thing("floor", [floor], (0, 0)), middle, 0.0)
        self.add(Thing("ceiling", [ceiling], (0, 0)), middle, 0.0)
        for index, yaw in enumerate(WALLS):
            at, length = self.wall(yaw)
            normal = (math.sin(yaw), 0.0, math.cos(yaw))
            self.add(Thing("wall", [], (0, 0)), at, yaw)
            texture = feature if index == 0 else wall
            label = CLASSES.index("wall")
            self.solids.append(Solid("plane", at, normal, texture, 0.0, label, self.instances, casts=False))
            foot, half = (at[0], 0.04, at[2]), (length / 2, 0.04, 0.012)
            self.solids.append(Solid("box", foot, half, skirting, yaw, label, self.instances, casts=False))
        if self.random.random() < 0.25:  # a pillar, or the end of a partition
            half = (self.palette.size(0.15, 0.3), self.height / 2, self.palette.size(0.15, 0.6))
            pillar = Thing("wall", [Part("box", (0, self.height / 2, 0), half, wall)], (half[0], half[2]))
            self.at_wall(pillar)

    def wall(self, yaw: float) -> tuple[Vector, float]:
        """The middle of a wall's lower edge, and the wall's length."""
        along_z = abs(math.cos(yaw)) > 0.5
        reach = (self.depth if along_z else self.width) / 2
        at = (self.width / 2 - reach * math.sin(yaw), 0.0, self.depth / 2 - reach * math.cos(yaw))
        return at, self.width if along_z else self.depth

    def on_wall(self, half_width: float, away: float) -> tuple[Vector, float]:
        """A random place along a random wall, `away` from it."""
        yaw = float(self.random.choice(WALLS))
        (x, y, z), length = self.wall(yaw)
        room = max(length / 2 - half_width - 0.05, 0.0)
        s = self.palette.size(-room, room)
        sin, cos = math.sin(yaw), math.cos(yaw)
        return (x + s * cos + away * sin, y, z - s * sin + away * cos), yaw

    def hang(self) -> list[tuple[Vector, float]]:
        """Doors, windows and pictures; where the windows are."""
        p, white = self.palette, Texture("plain", self.palette.colour(0.6, 0.9))
        for _ in range(self.random.integers(1, 3)):
            frame = Part("box", (0, 1.04, 0), (0.48, 1.04, 0.015), white)
            leaf = Part("box", (0, 1.0, 0.02), (0.42, 1.0, 0.015), p.hard())
            knob = Part("ball", (0.34, 1.02, 0.06), (0.03, 0.03, 0.03), p.paint())
            at, yaw = self.on_wall(0.5, 0.0)
            self.add(Thing("door", [frame, leaf, knob], (0, 0)), at, yaw)
            self.taken.append((at[0] - 0.5, at[2] - 0.5, at[0] + 0.5, at[2] + 0.5))
        windows = []
        for _ in range(self.random.integers(0, 3)):
            x, y = p.size(0.4, 0.8), p.size(0.4, 0.6)
            pane = Texture("noise", (0.6, 0.75, 0.9), (0.35, 0.5, 0.4), 0.5, glow=p.size(0.5, 2.0))
            parts = [Part("box", (0, 1.5, 0), (x + 0.06, y + 0.06, 0.02), white)]
            parts += [Part("box", (a * x / 2, 1.5, 0.01), (x / 2 - 0.02, y, 0.015), pane) for a in (-1, 1)]
            windows.append(self.on_wall(x, 0.0))
            self.add(Thing("window", parts, (0, 0)), *windows[-1])
        for _ in range(self.random.integers(0, 4)):
            x, y = p.size(0.15, 0.5), p.size(0.15, 0.4)
            parts = [Part("box", (0, 1.55, 0), (x, y, 0.012), p.paint())]
            canvas = Texture("noise", p.colour(), p.colour(), 0.2)
            parts.append(Part("box", (0, 1.55, 0.01), (x - 0.03, y - 0.03, 0.01), canvas))
            self.add(Thing("picture", parts, (0, 0)), *self.on_wall(x, 0.0))
        return windows

    def furnish(self) -> None:
        if self.random.random() < 0.5:
            half = self.random.uniform((0.5, 0.7), (1.1, 1.5))
            rug = Part("box", (0, 0.006, 0), (float(half[0]), 0.006, float(half[1])), self.palette.cloth())
            x, z = self.random.uniform((0.3, 0.3), (0.7, 0.7)) * (self.width, self.depth)
            self.add(Thing("rug", [rug], (0, 0)), (x, 0, z), self.palette.size(-0.3, 0.3))
        area = self.width * self.depth
        for _ in range(self.random.integers(3, 6) + int(area / 8)):
            self.at_wall(AT_WALL[self.random.integers(len(AT_WALL))](self.palette))
        for _ in range(self.random.integers(2, 5) + int(area / 10)):
            self.anywhere(FREE[self.random.integers(len(FREE))](self.palette))

    def at_wall(self, thing: Thing) -> None:
        x, z = thing.half
        for _ in range(TRIES):
            at, yaw = self.on_wall(x, z + 0.02)
            if self.take(at, (x, z) if abs(math.cos(yaw)) > 0.5 else (z, x)):
                return self.put(thing, at, yaw)

    def anywhere(self, thing: Thing) -> None:
        for _ in range(TRIES):
            yaw = self.palette.size(-math.pi, math.pi)
            sin, cos = abs(math.sin(yaw)), abs(math.cos(yaw))
            x, z = thing.half[0] * cos + thing.half[1] * sin, thing.half[0] * sin + thing.half[1] * cos
            low, high = (x + 0.05, z + 0.05), (self.width - x - 0.05, self.depth - z - 0.05)
            if low[0] < high[0] and low[1] < high[1]:
                at = self.random.uniform(low, high)
                if self.take((at[0], 0.0, at[1]), (x, z)):
                    return self.put(thing, (float(at[0]), 0.0, float(at[1])), yaw)

    def take(self, at: Vector, half: tuple[float, float]) -> bool:
        """Claim a rectangle of the floor, if it is free."""
        x, z, mine = at[0], at[2], (at[0] - half[0], at[2] - half[1], at[0] + half[0], at[2] + half[1])
        inside = half[0] <= x <= self.width - half[0] and half[1] <= z <= self.depth - half[1]
        free = inside and not any(overlap(mine, other) for other in self.taken)
        if free:
            self.taken.append(mine)
        return free

    def put(self, thing: Thing, at: Vector, yaw: float) -> None:
        """The thing, and small things on its top."""
        self.add(thing, at, yaw)
        if thing.top:
            for _ in range(self.random.integers(0, 5)):
                small = clutter(self.palette)
                room = [max(a - b, 0.0) for a, b in zip(thing.half, small.half, strict=True)]
                a, b = self.random.uniform(-1, 1, 2) * room
                x, z = a * math.cos(yaw) + b * math.sin(yaw), b * math.cos(yaw) - a * math.sin(yaw)
                self.add(small, (at[0] + x, thing.top, at[2] + z), yaw + self.palette.size(-0.6, 0.6))

    def lights(self, windows: list[tuple[Vector, float]]) -> Iterator[Light]:
        """A lamp below the ceiling, daylight from the first window, a lamp somewhere."""
        middle = self.random.uniform((0.3, 0.3), (0.7, 0.7)) * (self.width, self.depth)
        position = (float(middle[0]), self.height - 0.25, float(middle[1]))
        yield Light(position, self.shine(2.5, 5.0, (1.0, 0.85, 0.65)))
        bulb = Texture("plain", (0.9, 0.9, 0.85), glow=3.0)
        self.add(Thing("lamp", [Part("ball", (0, 0, 0), (0.14, 0.1, 0.14), bulb)], (0, 0)), position, 0.0)
        for (x, _, z), yaw in windows[:1]:
            near = (x + 0.4 * math.sin(yaw), 1.6, z + 0.4 * math.cos(yaw))
            yield Light(near, self.shine(1.5, 5.0, (0.75, 0.9, 1.0)))
        x, z = self.random.uniform((0.1, 0.1), (0.9, 0.9)) * (self.width, self.depth)
        yield Light((float(x), self.palette.size(1.6, 2.2), float(z)), self.shine(0.5, 2.5, (1.0, 0.8, 0.55)))

    def shine(self, low: float, high: float, tint: Vector) -> Vector:
        power, mix = self.palette.size(low, high), self.palette.size(0, 1)
        r, g, b = (power * (1 + mix * (c - 1)) for c in tint)
        return r, g, b

    def camera(self) -> Camera:
        """At a person's eye or chest, clear of things, looking across the room."""
        size = np.array((self.width, self.depth))
        at, target = size / 2, size
        for _ in range(200):
            at, target = self.random.uniform(MARGIN, size - MARGIN), self.random.uniform(0.15 * size, 0.85 * size)
            here = (at[0] - MARGIN, at[1] - MARGIN, at[0] + MARGIN, at[1] + MARGIN)
            far = math.hypot(*(target - at)) > 0.35 * math.hypot(*size)
            if far and not any(overlap(here, other) for other in self.taken):
                break
        yaw = math.atan2(*(target - at)) + float(self.random.normal(0, 0.2))
        pitch, roll = math.radians(self.random.normal(-11, 7)), math.radians(self.random.normal(0, 1.5))
        return Camera((float(at[0]), self.palette.size(1.1, 1.75), float(at[1])), yaw, pitch, roll)


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
