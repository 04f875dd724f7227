"""Functions that make subjects: registered under a name, or named as "module:factory"."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from xai_assert.errors import UnknownNameError
from xai_assert.models import from_timm, from_transformers
from xai_assert.registry import models
from xai_assert.subject import Subject

Builder = TypeVar("Builder", bound=Callable[..., Subject])
SUBJECT_NAMES: dict[Callable[..., Any], str] = {}  # by builder, where it was said
REMEDY = "return xa.describe(module, name=..., task=..., mean=..., std=...)"


def register_model(
    name: str, *, subject_name: str | None = None, replace: bool = False
) -> Callable[[Builder], Builder]:
    """Register a function that makes a subject, for `xa.load_model(name)`.

    The function is called without arguments, with torch's CPU generator seeded; it may take `weights=` (a path or a
    word), and is then given what the user asks for. `subject_name` is how its subject with `weights` is called, and
    with "-random" behind it the one without: a worker of pytest-xdist then need not load a model to know its name.

    Raises:
        ValueError: the name is taken and `replace` is false.

    Example:
        >>> from torch import nn
        >>> import xai_assert as xa
        >>> with xa.registry.isolated():
        ...     @register_model("pixelwise")
        ...     def pixelwise():
        ...         return xa.describe(nn.Conv2d(3, 1, 1), name="pixelwise", task="depth")
        ...     xa.load_model("pixelwise", device="cpu")
        <Subject pixelwise: depth, Conv2d, 4 parameters on cpu>
    """

    def register(builder: Builder) -> Builder:
        models.register(name, builder, replace=replace)
        if subject_name:
            SUBJECT_NAMES[builder] = subject_name
        return builder

    return register


def known_name(spec: object, weights: object) -> str | None:
    """How the subject of a registered model, of timm's or of transformers' is called, if known before it is made."""
    found = SUBJECT_NAMES.get(models.get(spec)) if isinstance(spec, str) and spec in models.names() else None
    if found is None and isinstance(spec, str) and spec not in models.names():
        prefixes = {"timm/": from_timm, "hf/": from_transformers}
        found = next((home.canonical(spec) for prefix, home in prefixes.items() if spec.startswith(prefix)), None)
    return found if found is None or weights is not None else f"{found}-random"


def call_builder(builder: Callable[..., Any], spec: str, weights: str | os.PathLike[str] | None) -> Subject:
    """The subject that a builder makes, with `weights` only if they are asked for.

    Raises:
        TypeError: the builder cannot be called so, or returns no subject.
    """
    given = {} if weights is None else {"weights": weights}
    signature = inspect.signature(builder)
    try:
        signature.bind(**given)
    except TypeError as error:
        remedy = "leave weights out, or give the function a parameter `weights`" if given else "give it defaults"
        asked = f"weights={weights!r}" if given else "no arguments"
        raise TypeError(f"model {spec}{signature} cannot be called with {asked}: {error}; {remedy}") from None
    subject = builder(**given)
    if not isinstance(subject, Subject):
        raise TypeError(f"model {spec!r} returned a {type(subject).__name__}, not a subject; {REMEDY}")
    return subject


def find_builder(spec: str | Callable[..., Any]) -> Callable[..., Any]:
    """The builder of that name, or the function that "module:factory" names; see `xa.load_model` for what it raises."""
    if callable(spec) and not isinstance(spec, nn.Module):
        return spec
    if not isinstance(spec, str):
        raise TypeError(
            f"spec must be a registered name, 'module:factory' or a function, not a {type(spec).__name__}; "
            "a module of your own becomes a subject with xa.describe"
        )
    if spec.startswith("timm/") and spec not in models.names():
        return functools.partial(from_timm.from_timm, spec)
    if spec.startswith("hf/") and spec not in models.names():
        return functools.partial(from_transformers.from_transformers, spec)
    if ":" in spec and spec not in models.names():
        return _imported(spec)
    builder: Callable[..., Any] = models.get(spec)
    return builder


def _imported(spec: str) -> Callable[..., Any]:
    home, _, name = spec.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in home.split(".")):
        raise ValueError(f"model {spec!r} is not of the form package.module:factory (a dotted name, not a file)")
    try:
        module = importlib.import_module(home)
    except ImportError as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and f"{home}.".startswith(f"{error.name}."):
            hint = "; install it, or put its folder on PYTHONPATH (python -m pytest adds the current folder)"
        raise ImportError(f"model {spec!r}: cannot import {home}: {error}{hint}", name=error.name) from error
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == home]
        raise UnknownNameError(f"factory in {home}", name, own)
    factory = getattr(module, name)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(f"model {spec!r} is a {type(factory).__name__}, not a function; write one: {REMEDY}")
    found: Callable[..., Any] = factory
    return found
