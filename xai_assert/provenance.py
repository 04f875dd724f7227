"""Which software made a number, and which weights."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from typing import Any

import torch

from xai_assert.subject import Subject


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


class SameWeights:
    """That all scores of an evaluation are of the same weights on the same device, as at the first `check`."""

    def __init__(self, subject: Subject) -> None:
        self.fingerprint = self.device = ""  # as first measured
        self._subject = subject
        self._marks: list[Any] | None = None  # cheap signs that no tensor of the module was written on

    def check(self, *, measured: bool) -> None:
        """Before something is measured; for what was `measured` already only signs that cost nothing are looked at:
        where the tensors lie, and how often they were written on.

        Raises:
            ValueError: they changed.
        """
        if measured and self._marks == self._subject.marks():
            return
        now = (self._subject.known_fingerprint(), str(self._subject.device))
        self._marks = self._subject.known_marks
        if self.device and (self.fingerprint, self.device) != now:
            raise ValueError(
                f"the weights or the device of {self._subject.name} changed since this Evaluation measured its first "
                "score; make a new Evaluation"
            )
        self.fingerprint, self.device = now
