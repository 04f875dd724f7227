"""What belongs to the caller must come out as it went in: one check for everything that runs a model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return dict(named)


def state(module: nn.Module, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    """Everything but values, in words that can be compared."""
    everything = {**tensors_of(module), **{f"tensor {i}": t for i, t in enumerate(tensors)}}
    return {
        "training": {name: m.training for name, m in module.named_modules()},
        "hooks": {
            name: [list(getattr(m, kind)) for kind in vars(m) if kind.endswith("_hooks")]
            for name, m in module.named_modules()
        },
        "requires_grad": {name: t.requires_grad for name, t in everything.items()},
        "identity": {name: (id(t), t.data_ptr()) for name, t in everything.items()},
        "grad": {name: None if not t.is_leaf or t.grad is None else id(t.grad) for name, t in everything.items()},
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.random.get_rng_state().tolist(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


@contextmanager
def untouched(module: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Fail if what runs inside changes the module, the tensors or a global random state, also when it raises."""
    everything = {**tensors_of(module), **{f"tensor {i}": t for i, t in enumerate(tensors)}}
    values = {name: t.detach().clone() for name, t in everything.items()}
    before = state(module, tensors)
    try:
        yield
    finally:
        after = state(module, tensors)
        for what, found in after.items():
            assert found == before[what], f"{what} changed"
        for name, t in everything.items():
            torch.testing.assert_close(t.detach(), values[name], rtol=0, atol=0, equal_nan=True, msg=f"{name} changed")
