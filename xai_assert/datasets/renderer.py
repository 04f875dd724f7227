"""A small ray caster: boxes, ellipsoids, cylinders and planes, textured, lit by point lights with shadows.

It exists to make test data that an honest depth network can learn from: perspective, texture gradients, shading,
ground contact and known sizes, with the exact depth. In metres; x is right, y up, z forward; yaw turns about y.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what an operator makes of two arrays is Any)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # of 32 bits
Vector = tuple[float, float, float]
Shape = Literal["box", "ball", "cylinder", "plane"]

FOCAL = 0.81  # focal length in image widths: 63 degrees from left to right, as NYU's camera
AMBIENT = 0.25
GAMMA = 1 / 2.2
SHADOW_BIAS = 2e-3  # share of the way from the light at which a point does not shade itself
BUNDLE = 32  # neighbouring rays that are tried or left out together
LATTICE = np.random.default_rng(0).random(4096, np.float32)


@dataclass(frozen=True)
class Texture:
    """Two colours (linear RGB) mixed in a pattern; `period` is the pattern's length in metres, `glow` its own light."""

    pattern: Literal["plain", "checker", "tiles", "stripes", "noise", "wood"]
    colour: Vector
    other: Vector = (0, 0, 0)
    period: float = 1.0
    glow: float = 0.0


@dataclass(frozen=True)
class Solid:
    """One surface: `half` holds half the extents along its own axes, or a plane's normal."""

    shape: Shape
    centre: Vector
    half: Vector
    texture: Texture
    yaw: float = 0.0
    label: int = 0
    instance: int = 0
    casts: bool = True  # a shadow; not the walls, nor a lamp that is a light itself


class Light(NamedTuple):
    position: Vector
    colour: Vector


class Camera(NamedTuple):
    """Where it stands, and its turns in radians: yaw to the right, pitch up, roll clockwise."""

    position: Vector
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


class Scene(NamedTuple):
    solids: Sequence[Solid]
    lights: Sequence[Light]
    camera: Camera
    brightness: float = 0.4  # of the median pixel, 0..1, as a camera's automatic exposure sets it


class Frame(NamedTuple):
    """`image` (H, W, 3) uint8 RGB; `depth` (H, W) float32, metres along the optical axis; `labels`, `instances`."""

    image: NDArray[np.uint8]
    depth: Floats
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]


def render(scene: Scene, height: int, width: int) -> Frame:
    """Cast one ray through the middle of each pixel; 0 depth, label and instance where it meets nothing.

    Example:
        >>> wall = Solid("plane", (0, 0, 2.5), (0, 0, -1), Texture("plain", (1, 1, 1)))
        >>> frame = render(Scene([wall], [Light((0, 1, 0), (1, 1, 1))], Camera((0, 0, 0))), 48, 64)
        >>> frame.image.shape, float(frame.depth.min()), float(frame.depth.max())
        ((48, 64, 3), 2.5, 2.5)
    """
    origin = np.array(scene.camera.position, np.float32)
    rays = camera_rays(scene.camera, height, width)
    depth, hit = trace(origin, rays, scene.solids)
    seen = np.flatnonzero(hit >= 0)
    points = origin[:, None] + rays[:, seen] * depth[seen]
    colours, normals = surfaces(scene.solids, hit[seen], points, rays[:, seen], depth[seen] / (FOCAL * width))
    radiance = np.zeros((3, height * width), np.float32)
    radiance[:, seen] = colours * lighting(scene, points, normals)
    radiance[:, seen] += colours * np.array([solid.texture.glow for solid in scene.solids], np.float32)[hit[seen]]
    numbers = np.array([(solid.label, solid.instance) for solid in scene.solids] + [(0, 0)], np.uint8)[hit]
    return Frame(
        expose(radiance, scene.brightness).T.reshape(height, width, 3),
        np.where(hit >= 0, depth, 0).reshape(height, width),
        numbers[:, 0].reshape(height, width),
        numbers[:, 1].reshape(height, width),
    )


def camera_rays(camera: Camera, height: int, width: int) -> Floats:
    """(3, H * W): a ray of length 1 along the optical axis for each pixel, so that its parameter is the depth."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    right = (u.ravel() + 0.5 - width / 2) / (FOCAL * width)
    up = (height / 2 - v.ravel() - 0.5) / (FOCAL * width)
    rays = np.stack([right, up, np.ones_like(up)])
    turned: Floats = turn(camera.yaw) @ turn(camera.pitch, (1, 2)) @ turn(camera.roll, (0, 1)) @ rays
    return turned.astype(np.float32)


def turn(angle: float, plane: tuple[int, int] = (0, 2)) -> Floats:
    """The rotation that takes the second axis of `plane` towards the first."""
    matrix = np.eye(3, dtype=np.float32)
    a, b = plane
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b] = np.sin(angle)
    matrix[b, a] = -matrix[a, b]
    return matrix


def trace(origin: Floats, rays: Floats, solids: Sequence[Solid]) -> tuple[Floats, NDArray[np.int16]]:
    """Where each ray `origin + t * ray` first meets a solid: t (N,), inf for nowhere, and its index (N,), or -1."""
    count = rays.shape[1]
    bundles = np.pad(rays, ((0, 0), (0, -count % BUNDLE)), mode="edge").reshape(3, -1, BUNDLE)
    nearest = np.full(bundles.shape[1:], np.inf, np.float32)
    hit = np.full(bundles.shape[1:], -1, np.int16)
    for index, (solid, touched) in enumerate(zip(solids, candidates(origin, bundles, solids), strict=True)):
        if len(touched):
            t = intersect(origin, bundles[:, touched].reshape(3, -1), solid).reshape(-1, BUNDLE)
            before = nearest[touched]
            nearest[touched] = np.minimum(t, before)
            hit[touched] = np.where(t < before, np.int16(index), hit[touched])
    return nearest.ravel()[:count], hit.ravel()[:count]


def candidates(origin: Floats, bundles: Floats, solids: Sequence[Solid]) -> list[NDArray[np.intp]]:
    """For each solid, which of the bundles (3, M, BUNDLE) may meet it: their cone touches that of its bounding ball."""
    unit = bundles / np.linalg.norm(bundles, axis=0)
    axes = unit.mean(2)
    axes /= np.linalg.norm(axes, axis=0)
    cos_bundle = np.clip(np.einsum("ijk,ij->jk", unit, axes).min(1) - 1e-5, -1, 1)
    ways = np.array([solid.centre for solid in solids], np.float32).reshape(-1, 3) - origin
    distances = np.linalg.norm(ways, axis=1)
    radii = np.array([np.inf if s.shape == "plane" else np.linalg.norm(s.half) for s in solids], np.float32)
    outside = distances > radii
    sin_ball = np.where(outside, radii, 0) / np.where(outside, distances, 1)
    cos_ball = np.sqrt(1 - sin_ball**2)
    apart = np.outer(cos_ball, cos_bundle) - np.outer(sin_ball, np.sqrt(1 - cos_bundle**2))  # cosine of the angles' sum
    touched = (ways @ axes >= (apart - 1e-5) * distances[:, None]) | ~outside[:, None]
    return [np.flatnonzero(row) for row in touched]


@np.errstate(divide="ignore", invalid="ignore")
def intersect(origin: Floats, rays: Floats, solid: Solid) -> Floats:
    """t (N,) of the first hit in front of the origin; inf for none. A solid is the part its spans have in common."""
    centre, half = np.array(solid.centre, np.float32), np.array(solid.half, np.float32)
    if solid.shape == "plane":
        t = half @ (centre - origin) / (half @ rays)
        return np.where(t > 0, t, np.float32(np.inf))
    back = turn(-solid.yaw)
    start, way = (back @ (origin - centre)) / half, (back @ rays) / half[:, None]  # the solid is now of size 1
    if solid.shape == "ball":
        near, far = round_span(start, way)
    elif solid.shape == "cylinder":
        sides, ends = round_span(start[[0, 2]], way[[0, 2]]), flat_span(start[1:2], way[1:2])
        near, far = np.maximum(sides[0], ends[0]), np.minimum(sides[1], ends[1])
    else:
        near, far = flat_span(start, way)
    return np.where((near <= far) & (near > 0), near, np.float32(np.inf))


def round_span(start: Floats, way: Floats) -> tuple[Floats, Floats]:
    """Between which t a ray is within 1 of the origin of its coordinates."""
    a, b = np.einsum("ij,ij->j", way, way), start @ way
    root = np.sqrt(b * b - a * (start @ start - 1))
    return (-b - root) / a, (-b + root) / a


def flat_span(start: Floats, way: Floats) -> tuple[Floats, Floats]:
    """Between which t all coordinates are in -1..1."""
    inverse = 1 / way
    low, high = (-1 - start)[:, None] * inverse, (1 - start)[:, None] * inverse
    return np.minimum(low, high).max(0), np.maximum(low, high).min(0)


def surfaces(
    solids: Sequence[Solid], hit: NDArray[np.int16], points: Floats, rays: Floats, pixel: Floats
) -> tuple[Floats, Floats]:
    """Colour and normal (towards the camera) of each point, (3, N) each; `pixel` is the size of a pixel there."""
    colours, normals = np.empty_like(points), np.empty_like(points)
    order = np.argsort(hit, kind="stable")
    for index, where in zip(*groups(hit, order), strict=True):
        solid = solids[index]
        back = turn(-solid.yaw)
        local = back @ (points[:, where] - np.array(solid.centre, np.float32)[:, None])
        normal = local_normal(solid, local)
        # The pattern lies on the two axes that the surface runs along.
        axis = np.abs(normal).argmax(0)
        u, v = np.where(axis == 0, local[2], local[0]), np.where(axis == 1, local[2], local[1])
        normals[:, where] = facing = back.T @ normal
        slant = np.abs(np.einsum("ij,ij->j", facing, rays[:, where])) / np.linalg.norm(rays[:, where], axis=0)
        colours[:, where] = paint(solid.texture, u, v, pixel[where] / np.maximum(slant, 0.1))
    return colours, normals


def groups(hit: NDArray[np.int16], order: NDArray[np.intp]) -> tuple[NDArray[np.int16], list[NDArray[np.intp]]]:
    """The solids that are seen, and the points of each."""
    found, starts = np.unique(hit[order], return_index=True)
    return found, np.split(order, starts[1:])


def local_normal(solid: Solid, local: Floats) -> Floats:
    """(3, N), in the solid's own axes."""
    half = np.array(solid.half, np.float32)[:, None]
    if solid.shape == "plane":
        return np.broadcast_to(half, local.shape)
    unit = local / half
    if solid.shape == "ball":
        normal = unit / half
    elif solid.shape == "cylinder":
        end = np.abs(unit[1]) > np.hypot(unit[0], unit[2])
        normal = np.stack([~end * unit[0] / half[0], end * unit[1], ~end * unit[2] / half[2]])
    else:
        normal = np.where(np.arange(3)[:, None] == np.abs(unit).argmax(0), np.sign(unit), 0)
    length: Floats = normal / np.linalg.norm(normal, axis=0)
    return length


def paint(texture: Texture, u: Floats, v: Floats, pixel: Floats) -> Floats:
    """(3, N): the texture's colour at (u, v) metres, averaged to grey where a pixel is larger than the pattern."""
    colour, other = (np.array(c, np.float32)[:, None] for c in (texture.colour, texture.other))
    if texture.pattern == "plain":
        return np.broadcast_to(colour, (3, len(u)))
    p, q = u / texture.period, v / texture.period
    if texture.pattern == "checker":
        mix = (np.floor(p) + np.floor(q)) % 2
    elif texture.pattern == "tiles":
        joint = (np.minimum(p % 1, q % 1) < 0.05).astype(np.float32)
        mix = np.maximum(joint, 0.3 * scatter(np.floor(p), np.floor(q)))
    elif texture.pattern == "stripes":
        mix = scatter(np.floor(p), np.zeros_like(p))
    elif texture.pattern == "noise":
        mix = 0.6 * noise(p, q) + 0.4 * noise(3.1 * p, 3.1 * q)
    else:  # planks with a grain along them, each of its own tone
        plank = np.floor(p)
        tone = scatter(plank, np.floor(q / 8 + LATTICE[plank.astype(np.int64) & 4095]))
        mix = np.maximum(0.5 * tone + 0.5 * noise(9 * p, 0.7 * q), (p % 1 < 0.06) * np.float32(1))
    fade = np.clip(2 * pixel / texture.period - 0.5, 0, 1)
    mix += (0.4 - mix) * fade
    return colour + (other - colour) * mix


def scatter(i: Floats, j: Floats) -> Floats:
    """A random number in 0..1 for each pair of whole numbers."""
    return LATTICE[(i.astype(np.int64) * 131 + j.astype(np.int64) * 37) & 4095]


def noise(u: Floats, v: Floats) -> Floats:
    """Random numbers on a grid of spacing 1, smoothly joined."""
    i, j = np.floor(u), np.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    left = scatter(i, j) * (1 - b) + scatter(i, j + 1) * b
    right = scatter(i + 1, j) * (1 - b) + scatter(i + 1, j + 1) * b
    return left * (1 - a) + right * a


def lighting(scene: Scene, points: Floats, normals: Floats) -> Floats:
    """(3, N): light from above and below, and what arrives from each lamp that the point sees."""
    total = AMBIENT * (0.75 + 0.25 * normals[1]) * np.ones((3, 1), np.float32)
    casters = [solid for solid in scene.solids if solid.casts]
    for light in scene.lights:
        lamp = np.array(light.position, np.float32)
        way = points - lamp[:, None]
        square = np.einsum("ij,ij->j", way, way)
        fall = -np.einsum("ij,ij->j", way, normals) / np.sqrt(square) / (0.5 + square)
        lit = np.flatnonzero(fall > 0)
        seen = trace(lamp, way[:, lit], casters)[0] > 1 - SHADOW_BIAS
        total[:, lit] += np.array(light.colour, np.float32)[:, None] * (fall[lit] * seen)
    return total


def expose(radiance: Floats, brightness: float) -> NDArray[np.uint8]:
    """Linear light to 8 bits: the median pixel at `brightness`, highlights rolled off."""
    median = max(float(np.median(radiance.mean(0))), 1e-6)
    gain = -np.log(1 - brightness ** (1 / GAMMA)) / median
    return np.rint(255 * (1 - np.exp(-gain * radiance)) ** GAMMA).astype(np.uint8)
