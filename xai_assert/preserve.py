"""Context managers under which the caller's model, tensors and random states come out as they went in."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from xai_assert.randomness import ImageId, generator


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, frozen parameters, full float32 precision; everything restored, also after an exception.

    Inference mode is left inside, because its tensors cannot enter a later gradient.
    """
    modules = list(module.modules())
    # not module.parameters(), which walks through the network once more: that takes as long as a small layer
    parameters = [p for m in modules for p in m._parameters.values() if p is not None]
    devices = {"cpu", *(p.device.type for p in parameters)} - {"meta"}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(_flags(modules, parameters))
        stack.enter_context(_random_states())
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        if "cuda" in devices:
            stack.enter_context(full_precision())
        yield


@contextmanager
def _flags(modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    training = [(m, m.training) for m in modules]
    # the flag of a tensor made in inference mode could not be set back outside it
    trainable = [(p, p.requires_grad) for p in parameters if not p.is_inference()]
    try:
        _set_flags([(m, False) for m in modules], [(p, False) for p, _ in trainable])
        yield
    finally:
        _set_flags(training, trainable)


def _set_flags(training: Sequence[tuple[nn.Module, bool]], trainable: Sequence[tuple[nn.Parameter, bool]]) -> None:
    """Only those that differ: to set an attribute of a module costs as much as a small layer."""
    for m, flag in training:
        if m.training is not flag:
            m.training = flag
    for p, flag in trainable:
        if p.requires_grad is not flag:
            p.requires_grad_(flag)


@contextmanager
def _random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def seeded(seed: int, image_id: ImageId, purpose: str) -> Iterator[None]:
    """Global random states of this image and purpose, for code that draws from them; restored afterwards.

    A GPU draws other numbers than the CPU of the same seed.
    """
    number = int(generator(seed, image_id, purpose).integers(2**32))
    with _random_states():
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(number)
        yield


@contextmanager
def modules_as_they_were(module: nn.Module) -> Iterator[None]:
    """Hooks and attributes of a module and all inside it come out as they went in, also after an exception.

    Parameters and buffers are the same tensors afterwards; what was written into them stays.
    """
    kept = [(m, dict(vars(m))) for m in module.modules()]
    stores = [d for m, _ in kept for key, d in vars(m).items() if key.endswith("_hooks") and isinstance(d, dict)]
    contents = [dict(d) for d in stores]
    try:
        yield
    finally:
        for m, attributes in kept:
            for key in set(vars(m)) - set(attributes):
                del m.__dict__[key]
            m.__dict__.update(attributes)
        for store, content in zip(stores, contents, strict=True):  # in place, for a handle knows the store it is in
            store.clear()
            store.update(content)


@contextmanager
def full_precision() -> Iterator[None]:
    """TF32 off: it moves the saliency of a ReLU network by up to a fifth of its range.

    Through `fp32_precision`, because reading the older `allow_tf32` raises once a caller has used the new names.
    """
    cudnn: Any = torch.backends.cudnn
    switches = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    kept = [s.fp32_precision for s in switches]
    try:
        for s in switches:
            s.fp32_precision = "ieee"
        yield
    finally:
        for s, value in zip(switches, kept, strict=True):
            s.fp32_precision = value


@contextmanager
def hooks(*registered: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    """Remove the hooks at the end, also after an exception."""
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled parts run as they were written: what a hook inside a compiled one sees leads to no output."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes a second
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager
