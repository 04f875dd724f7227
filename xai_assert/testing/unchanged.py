"""The model that all tests share must leave each of them as it came."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xai_assert.subject import Subject

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class State:
    """What is cheap to know of a model: version counters and sums of its tensors, flags, hooks; and a full hash."""

    tensors: dict[str, tuple[int, float, bool, bool]]
    modules: dict[str, tuple[bool, int]]
    fingerprint: str

    @classmethod
    def of(cls, subject: Subject, fingerprint: str | None = None) -> State:
        return cls(
            {name: _tensor(t) for name, t in _tensors(subject.explained.module)},
            {
                name: (m.training, sum(len(getattr(m, hooks)) for hooks in HOOKS))
                for name, m in subject.explained.module.named_modules()
            },
            fingerprint or subject.fingerprint(),
        )

    def check(self, subject: Subject, now: State) -> None:
        """Raises AssertionError naming what a test changed."""
        changed = [f"{what} of {name}" for name, what in _differences(self, now)]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise AssertionError(
                f"the test changed {subject.name}, which all tests share: {', '.join(changed[:5])}{more}; "
                "work on a copy.deepcopy of it"
            )

    def check_fingerprint(self, subject: Subject) -> None:
        """Raises AssertionError if any value differs from when the model was loaded."""
        if subject.fingerprint() != self.fingerprint:
            raise AssertionError(f"some test changed the weights of {subject.name}, which all tests share")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _tensor(tensor: Tensor) -> tuple[int, float, bool, bool]:
    total = float(tensor.detach().sum(dtype=torch.float64)) if not tensor.is_complex() else 0.0
    return tensor._version, total, tensor.requires_grad, tensor.grad is not None


def _differences(before: State, now: State) -> list[tuple[str, str]]:
    found = [(name, "name") for name in (before.tensors.keys() | before.modules) ^ (now.tensors.keys() | now.modules)]
    words = ("value (written in place)", "value", "requires_grad", ".grad")
    for name in before.tensors.keys() & now.tensors.keys():
        pairs = zip(words, before.tensors[name], now.tensors[name], strict=True)
        found += [(name, word) for word, old, new in pairs if old != new and old == old]
    for name in before.modules.keys() & now.modules.keys():
        pairs = zip(("training flag", "hooks"), before.modules[name], now.modules[name], strict=True)
        found += [(name or "the model", word) for word, old, new in pairs if old != new]
    return sorted(set(found))
