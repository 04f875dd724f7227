"""Names for methods, perturbations, metrics and models, and the words `name(key=value)` in which users ask for them."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from xai_assert.errors import UnknownNameError

T = TypeVar("T")
SPEC = re.compile(r"([A-Za-z][\w.:/-]*)\s*(?:\((.*)\))?", re.DOTALL)


class Registry(Generic[T]):
    """Names of one kind. `builtins` is the module whose import registers our own."""

    def __init__(self, kind: str, builtins: str) -> None:
        self.kind = kind
        self._builtins = builtins
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T, *, replace: bool = False) -> T:
        if not SPEC.fullmatch(name) or "(" in name:
            raise ValueError(f"{self.kind} name {name!r}: use letters, digits and . _ - / : only, a letter first")
        if name in self._entries and not replace:
            raise ValueError(f"the {self.kind} {name!r} is already registered; pass replace=True to take its place")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        self._load()
        return sorted(self._entries)

    def _load(self) -> None:
        importlib.import_module(self._builtins)
        load_plugins()


methods: Registry[Any] = Registry("method", "xai_assert.attributions")
perturbations: Registry[Any] = Registry("perturbation", "xai_assert.perturbations")
metrics: Registry[Any] = Registry("metric", "xai_assert.scores")
models: Registry[Any] = Registry("model", "xai_assert.models")
ALL = (methods, perturbations, metrics, models)


@functools.cache
def load_plugins() -> None:
    """Import what third parties registered under the entry-point group `xai_assert.plugins`, once."""
    for entry in importlib.metadata.entry_points(group="xai_assert.plugins"):
        entry.load()


@contextmanager
def isolated() -> Iterator[None]:
    """Forget afterwards what is registered inside: for tests.

    >>> with isolated():
    ...     _ = methods.register("mine", object())
    >>> "mine" in methods.names()
    False
    """
    for registry in ALL:
        registry._load()
    kept = [dict(registry._entries) for registry in ALL]
    try:
        yield
    finally:
        for registry, entries in zip(ALL, kept, strict=True):
            registry._entries = entries


def parse_spec(spec: str, kind: str) -> tuple[str, dict[str, Any]]:
    """Split `name(key=value, ...)` into the name and its parameters; values are Python literals or bare words.

    >>> parse_spec("gaussian_noise(sigma=0.5)", "perturbation")
    ('gaussian_noise', {'sigma': 0.5})
    """
    match = SPEC.fullmatch(spec.strip())
    if not match:
        raise ValueError(f"{kind} {spec!r} is not of the form name or name(key=value, ...)")
    name, arguments = match[1], match[2]
    try:
        call = ast.parse(f"f({arguments or ''})", mode="eval").body
        plain = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
        if not isinstance(call, ast.Call) or not plain or any(k.arg is None for k in call.keywords):
            raise ValueError("only key=value pairs may stand in the brackets")
        if len({k.arg for k in call.keywords}) < len(call.keywords):
            raise ValueError("a parameter is given twice")
        return name, {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{kind} {spec!r} is not of the form name or name(key=value, ...): {error}") from None


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


PLAIN = (str, int, float, bool, type(None))


def format_spec(name: str, parameters: dict[str, Any]) -> str:
    """The inverse of `parse_spec`: how a thing with parameters is called in tables and reports.

    >>> format_spec("gaussian_noise", {"sigma": 0.5})
    'gaussian_noise(sigma=0.5)'
    """
    if not parameters:
        return name
    words = [f"{k}={v!r}" if is_plain(v) else f"{k}=<{type(v).__name__}>" for k, v in parameters.items()]
    return f"{name}({', '.join(words)})"


def is_plain(value: Any) -> bool:
    """Whether a value can be written as it is: a text, a number, or a tuple of such."""
    return all(map(is_plain, value)) if isinstance(value, tuple) else isinstance(value, PLAIN)


class Identity:
    """Equal for one and the same object, which it keeps alive: Python gives the `id` of a dead one away again."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def parameters_key(parameters: dict[str, Any]) -> tuple[Any, ...]:
    """A key for a cache: plain values by value, everything else by identity, tensors also by version."""
    keys = ((k, v if is_plain(v) else (Identity(v), version(v))) for k, v in sorted(parameters.items()))
    return tuple(keys)


def version(value: Any) -> Any:
    """How often a tensor was written on, of a list or tuple of each in it; 0 for anything else."""
    if isinstance(value, list | tuple):
        return tuple(map(version, value))
    return 0 if getattr(value, "is_inference", lambda: False)() else getattr(value, "_version", 0)


def keywords(function: Callable[..., Any], *, skip: int, given: Iterable[str]) -> set[str] | None:
    """The parameters after the first `skip` that users may set, without those `given` by us; None if it takes any."""
    signature = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return None
    return {p.name for p in signature[skip:]} - set(given)


def bind(kind: str, name: str, parameters: dict[str, Any], known: set[str] | None) -> None:
    """Refuse a parameter that the thing does not take; `known` None means that it takes any.

    Raises:
        TypeError: naming the parameter and those that exist.
    """
    for key in parameters:
        if known is not None and key not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise TypeError(f"{kind} {name!r} takes no parameter {key!r}; it takes: {takes}")
