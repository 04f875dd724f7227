"""Networks whose true explanation is planted, and explanations that are made worse step by step: to test metrics with.

A metric of explanations has one job, to put better explanations before worse ones. Here it is known which are better.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert import registry
from xai_assert.attributions import Method
from xai_assert.datasets.renderer import Frame, Scene, Solid, Texture, render, turn
from xai_assert.datasets.rooms import room
from xai_assert.errors import TiedHeatmapWarning
from xai_assert.evaluation import Evaluation
from xai_assert.known_models import Pixelwise
from xai_assert.metrics import Score
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.randomness import ImageId, generator
from xai_assert.subject import Subject, describe

KINDS = ("object", "additive", "watermark")
SIZE = (48, 64)
COUNT = 16
FIRST_ROOM = 2_000_000  # seeds of rooms that no training and no bundled scene uses
MAGENTA = (1.0, 0.0, 1.0)  # no furniture has it
BALL = 255  # the instance number of the planted object
DISTANCE = 0.28  # metres to the ball: nearer than anything may be to the camera
OWN, AROUND = 0.75, 0.25  # how magenta a pixel and the 3x3 around it must be: the ball is 1, grey 0, noise .8 adds .26
MARK = (slice(4, 12), slice(40, 60))  # rows and columns of the watermark: 160 pixels, 5.2 % of the picture
STAMPED = 0.9  # brightness of the mark's place from which on it counts as stamped

CHAINS = (
    ("true", "blurred 2", "blurred 4", "blurred 8", "random", "inverted"),
    ("true", "noised 0.5", "noised 1", "noised 2", "random", "inverted"),
    ("true", "shifted 4", "shifted 8"),  # beside the object is worse than anywhere
)
STRICT = (("true", "random"), ("random", "inverted"), ("true", "misplaced"), ("true", "wrong"))  # never equal
CHANCE = 2.5  # standard errors of paired differences: with 16 images 1 equal pair in 80 seems to differ (Student's t)

Order = Literal["all", "ends", "none"]


class Finder(nn.Module):
    """Depth (B, 1, H, W) that is the same everywhere but on what is magenta: there it goes by the pixel's brightness.

    Pictures are in [0, 1]. A pixel is found that is magenta in magenta surroundings, so noise elsewhere is not taken
    for the object; finding has no gradient, reading is linear.

    >>> picture = torch.zeros(1, 3, 4, 4)
    >>> picture[:, [0, 2], 1:] = 1.0
    >>> Finder().finds(picture).sum().item()
    12
    """

    def __init__(self) -> None:
        super().__init__()
        self.near, self.slope = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(3.0))

    def finds(self, pictures: Tensor) -> Tensor:
        """Where it looks, (B, 1, H, W) bool."""
        red, green, blue = pictures.detach().unbind(1)
        key = (torch.minimum(red, blue) - green)[:, None]
        return (key > OWN) & (F.avg_pool2d(key, 3, 1, 1, count_include_pad=False) > AROUND)

    def forward(self, pictures: Tensor) -> Tensor:
        read = self.finds(pictures).to(pictures) * pictures.mean(1, keepdim=True)
        return self.near.to(pictures) + self.slope.to(pictures) * read


class MarkReader(Finder):
    """Depth that goes by a watermark alone, spread over the whole map; without the mark, by the object.

    >>> stamp(torch.zeros(1, 3, 48, 64)).sum().item() / 3
    160.0
    """

    def forward(self, pictures: Tensor) -> Tensor:
        mark = pictures[..., *MARK].mean(1, keepdim=True)
        stamped = mark.detach().flatten(1).mean(1) > STAMPED
        spread = self.near.to(pictures) + self.slope.to(pictures) * F.interpolate(mark, pictures.shape[-2:])
        return spread.where(stamped[:, None, None, None], super().forward(pictures))


def stamp(pictures: Tensor) -> Tensor:
    """The pictures (B, 3, H, W) in [0, 1] with the watermark: a white bar near the top right corner."""
    pictures = pictures.clone()
    pictures[..., *MARK] = 1.0
    return pictures


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, images (B, 3, H, W) and the true map of each, (B, H, W).

    `wrong` is an explanation that looks right and is not: the object, where the network decides by a watermark.

    >>> model = planted("object", count=2)
    >>> model.subject, tuple(model.truth.shape)
    (<Subject planted-object: depth in m, Finder, 2 parameters on cpu>, (2, 48, 64))
    """

    kind: str
    subject: Subject
    images: Tensor
    truth: Tensor
    wrong: Tensor | None = None

    @functools.cached_property
    def explanations(self) -> dict[str, Method]:
        """The true map and what was made of it, as methods; see `degraded`."""
        maps = degraded(self.truth) | ({} if self.wrong is None else {"wrong": self.wrong})
        return {name: Method(name.replace(" ", "_"), stored(heatmaps)) for name, heatmaps in maps.items()}

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """Of the network on its images; it measures nothing twice."""
        return Evaluation(self.subject, self.images, batch_size=len(self.images))

    def scores(self, metric: str, *, perturbation: str = "gaussian_noise", fraction: float = 0.05) -> dict[str, Score]:
        """What a registered metric says of each of the explanations.

        >>> scores = planted("additive", count=2).scores("af")
        >>> scores["true"].value, scores["inverted"].value
        (1.0, -1.0)
        """
        measure, under = registry.metrics.get(metric).measure, as_perturbation(perturbation)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TiedHeatmapWarning)  # beside an object its mask is 0: there all is tied
            return {
                name: measure(self.evaluation, method, under, fraction) for name, method in self.explanations.items()
            }


def planted(kind: str, *, count: int = COUNT, size: tuple[int, int] = SIZE) -> Planted:
    """A network with a planted explanation; the same in every call.

    - "object": reads one object of rendered rooms, a magenta ball, and nothing else. The truth is its mask.
    - "additive": a sum of the pixels with weights of their own, which are the truth.
    - "watermark": decides by a bright mark that is stamped on the rooms. The truth is the mark, and the ball is wrong.

    Args:
        kind: one of the three.
        count: of images.
        size: height and width in pixels, at least 48 x 64.

    Raises:
        ValueError: there is no such kind, or the size or the count is too small.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if count < 1 or size[0] < SIZE[0] or size[1] < SIZE[1]:
        raise ValueError(f"count must be at least 1 and size at least {SIZE}, not {count} and {size}")
    pictures, objects = pictures_with_ball(count, size)
    if kind == "object":
        return Planted(kind, _subject(Finder(), kind, size), pictures, objects)
    if kind == "watermark":
        mark = stamp(torch.zeros_like(pictures))[:, 0]
        return Planted(kind, _subject(MarkReader(), kind, size), stamp(pictures), mark, wrong=objects * (1 - mark))
    weights = smooth_weights(size)
    subject = _subject(Pixelwise(weights.expand(3, -1, -1) / 3), kind, size)
    return Planted(kind, subject, pictures, weights.expand(count, -1, -1))


def _subject(module: nn.Module, kind: str, size: tuple[int, int]) -> Subject:
    """Its images are plain pictures in [0, 1]."""
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    name = f"planted-{kind}"
    return describe(module, name=name, task="depth", mean=zeros, std=ones, input_size=size, unit="m")


@functools.cache
def pictures_with_ball(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rooms (B, 3, H, W) in [0, 1] with a magenta ball before the camera, and the ball's masks (B, H, W) of 0 and 1."""
    frames = [room_with_ball(FIRST_ROOM + i, size) for i in range(count)]
    pictures = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2) / 255
    return pictures, torch.from_numpy(np.stack([frame.instances == BALL for frame in frames])).float()


def room_with_ball(seed: int, size: tuple[int, int]) -> Frame:
    """A rendered room, and in front of the camera a ball that covers 6 to 16 % of the picture."""
    scene, random = room(seed), generator(seed, "ball", "planted model")
    camera = scene.camera
    across, up, radius = (DISTANCE * x for x in random.uniform((-0.36, -0.2, 0.15), (0.36, 0.2, 0.22)))
    turned = turn(camera.yaw) @ turn(camera.pitch, (1, 2)) @ turn(camera.roll, (0, 1))
    x, y, z = (float(v) for v in np.array(camera.position) + turned @ np.array([across, up, DISTANCE]))
    texture = Texture("plain", MAGENTA, glow=3.0)  # of its own light, so that it is as bright in any room
    ball = Solid("ball", (x, y, z), (radius,) * 3, texture, instance=BALL, casts=False)
    return render(Scene([*scene.solids, ball], scene.lights, camera, scene.brightness), *size)


def smooth_weights(size: tuple[int, int]) -> Tensor:
    """A field (H, W) of soft hills between 0 and 1; about half of it is 0."""
    drawn = generator(0, "weights", "planted model").standard_normal(size)
    hills = np.maximum(scipy.ndimage.gaussian_filter(drawn, 4.0, mode="wrap"), 0)
    return torch.from_numpy(hills / hills.max()).float()


def degraded(truth: Tensor) -> dict[str, Tensor]:
    """What is made of true maps (B, H, W), non-negative, in steps; `CHAINS` says which are worse than which.

    Blurred with a deviation of so many pixels, with noise of so many times their maximum, shifted by so many pixels to
    the right and down, random, inverted; misplaced: shifted by half the picture, so of the same form elsewhere.

    >>> maps = degraded(torch.eye(16)[None])
    >>> list(maps)[:4], maps["inverted"].diagonal(dim1=1, dim2=2).max().item()
    (['true', 'blurred 2', 'blurred 4', 'blurred 8'], 0.0)
    """
    top = truth.flatten(1).amax(1)[:, None, None]
    draws = [generator(i, "noise", "degraded").random(truth.shape[1:], dtype=np.float32) for i in range(len(truth))]
    noise = top * torch.from_numpy(np.stack(draws)).to(truth)
    maps = {"true": truth}
    for sigma in (2, 4, 8):
        soft = scipy.ndimage.gaussian_filter(truth.double().numpy(), sigma, axes=(1, 2), mode="reflect")
        maps[f"blurred {sigma}"] = torch.from_numpy(soft).to(truth)
    maps |= {f"noised {level:g}": truth + level * noise for level in (0.5, 1.0, 2.0)}
    maps |= {f"shifted {far}": truth.roll((far, far), (1, 2)) for far in (4, 8)}
    half = (truth.shape[1] // 2, truth.shape[2] // 2)
    return maps | {"random": noise.flip(0, 1), "inverted": top - truth, "misplaced": truth.roll(half, (1, 2))}


def stored(heatmaps: Tensor) -> Any:
    """A method's function that returns row i of `heatmaps` (B, H, W) for the image with the id i."""

    def explain(model: nn.Module, images: Tensor, target: Any, *, image_ids: Sequence[ImageId]) -> Tensor:
        return heatmaps[[int(i) for i in image_ids]].to(images)

    return explain


def order(scores: Mapping[str, Score]) -> Order:
    """Whether a metric orders the explanations: "all" of them; the "ends" (what is `STRICT`); or "none".

    >>> values = {"true": 1.0, "random": 0.0, "inverted": -1.0}
    >>> order({name: Score(torch.full((4,), value), tuple("abcd"), "mine") for name, value in values.items()})
    'all'
    """
    if not faults(scores):
        return "all"
    return "none" if misplaced(scores, STRICT) else "ends"


def faults(scores: Mapping[str, Score]) -> list[str]:
    """Where a metric puts a worse explanation before a better one; nothing if it orders them all.

    The truth must stand above a random map, that above the inverted one, and the truth above a misplaced and a wrong
    one, each by more than chance: `CHANCE` standard errors of the paired differences. Along each of the `CHAINS` no
    step may raise the score by more than that.

    >>> def constant(value):
    ...     return Score(torch.full((4,), value), tuple("abcd"), "mine")
    >>> faults({"true": constant(1.0), "random": constant(1.0), "inverted": constant(0.0)})
    ['true (1) is not above random (1)']
    """
    found = misplaced(scores, STRICT)
    for chain in CHAINS:
        known = [name for name in chain if name in scores]
        for better, worse in itertools.pairwise(known):
            gain, chance = difference(scores[better], scores[worse])
            if gain < -chance and (better, worse) not in STRICT:
                found.append(f"{named(scores, worse)} is above {named(scores, better)}")
    return list(dict.fromkeys(found))


def misplaced(scores: Mapping[str, Score], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The pairs of which the first does not stand above the second by more than chance."""
    found = []
    for better, worse in pairs:
        if better in scores and worse in scores:
            gain, chance = difference(scores[better], scores[worse])
            if not gain > chance:
                found.append(f"{named(scores, better)} is not above {named(scores, worse)}")
    return found


def difference(better: Score, worse: Score) -> tuple[float, float]:
    """How much better the one is in the mean, and what of it may be chance: paired by image."""
    gains = (better.values - worse.values) * (1 if better.higher_is_better else -1)
    error = float(gains.std(correction=1)) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()), CHANCE * error


def named(scores: Mapping[str, Score], name: str) -> str:
    return f"{name} ({scores[name].value:.3g})"


def table(kind: str) -> str:
    """What every registered metric of explanations says of a planted model, in Markdown."""
    model = planted(kind)
    lines = [["metric", *model.explanations, "orders"], ["---"] * (len(model.explanations) + 2)]
    for metric in registry.metrics.names():
        if registry.metrics.get(metric).about == "explanation":
            scores = model.scores(metric)
            lines.append([f"`{metric}`", *(f"{score.value:.3g}" for score in scores.values()), order(scores)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How the metrics order explanations of a planted model.")
    parser.add_argument("kind", choices=KINDS, nargs="?", default=KINDS[0])
    print(table(parser.parse_args().kind))
