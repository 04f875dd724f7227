"""Weights files: read without running code, and compared with the network before anything is copied into it."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xai_assert.errors import CheckpointError

SHOWN = 3  # names of each kind that an error lists
MAGIC = (b"PK", b"\x80")  # how the two formats of torch.save begin: a zip archive, a pickle
WRITERS = "torch.save(module.state_dict(), path) or safetensors.torch.save_file"


def load_checkpoint(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    variants: Mapping[str, Callable[[], nn.Module]] | None = None,
    published: Mapping[str, str] | None = None,
) -> None:
    """Copy the weights in `path` into `module`; every name, shape and number is checked before the first is copied.

    Args:
        module: the network, on any device.
        path: what `torch.save(module.state_dict(), path)` or safetensors' `save_file` wrote. Only tensors are read,
            no code in it is run. A state dict under the key "model" counts too, and names that all begin with
            "module.": this is how training scripts save a network that they ran in parallel.
        name: how errors call the network; its class otherwise.
        variants: name -> a function that makes that network; an error says which of them the file fits.
        published: name -> SHA-256 of a published file; the file of another name is refused even where it fits.

    Raises:
        CheckpointError: the file is missing, truncated, of another format or another network, or not all finite.

    Example:
        >>> import tempfile
        >>> layer = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(3, 1).state_dict(), f"{folder}/weights")
        ...     try:
        ...         load_checkpoint(layer, f"{folder}/weights")
        ...     except CheckpointError as error:
        ...         print(str(error).rsplit("; ")[-1])
        1 of another form: weight is float32 (1, 3) in the file, float32 (1, 2) in the network
    """
    path = Path(path).expanduser()
    name = name or type(module).__name__
    found = read_state_dict(path)
    _refuse_other(path, name, published or {})
    expected = module.state_dict()
    if wrong := _differences(expected, found):
        fits = [known for known, make in (variants or {}).items() if not _differences(_on_meta(make), found)]
        hint = f"; these are the names and shapes of {' and '.join(fits)}" if fits else ""
        raise CheckpointError(f"{path} does not fit {name}{hint}; {wrong}")
    _refuse_non_finite(path, expected, found)
    module.load_state_dict(found, strict=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The names and tensors of a weights file, on the CPU.

    Raises:
        CheckpointError: the file is missing or truncated, would run code, or holds something else.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the path of a weights file")
    if not path.exists():
        raise CheckpointError(f"there is no weights file {path}; give its path, or the name of published weights")
    try:
        with path.open("rb") as file:
            head = file.read(40)
        if head[8:9] == b"{":  # safetensors: the length of a JSON header in 8 bytes, then the header
            return _as_state_dict(path, load_file(path))
        if not head.startswith(MAGIC):
            begins = f"begins with {head!r}" if head else "is empty"
            raise CheckpointError(f"{path} {begins}: no file that torch.save or safetensors writes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of formats that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors, it is truncated or foreign: {error}") from error
    except Exception as error:  # a damaged file can make the reader raise anything
        raise CheckpointError(_why_unreadable(path, error)) from error
    return _as_state_dict(path, content)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_unreadable(path: Path, error: Exception) -> str:
    if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} is refused: it holds more than tensors, and reading it could run code (it asks for {asked[1]}). "
            "If you trust it, load it yourself and save the state_dict() of what comes out"
        )
    first = (str(error).strip() or "the file ends too early").splitlines()[0]
    return f"{path} cannot be read as a file of torch.save, it is truncated or foreign: {type(error).__name__}: {first}"


def _as_state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    remedy = f"a weights file is what {WRITERS} writes"
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; {remedy}")
    odd = [f"{key!r} ({_kind(value)})" for key, value in content.items() if not _is_entry(key, value)]
    if odd:
        raise CheckpointError(f"{path} is not a state dict, these entries are no dense tensors: {_few(odd)}; {remedy}")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): value for name, value in content.items()}


def _is_entry(key: Any, value: Any) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"  # a meta tensor has a shape, and no numbers
    )


def _kind(value: Any) -> str:
    return f"{value.layout} tensor on {value.device}" if isinstance(value, Tensor) else type(value).__name__


def _refuse_other(path: Path, name: str, published: Mapping[str, str]) -> None:
    if published:
        owner = {sha: known for known, sha in published.items()}.get(digest(path), name)
        if owner != name:
            raise CheckpointError(f"{path} is the published file of {owner}, not of {name}; load it as {owner!r}")


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps `found` from being loaded; empty if nothing does."""
    other = [
        f"{name} is {_form(found[name])} in the file, {_form(value)} in the network"
        for name, value in expected.items()
        if name in found and not _same_form(found[name], value)
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another form": other,
    }
    return "; ".join(f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names)


def _same_form(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _on_meta(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return make().state_dict()


def _refuse_non_finite(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Judged in the network's own type: a large float64 is infinite in float32."""
    counts = {name: int((~value.to(expected[name].dtype).isfinite()).sum()) for name, value in found.items()}
    bad = [f"{name} ({count} of {found[name].numel()})" for name, count in counts.items() if count]
    if bad:
        raise CheckpointError(f"{path} holds NaN or infinite weights in {len(bad)} tensors: {_few(bad)}")
