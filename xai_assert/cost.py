"""How long a pass takes, and so what a plan will; and who has spent which: no time is measured here but that of the
clean passes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from xai_assert.attributions import Method
from xai_assert.attributions.gradients import input_gradient
from xai_assert.batching import Passes, without_gradient
from xai_assert.metrics import Cell
from xai_assert.subject import Subject
from xai_assert.tasks import Target

T = TypeVar("T")
ROUNDS = 3  # of a forward and a gradient pass, after one that warms up

clock: Callable[[], float] = time.perf_counter  # tests put a clock here that they can read on paper


def timed(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, with nothing of it or of what came before left to do on the device; and its result."""
    synchronise(device)
    begun = clock()
    result = work()
    synchronise(device)
    return clock() - begun, result


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Speed:
    """Seconds an image, of a forward pass and of a gradient pass."""

    forward: float
    gradient: float

    def seconds(self, passes: Passes) -> float:
        """The time of so many passes."""
        return passes.forward * self.forward + passes.gradient * self.gradient


class Spent:
    """What was counted in `total`, by the method that it was spent on.

    >>> total = Passes()
    >>> spent = Spent(total)
    >>> with spent.by("saliency"):
    ...     total.gradient += 6
    >>> spent.of("saliency"), spent.of("random")
    (Passes(forward=0, gradient=6), Passes(forward=0, gradient=0))
    """

    def __init__(self, total: Passes) -> None:
        self._total = total
        self._of: dict[Any, Passes] = defaultdict(Passes)

    def of(self, key: Any) -> Passes:
        """The passes made for this method so far."""
        return self._of[key]

    @contextmanager
    def by(self, key: Any) -> Iterator[None]:
        """Book the passes made inside to this method."""
        before = Passes(self._total.forward, self._total.gradient)
        try:
            yield
        finally:
            now, mine = self._total - before, self._of[key]
            mine.forward, mine.gradient = mine.forward + now.forward, mine.gradient + now.gradient


def measure_speed(subject: Subject, images: Tensor, target: Target) -> Speed:
    """The minimum of a few rounds of each, on these images (B, C, H, W) at a time; inside `undisturbed`."""
    explained = subject.explained
    rounds = [
        (
            timed(subject.device, lambda: without_gradient(subject, images))[0],
            # no gradient pass will be made of what only predicts
            0.0
            if explained.only_predicts
            else timed(subject.device, lambda: input_gradient(explained, images, target))[0],
        )
        for _ in range(1 + ROUNDS)  # the first one warms up
    ]
    forward, gradient = (min(column) / len(images) for column in zip(*rounds, strict=True))
    return Speed(forward, gradient)


def passes_an_image(method: Method, cells: Iterable[Cell], own: Passes | None = None) -> Passes | None:
    """What the cells of a method cost an image; None if it, or a method that a cell runs beside it, does not say what
    it costs itself. `own` is what the method costs, where somebody counted it."""
    own = own or _declared(method)
    cells = list(cells)
    more = [own if other is None else _declared(other) for cell in cells for other in cell.explanations]
    known = [passes for passes in more if passes is not None]
    if own is None or len(known) < len(more):
        return None
    attacks = {cell.perturbation.key: cell.perturbation.gradients for cell in cells if cell.perturbation}
    parts = [own, *known, *(cell.passes for cell in cells)]
    clean = 0 if method.predicts else 1
    return Passes(clean + sum(p.forward for p in parts), sum(p.gradient for p in parts) + sum(attacks.values()))


def _declared(method: Method) -> Passes | None:
    return Passes(*method.declared_passes) if method.declared_passes else None


def predict_cost(
    plan: Iterable[tuple[Method, Iterable[Cell]]],
    images: int,
    speed: Speed,
    own: Mapping[Any, Passes] | None = None,
) -> tuple[Passes, float]:
    """The passes of a plan over so many images, and the seconds that they take at this speed.

    Args:
        plan: the cells of each method; a cell that stands twice in it is computed once.
        images: how many.
        speed: of the model, from `measure_speed`.
        own: passes an image of methods that do not declare theirs, by `Method.key`; without it they count nothing.

    Example:
        >>> from xai_assert import method, perturbation
        >>> from xai_assert.metrics import FidelityCell
        >>> plan = [(method("saliency"), [FidelityCell(perturbation("gaussian_noise"))])]
        >>> predict_cost(plan, 100, Speed(forward=0.01, gradient=0.02))  # R, I; the map, and the prediction with it
        (Passes(forward=200, gradient=100), 4.0)
    """
    total = Passes()
    for method, cells in plan:
        once = {cell.key: cell for cell in cells}.values()
        each = passes_an_image(method, once, (own or {}).get(method.key)) or passes_an_image(method, once, Passes())
        if each:
            total.forward += images * each.forward
            total.gradient += images * each.gradient
    return total, speed.seconds(total)
