"""Which software made a number."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

import torch


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, torch and this package, and the CUDA that torch was built with."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        found["xai_assert"] = importlib.metadata.version("xai-assert")
    except importlib.metadata.PackageNotFoundError:
        found["xai_assert"] = "not installed"
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found
