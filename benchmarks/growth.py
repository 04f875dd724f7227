"""How time and memory grow: with images, IG steps, tokens and fractions; ours beside what the work needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

import xai_assert as xa
from benchmarks import bare, rivals
from benchmarks.cases import CAPTUM, OURS, attribute, evaluation, ig
from benchmarks.measuring import BARE, Contender, alone, alternate, as_record, clock_of
from benchmarks.memory import peak
from benchmarks.networks import NETWORKS, Setup, prepare, target
from benchmarks.tokens import rollouts

IMAGES, MORE_IMAGES = (1, 2, 4, 8, 16, 32), (1, 4, 16, 64, 256)  # on a CPU, on a GPU
STEPS = (10, 25, 50, 100)
SIDES = (8, 16, 24, 32)  # of a grid of tokens: 64 to 1024
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
CHUNK = 4  # images at a time on a CPU
SECONDS, FEWEST = 3.0, 2  # of a point, and its rounds


@dataclass(frozen=True)
class Point:
    """One place on a curve."""

    x: int
    module: nn.Module
    images: int
    contenders: list[Contender]
    apart: float | None = None


def with_images(setup: Setup) -> Point:
    """A fidelity cell and its saliency of more images, some at a time."""
    count = setup.batch
    chunk = count if setup.images.device.type == "cuda" else min(CHUNK, count)
    part = replace(setup, images=setup.images[:chunk])
    one = bare.passes(part, 3, 1)

    def needed() -> None:
        for _ in range(-(-count // chunk)):
            one()

    def ours() -> object:
        found = xa.Evaluation(setup.subject, setup.images, batch_size=chunk, target=target)
        return found.attribution_fidelity("saliency")

    return Point(count, setup.module, count, [Contender(BARE, needed), Contender(OURS, ours)])


def with_steps(setup: Setup, steps: int) -> Point:
    """Integrated gradients of more steps."""
    contenders = [
        Contender(BARE, bare.passes(setup, 0, steps)),
        Contender(OURS, partial(attribute, setup, ig(steps))),
        rivals.contender(CAPTUM, partial(rivals.captum_ig, setup, steps)),
    ]
    return Point(steps, setup.module, setup.batch, contenders)


def with_tokens(side: int, device: torch.device) -> Point:
    """A rollout over more tokens, the forward pass excluded."""
    module, contenders, apart = rollouts(side, device)
    return Point(side * side, module, 1, contenders, apart=apart)


def with_fractions(setup: Setup, count: int) -> Point:
    """One fidelity curve at more fractions."""

    def ours() -> object:
        return xa.fidelity_curve(evaluation(setup), "saliency", fractions=FRACTIONS[:count])

    contenders = [Contender(BARE, bare.passes(setup, 1 + 2 * count, 1)), Contender(OURS, ours)]
    return Point(count, setup.module, setup.batch, contenders)


def record(point: Point, device: torch.device, *, small: bool, memory: bool = False) -> dict[str, Any]:
    """A point, measured."""
    timed = alternate(
        point.contenders,
        alone(point.module, clock_of(device)),
        seconds=SECONDS,
        fewest=FEWEST,
        exact=1 if small else None,
    )
    found: dict[str, Any] = {"x": point.x, "contenders": as_record(timed, point.images)}
    if point.apart is not None:
        found["apart"] = point.apart
    if memory and device.type == "cuda":
        for one in point.contenders:
            if one.run is not None:
                found["contenders"][one.name]["bytes"] = peak(one.run, device)
    return found


def growths(device: torch.device, *, small: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All curves, on the first network: {along what: a function that measures it}."""
    meter = NETWORKS[0]
    counts: Sequence[int] = MORE_IMAGES if device.type == "cuda" else IMAGES
    counts, steps, sides = (counts[:2], STEPS[:2], SIDES[:2]) if small else (counts, STEPS, SIDES)
    wide = prepare(meter, device, images=max(counts))
    single = replace(wide, images=wide.images[:1])

    def curve(along: str, work: str, points: Iterable[Point]) -> dict[str, Any]:
        found = [record(point, device, small=small, memory=True) for point in points]
        return {"network": meter.name, "along": along, "work": work, "points": found}

    cut = (replace(wide, images=wide.images[:count]) for count in counts)
    return {
        "images": lambda: curve("images", "one fidelity cell (saliency)", map(with_images, cut)),
        "steps": lambda: curve("steps", "integrated gradients", (with_steps(single, n) for n in steps)),
        "tokens": lambda: curve("tokens", "rollout without its forward", (with_tokens(n, device) for n in sides)),
        "fractions": lambda: curve("fractions", "fidelity curve", (with_fractions(single, n) for n in (1, 2, 4, 8))),
    }
