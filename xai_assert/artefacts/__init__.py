"""Forward-only artefacts: what is shipped predicts, and its float twin, the module it was exported from, explains."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.artefacts.programs import Program, load_program
from xai_assert.batching import ImageSource, without_gradient
from xai_assert.errors import CheckpointError, ModelOutputError, NotApplicableError
from xai_assert.models.devices import resolve_device
from xai_assert.subject import Card, Subject
from xai_assert.tasks import Task, as_task, infer_task

__all__ = ["Artefact", "artefact", "check_twin"]
CHECKED = 32  # images on which an artefact and its twin are compared
# Of the spread of the twin's predictions, which is the error of a prediction that lost all its structure. Eight bits
# and bfloat16 move the networks that come with the project by up to .022, swapped colour channels by .24, and two
# networks trained on the same rooms are .33 apart (docs/artefacts.md)
TOLERANCE = 0.1


class Runner(nn.Module):
    """The program as a module: images of any number, type and device go in, its raw output comes back to them."""

    def __init__(self, program: Program, batch_size: int | None) -> None:
        super().__init__()
        self.program = program
        self.fixed = batch_size or program.shape[0]
        self.training = False

    def forward(self, images: Tensor) -> Any:
        for axis, what in enumerate(("channels", "pixels of height", "pixels of width"), start=1):
            size = self.program.shape[axis]
            if size is not None and images.shape[axis] != size:
                raise ValueError(f"{self.program.file} was exported for {size} {what}, not {images.shape[axis]}")
        inputs = images.detach().to(self.program.device, self.program.dtype).contiguous()
        with torch.no_grad():
            parts = [self._run(part) for part in torch.split(inputs, self.fixed or len(inputs))]
        return joined(parts, images.device)

    def _run(self, images: Tensor) -> Any:
        """One call, of exactly as many images as the program takes: the last one is repeated, and cut off again."""
        missing = (self.fixed or len(images)) - len(images)
        if not missing:
            return self.program.call(images)
        whole = self.program.call(torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]))
        return cut(whole, len(images))


class Artefact(Subject):
    """A subject that only predicts; made by `xa.artefact`. `twin` explains it, if there is one."""

    module: Runner

    def __init__(self, runner: Runner, card: Card, twin: Subject | None, tolerance: float) -> None:
        super().__init__(runner, card)
        # part of this module, so that it is moved, frozen and put into evaluation mode with it
        self.twin = twin and twin.with_card(dataclasses.replace(card, output=twin.card.output))
        self.tolerance = tolerance

    @property
    def explained(self) -> Subject:
        return self.twin or self

    @property
    def only_predicts(self) -> str:
        if self.twin is not None:
            return ""
        return (
            f"{self.name} is an artefact ({self.module.program.format}), which only predicts: no gradient goes through "
            "it, and nothing can look into it; give the float module that it was exported from, "
            "xa.artefact(..., twin=module), or use a method that only predicts (captum/FeatureAblation(patch=16))"
        )

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.module, *(self.twin.networks if self.twin else ()))

    @property
    def device(self) -> torch.device:
        return self.twin.device if self.twin else self.module.program.device

    def with_card(self, card: Card) -> Artefact:
        return Artefact(self.module, card, self.twin, self.tolerance)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and isinstance(images, Tensor) and images.requires_grad:
            raise NotApplicableError(self.only_predicts or f"{self.name}: ask its twin (.explained) for gradients")
        try:
            return super().forward(images)
        except ModelOutputError as error:
            if self.module.fixed is None and len(images) > 1:
                remedy = "if it was exported for a fixed number of images, say so: xa.artefact(..., batch_size=1)"
                raise ModelOutputError(f"{error}; {remedy}") from error
            raise

    def fingerprint(self) -> str:
        """Of the bytes of the file, and of the twin's weights, 16 hex digits."""
        twin = self.twin.fingerprint() if self.twin else ""
        return hashlib.sha256(f"{self.module.program.digest} {self.module.fixed} {twin}".encode()).hexdigest()[:16]

    @property
    def origin(self) -> dict[str, Any]:
        """Where predictions and maps come from, for the results."""
        maps = f"twin {type(self.twin.module).__name__}" if self.twin else "artefact"
        return {"file": self.module.program.file, "format": self.module.program.format, "maps": maps}

    def __repr__(self) -> str:
        task = self.card.task.name if self.card.task else "no task"
        unit = f" in {self.card.unit}" if self.card.unit else ""
        about = self.origin
        return f"<Artefact {self.name}: {task}{unit}, {about['format']} {about['file']}, maps from the {about['maps']}>"


def artefact(
    what: str | os.PathLike[str] | Any,
    *,
    twin: nn.Module | None = None,
    name: str | None = None,
    task: str | Task | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: tuple[int, int] | None = None,
    output_size: tuple[int, int] | None = None,
    unit: str | None = None,
    layout: str | None = None,
    output: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    tolerance: float = TOLERANCE,
) -> Artefact:
    """A subject of what is shipped: predictions, clean and perturbed, come from it, heatmaps from its float twin.

    Attacks (`fgsm`, `pgd`) follow the gradient of the twin too. Without a twin only methods that need no more than
    predictions can explain it (`random`, `edges`, `captum/FeatureAblation`, `captum/Occlusion`, a callable of yours).
    See docs/artefacts.md.

    Args:
        what: a path (.pt, .pth, .ts or .torchscript: TorchScript; .pt2: torch.export; .onnx: onnxruntime), or a
            ScriptModule or ExportedProgram, of which a copy is taken.
        twin: the module that it was exported from, or a subject of it, whose card then counts here too.
        name: how results call it; the file's name without its ending, or the twin's, by default.
        task, mean, std, input_size, output_size, unit, layout, output, classes: as for `xa.describe`, where the twin's
            card does not say it. `output` is given a dict by name of an ONNX file with several outputs.
        batch_size: the number of images that it takes, if it is fixed and the file does not say so (TorchScript). It
            is given exactly so many at a time.
        device: where it runs; by default where it was saved for, ONNX on CUDA if onnxruntime can.
        tolerance: how far its predictions may be from the twin's on up to 32 clean images, in their spread (for a depth
            map its standard deviation). What it is stands in every score; more is an error.

    Raises:
        CheckpointError: the file is missing, damaged or of another format; and, when it is first measured, it and its
            twin are no versions of one network.
        ImportError: an ONNX file, and onnxruntime is not installed.
        TypeError: `what` is no program, or nobody says the task.
        ValueError: another file name, or a number that is not positive.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Softplus())
        >>> program = torch.export.export(network, (torch.rand(1, 3, 8, 8),))
        >>> subject = artefact(program, twin=network, name="depthnet-pt2", task="depth", unit="m")
        >>> subject
        <Artefact depthnet-pt2: depth in m, torch.export in memory, maps from the twin Sequential>
        >>> subject(torch.rand(3, 3, 8, 8)).shape  # one by one, as it was exported for one
        torch.Size([3, 1, 8, 8])
    """
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance > 0:
        raise ValueError(f"tolerance must be a positive number, a share of the predictions' spread, not {tolerance!r}")
    if twin is not None and not isinstance(twin, nn.Module):
        raise TypeError(f"twin must be a torch.nn.Module or a Subject, not {type(twin).__name__}")
    if isinstance(twin, Artefact):
        raise TypeError("twin must be a module that gradients go through, not another artefact")
    program = load_program(what, None if device is None else resolve_device(device))
    if program.shape[0] is not None and batch_size not in (None, program.shape[0]):
        raise ValueError(f"batch_size={batch_size}: {program.file} was exported for {program.shape[0]}; leave it out")
    about: dict[str, Any] = {
        "name": name or _default_name(what, twin),
        "task": as_task(task),
        "mean": None if mean is None else tuple(map(float, mean)),
        "std": None if std is None else tuple(map(float, std)),
        "input_size": input_size,
        "output_size": output_size or input_size,
        "unit": unit,
        "layout": layout,
        "classes": None if classes is None else tuple(classes),
    }
    base = twin.card if isinstance(twin, Subject) else Card(name=about["name"])
    given = {key: value for key, value in about.items() if value is not None}
    card = dataclasses.replace(base, **given, output=output or _unless_tensor(base.output), weights=program.file)
    if card.task is None:
        raise TypeError("artefact: nobody says what its output means; pass task=, or a twin= made by xa.describe")
    explains = twin if isinstance(twin, Subject) else None
    if twin is not None and explains is None:
        explains = Subject(twin, dataclasses.replace(card, output=_unless_tensor(output)))
    return Artefact(Runner(program, batch_size), card, explains, float(tolerance))


def check_twin(subject: Artefact, source: ImageSource, size: int) -> dict[str, Any]:
    """Where predictions and maps come from, and how far artefact and twin are apart on the first clean images.

    Their mean error over the mean spread of the twin's predictions: 0 where they are one, about 1 and more where they
    have nothing in common.

    Raises:
        CheckpointError: they are further apart than the tolerance, or their outputs have two shapes.
    """
    twin, count = subject.twin, min(CHECKED, len(source))
    if twin is None:
        return subject.origin
    error = spread = 0.0
    for start in range(0, count, size):
        images = source.batch(start, min(start + size, count)).images.to(subject.device)
        shipped, exact = without_gradient(subject, images), without_gradient(twin, images)
        task = subject.card.task or infer_task(exact)
        if task is None:
            return subject.origin  # nothing can be compared, and so nothing measured, which is said elsewhere
        ours, theirs = task.read(shipped), task.read(exact)
        if ours.shape != theirs.shape:
            raise CheckpointError(
                f"the artefact {subject.name} predicts {tuple(ours.shape)} and its twin {tuple(theirs.shape)} for the "
                "same images: they are no versions of one network"
            )
        scale = task.spread(theirs)
        scale = scale.where(scale > 0, task.magnitude(theirs))  # of a map without any structure
        error, spread = error + float(task.error(ours, theirs).sum()), spread + float(scale.sum())
    difference = error / spread if spread else error
    if difference > subject.tolerance:
        raise CheckpointError(
            f"the artefact {subject.name} and its twin are {difference:.2g} of the spread of their predictions apart "
            f"on {count} clean images, where {subject.tolerance:g} is allowed: another network's weights, or another "
            "preprocessing in one of them? Maps of the twin then say nothing of it; if it is meant to be that coarse, "
            "pass tolerance="
        )
    return {**subject.origin, "difference": difference, "images": count}


def joined(parts: Sequence[Any], device: torch.device) -> Any:
    """Raw outputs of several calls as one, on a device: tensors, or tuples, lists and dicts of them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return (torch.cat(list(parts)) if len(parts) > 1 else first).to(device)
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts], device) for key in first}
    if isinstance(first, tuple | list):
        return tuple(joined(list(items), device) for items in zip(*parts, strict=True))
    return first


def cut(raw: Any, count: int) -> Any:
    """The first images of a raw output."""
    if isinstance(raw, Tensor):
        return raw[:count]
    if isinstance(raw, dict):
        return {key: cut(value, count) for key, value in raw.items()}
    return tuple(cut(value, count) for value in raw) if isinstance(raw, tuple | list) else raw


def _default_name(what: Any, twin: nn.Module | None) -> str:
    if isinstance(what, str | os.PathLike):
        return Path(what).stem
    return twin.card.name if isinstance(twin, Subject) else type(twin or what).__name__


def _unless_tensor(pick: Callable[[Any], Tensor] | None) -> Callable[[Any], Tensor] | None:
    """The adapter of one for the other of artefact and twin, which may return the tensor alone."""
    return None if pick is None else lambda raw: raw if isinstance(raw, Tensor) else pick(raw)
