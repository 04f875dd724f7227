"""A long work and the bare passes it needs, woven: before each pass of the work a bare one of the same images.

The speed of a shared machine changes by a tenth within seconds. Of works that take seconds, one run after another, a
ratio would tell the moods of the machine; woven, both meet the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from benchmarks import bare
from benchmarks.measuring import BARE, Clock, Contender, Rounds, Take, Timed, Turn, alternate
from benchmarks.networks import Setup
from xai_assert.batching import Passes
from xai_assert.preserve import hooks

Needed = tuple[int, int]  # forward and gradient passes of the batch


@dataclass
class Kind:
    """The passes of one kind in one turn: images, and the seconds of the bare ones."""

    images: int = 0
    seconds: float = 0.0


@dataclass
class Loom:
    """A hook on the network that runs a bare pass before each of its own, on a copy that no other hook sees."""

    twin: Setup
    clock: Clock
    forward: Kind = field(default_factory=Kind)
    gradient: Kind = field(default_factory=Kind)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = inputs[0]
        differentiated = torch.is_grad_enabled() and images.requires_grad
        kind, one_pass = (self.gradient, bare.gradient) if differentiated else (self.forward, bare.forward)
        begun = self.clock()
        one_pass(self.twin, images)
        kind.seconds += self.clock() - begun
        kind.images += len(images)

    @property
    def seconds(self) -> float:
        return self.forward.seconds + self.gradient.seconds

    def base(self, needed: Needed, batch: int) -> float:
        """Seconds of the passes that are needed, at what an image of each kind took."""
        total = 0.0
        for kind, passes in zip((self.forward, self.gradient), needed, strict=True):
            if passes and not kind.images:
                raise ValueError("the work made no pass of a kind that it needs, so there is nothing to compare")
            total += kind.seconds / kind.images * passes * batch if passes else 0.0
        return total


def woven(setup: Setup, needed: Needed, clock: Clock) -> Take:
    """Turns whose seconds are those of the work alone, and whose base is what the needed bare passes take."""
    twin = replace(setup, subject=copy.deepcopy(setup.subject))

    def take(run: Callable[[], object]) -> Turn:
        loom = Loom(twin, clock)
        with hooks(setup.module.register_forward_pre_hook(loom)):
            begun = clock()
            run()
            spent = clock() - begun
        passes = Passes(loom.forward.images, loom.gradient.images)
        return Turn(spent - loom.seconds, passes, loom.base(needed, setup.batch))

    return take


def weave(
    contenders: Sequence[Contender], setup: Setup, needed: Needed, *, ours: str, clock: Clock, rounds: Rounds
) -> dict[str, Timed]:
    """As `alternate`, but each contender has bare passes of its own; as `BARE` stand those woven into `ours`."""
    timed = alternate([one for one in contenders if one.name != BARE], woven(setup, needed, clock), **rounds)
    forward, gradient = (passes * setup.batch for passes in needed)
    return {BARE: Timed(timed[ours].base, passes=Passes(forward, gradient)), **timed}
