"""Where a model runs: the words that users write for a device."""

from __future__ import annotations

import torch

KINDS = ("cpu", "cuda", "mps")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that `name` means: "auto" (CUDA if there is any, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    "cuda" keeps no number, so it follows `torch.cuda.set_device`.

    Raises:
        ValueError: no such device on this machine; the text says what there is.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = available_devices()
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):  # torch's own list of kinds is long and mostly about other builds
        device = None
    if device is None or device.type not in KINDS:
        raise ValueError(f"device {str(name)!r} is not auto, cpu, cuda, cuda:N or mps; there is: {', '.join(there)}")
    if device.type == "cpu":
        return torch.device("cpu")
    if not any(known.split(":")[0] == device.type if device.index is None else known == str(device) for known in there):
        raise ValueError(f"device {str(name)!r} is not available; there is: {', '.join(there)}")
    return device


def available_devices() -> list[str]:
    """The devices of this machine that a model can be put on.

    >>> "cpu" in available_devices()
    True
    """
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps:0")
    return found
