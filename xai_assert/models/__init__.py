"""Models by name. Importing this package registers our own; `load_model` makes a subject of one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import torch

from xai_assert.models import bundled, published, published_pixelformer  # noqa: F401  (they register)
from xai_assert.models.builders import call_builder, find_builder, register_model
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.models.devices import resolve_device
from xai_assert.subject import Subject

__all__ = ["load_checkpoint", "load_model", "register_model"]


def load_model(
    spec: str | Callable[..., Subject],
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    *,
    seed: int = 0,
    name: str | None = None,
) -> Subject:
    """A subject by name: in evaluation mode, its parameters frozen, on the device. The caller's random state stays.

    Args:
        spec: a registered name (`meter-xxs-nyu`, `pixelformer-large07-kitti`, ...; `meter-xxs` is the one for NYU);
            "timm/NAME" or "timm/NAME(key=value, ...)", a classifier of timm's; "hf/REPO" or "hf/FOLDER", a network of
            transformers'; or "module:factory" or such a function itself: called without arguments, or with
            `weights=`, it returns what `xa.describe` returns.
        weights: a path; the name of published weights ("nyu", "kitti"; METER's are downloaded once; "pretrained" of a
            network of timm's) or of those that come with the project ("scenes"); or None: the weights are then drawn
            from `seed`, and the name ends in "-random".
        device: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:N", "mps", or a torch.device.
        seed: of whatever the builder draws.
        name: how results and gates call the subject, in place of its own name.

    Raises:
        UnknownNameError: nobody registered `spec`; the nearest name is in the text.
        CheckpointError: a weights file that is missing, damaged or of another network, or that cannot be downloaded.
        ImportError: the module of "module:factory" cannot be imported; the text says why.
        TypeError: the factory takes no `weights`, or returns no subject; `weights` is neither path nor name.
        ValueError: no such device, or a `spec` of another form.

    Example:
        >>> load_model("meter-xxs", device="cpu")
        <Subject meter-xxs-nyu-random: depth in cm, Meter, 713,464 parameters on cpu>
    """
    if not isinstance(weights, str | os.PathLike | None):
        raise TypeError(
            f"weights must be a path, the name of published weights, or None, not a {type(weights).__name__}"
        )
    place = resolve_device(device)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
        builder = find_builder(spec)  # it may import a module that draws, so the seed comes after it
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would leave its mark on a CUDA not yet started
        subject = call_builder(builder, spec if isinstance(spec, str) else builder.__qualname__, weights)
    if name is not None:
        subject = subject.with_card(dataclasses.replace(subject.card, name=name))
    return subject.to(place).eval().requires_grad_(False)
