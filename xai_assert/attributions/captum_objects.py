"""What Captum sees of a subject, and the caller's objects with our model in place of theirs."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.attributions.base import CAPTUM, is_captum
from xai_assert.errors import NotApplicableError, UnknownNameError
from xai_assert.subject import Subject
from xai_assert.tasks import Target, for_rows


class TargetModel(nn.Module):
    """What Captum sees: (images, rows) to the target (n,) of each, where rows (n,) says which image each is of."""

    def __init__(self, subject: Subject, target: Target, count: int, row: int | None = None) -> None:
        super().__init__()
        self.subject = subject
        self.target, self.count, self.row = target, count, row

    def forward(self, images: Tensor, rows: Tensor) -> Tensor:
        output = self.subject(images)
        if self.row is not None:
            rows = torch.full((len(output),), self.row)
        return for_rows(self.target, rows, self.count)(output)


def rebound(made: Any, explained: TargetModel) -> Any:
    """A copy of the caller's object, in which our model stands for the one that it was made with."""
    found, original = copy.copy(made), _module_of(made)
    subject = explained.subject
    theirs = original.module if isinstance(original, Subject) else original
    if not isinstance(theirs, nn.Module) or not same_network(theirs, subject.module):
        raise NotApplicableError(
            f"{CAPTUM}{type(made).__name__} was made with {_called(original)}, not with the module of {subject.name}, "
            "so it would explain something else; make it of that module (the target is ours), or name the method "
            f"'{CAPTUM}{type(made).__name__}'"
        )
    twins = {id(a): b for a, b in zip(theirs.modules(), subject.module.modules(), strict=True)}
    for key, value in vars(made).items():
        setattr(found, key, _replaced(value, original, theirs, twins, explained))
    return found


def _replaced(value: Any, original: Any, theirs: nn.Module, twins: dict[int, Any], explained: TargetModel) -> Any:
    if value is original:
        return explained
    if is_captum(value):
        return rebound(value, explained)
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)  # a layer; or a module of Captum's own
    if isinstance(value, list):
        return [_replaced(v, original, theirs, twins, explained) for v in value]  # handles go into it
    if inspect.ismethod(value) and value.__self__ is original:
        return getattr(explained, value.__name__)
    return value


def _module_of(made: Any) -> Any:
    for key in ("forward_func", "model"):
        if hasattr(made, key):
            found = getattr(made, key)
            return getattr(found, "__self__", found) if inspect.ismethod(found) else found
    inner = next((value for value in vars(made).values() if is_captum(value)), None)
    return None if inner is None else _module_of(inner)


def same_network(one: nn.Module, other: nn.Module) -> bool:
    """Whether the modules are the same, or copies (with other weights, perhaps) of each other."""
    if one is other:
        return True
    kinds = [[(name, type(m)) for name, m in module.named_modules()] for module in (one, other)]
    shapes = [[(name, p.shape) for name, p in module.named_parameters()] for module in (one, other)]
    return kinds[0] == kinds[1] and shapes[0] == shapes[1]


def _called(original: Any) -> str:
    return f"a function {original.__name__}" if inspect.isfunction(original) else f"a {type(original).__name__}"


def layer_named(subject: Subject, name: str) -> nn.Module:
    names = dict(subject.module.named_modules())
    if name not in names or not name:
        raise UnknownNameError(f"layer of {subject.name}", name, [n for n in names if n])
    found: nn.Module = names[name]
    return found
