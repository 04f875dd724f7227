"""What a stored map is called: everything that made it, as far as it can be told."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from xai_assert import resources
from xai_assert.attributions.base import KEYED, Method
from xai_assert.provenance import versions
from xai_assert.randomness import ImageId
from xai_assert.registry import PLAIN
from xai_assert.subject import Subject
from xai_assert.tasks import Target

FORMAT = "1"  # of an entry; one more whenever its meaning changes
BEGUN = time.time()


class Unnamed(Exception):
    """A thing of which it cannot be told whether another run has the same."""


def map_keys(
    subject: Subject,
    fingerprint: str,
    method: Method,
    target: Target,
    images: Tensor,
    *,
    image_ids: Sequence[ImageId],
    seed: int,
) -> list[str]:
    """A key for the map of each image (B, C, H, W); the seed and the ids count only where the method draws by them.

    Raises:
        Unnamed: subject, method or target hold what cannot be named.
    """
    common = digest(*subject_words(subject, fingerprint), *method_words(method), named(target))
    drawn = [name for name in KEYED if name in inspect.signature(method.function).parameters]
    given = [{"image_ids": repr(image_id), "seed": str(seed)} for image_id in image_ids]
    inputs = images.detach().cpu()
    return [digest(common, image, *(words[n] for n in drawn)) for image, words in zip(inputs, given, strict=True)]


def digest(*parts: str | Tensor) -> str:
    """BLAKE2b of texts and tensors, 40 hex digits; of a tensor its type, shape and values.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}\0".encode())
            found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    return found.hexdigest()


def subject_words(subject: Subject, fingerprint: str) -> list[str]:
    """What a map depends on beside its method: our code, the software, the device, the weights, what the card says."""
    modules = [m for network in subject.networks for m in network.modules()]
    if any(m._backward_hooks or m._backward_pre_hooks for m in modules):
        raise Unnamed  # they change a gradient, and the prediction tells nothing of it
    card, device = subject.card, subject.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    kinds = [
        f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in (subject, *subject.networks, card.task)
    ]
    facts = (card.task and card.task.name, card.mean, card.std, card.layout, getattr(subject, "how", ""))
    return [FORMAT, _our_code(), json.dumps(versions()), f"{device.type} {gpu}", *kinds, repr(facts), fingerprint]


def method_words(method: Method) -> list[str]:
    """The function of a method and its parameters.

    Raises:
        Unnamed: it cannot be named, or costs no pass: then it is made sooner than read.
    """
    if method.declared_passes == (0, 0):
        raise Unnamed
    parameters = [f"{name} {_words(value)}" for name, value in sorted(method.parameters.items())]
    return [method.name, named(method.function), str(len(parameters)), *parameters]


def _words(value: Any) -> str:
    if isinstance(value, PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, Tensor):
        return f"tensor {digest(value)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {digest(*map(_words, value))}"
    raise Unnamed


def named(function: Callable[..., Any]) -> str:
    """A function in words that change with the file it stands in.

    Raises:
        Unnamed: it is a lambda, a closure or an object, which hold values that no name tells; its file is not there,
            or was written after this process began, which may have loaded the one before.
    """
    if not isinstance(function, FunctionType) or function.__closure__ or "<" in function.__qualname__:
        raise Unnamed
    name = f"{function.__module__}.{function.__qualname__}"
    if function.__module__.partition(".")[0] == "xai_assert":
        return name  # our code is in the key already
    file = Path(function.__code__.co_filename)
    if not file.is_file() or file.stat().st_mtime > BEGUN:
        raise Unnamed
    return f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}"


@functools.cache
def _our_code() -> str:
    """Of all our modules: their version stays the same while somebody works on them."""
    files = sorted(resources.PACKAGE.rglob("*.py"))
    if any(file.stat().st_mtime > BEGUN for file in files):
        raise Unnamed
    return digest(*(file.read_text(encoding="utf-8") for file in files))
