"""How a fault is planted: functions, methods of classes and networks are replaced, and come back at the end."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from xai_assert import registry
from xai_assert.models.builders import register_model
from xai_assert.models.bundled import NETWORKS, bundled

Planting = Callable[[ExitStack], None]


@dataclass(frozen=True)
class Mutant:
    """A fault of a few lines; `where` is "methods", "models" or "protocol"."""

    name: str
    where: str
    description: str
    plant: Planting

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The fault is there inside, and nowhere afterwards."""
        with ExitStack() as stack:
            stack.enter_context(registry.isolated())
            self.plant(stack)
            yield


CATALOGUE: list[Mutant] = []


def mutant(where: str, description: str) -> Callable[[Planting], Planting]:
    """Decorator: a function that plants a fault, named as the mutant."""

    def add(plant: Planting) -> Planting:
        CATALOGUE.append(Mutant(plant.__name__, where, description, plant))
        return plant

    return add


def attribute(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute of a class or module until the end."""
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def function(stack: ExitStack, original: Any, changed: Any) -> None:
    """Put `changed` in the place of a function, under every name by which our modules and suites know it."""
    modules = [m for name, m in list(sys.modules.items()) if name.startswith(("xai_assert", "test_", "suites"))]
    for module in modules:
        for name, value in list(vars(module).items()):
            if value is original:
                attribute(stack, module, name, changed)


def method(name: str, changed: Callable[..., Any] | None = None, **facts: Any) -> None:
    """Register a method anew, with another function or other facts; `registry.isolated` takes it back."""
    entry = registry.methods.get(name)
    facts = facts | ({"function": changed} if changed else {})
    registry.methods.register(name, replace(entry, **facts), replace=True)


def networks(change: Callable[[nn.Module], Any]) -> None:
    """Register the bundled networks anew, each changed after its weights were loaded."""

    def build(name: str, weights: Any = None) -> Any:
        subject = bundled(name, weights)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            change(subject.module)
        return subject

    for name in NETWORKS:
        register_model(name, subject_name=name, replace=True)(functools.partial(build, name))


def layers(module: nn.Module, *kinds: type[nn.Module]) -> list[Any]:
    """The layers of these kinds, in order."""
    return [layer for layer in module.modules() if isinstance(layer, kinds)]
