"""The model under test: a module and its card (name, task, mean, std, input size, unit, layout)."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.errors import ModelOutputError
from xai_assert.tasks import Task, as_task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 2**16  # values of a tensor that is summed up together with others
UNITS_PER_METRE = {"m": 1.0, "dm": 10.0, "cm": 100.0, "mm": 1000.0}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What must be known of a model to prepare its images, perturb them and name its errors.

    `mean` and `std` are those of its preprocessing, a value a channel, for pictures in [0, 1]: input = (picture -
    mean) / std. `layout` is the order of the colour channels, "RGB" or "BGR". Sizes are (height, width) in pixels;
    data sets use them, a call does not enforce them. `output` picks the prediction out of a raw output that is a
    tuple, dict or dataclass. `classes` are the names of a classifier's or segmentation network's classes, in order.

    >>> Card(name="raw", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).colour((1.0, 0.5, 0.0)).flatten().tolist()
    [1.0, 0.5, 0.0]
    """

    name: str
    task: Task | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    unit: str | None = None
    layout: str = "RGB"
    output: Callable[[Any], Tensor] | None = None
    classes: tuple[str, ...] | None = None
    weights: str = "as given"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: a subject needs a name")
        if (self.mean is None) != (self.std is None):
            raise TypeError("give mean= and std= together")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
            if not all(s > 0 for s in self.std):
                raise ValueError(f"std must be positive in every channel, not {self.std}")
        if self.layout not in ("RGB", "BGR"):
            raise ValueError(f"layout must be 'RGB' or 'BGR', not {self.layout!r}")

    @property
    def channels(self) -> int | None:
        """Channels of the input, where mean and std say so."""
        return None if self.mean is None else len(self.mean)

    def colour(self, rgb: Sequence[float]) -> Tensor:
        """An RGB colour in [0, 1] as the network sees it, (1, C, 1, 1); other channel counts take its mean.

        Raises:
            TypeError: the card has no mean and std.
        """
        mean, std = self._statistics()
        return (self._channels(rgb, len(mean)) - torch.tensor(mean)).div(torch.tensor(std)).reshape(1, -1, 1, 1)

    def strength(self, channels: int) -> Tensor:
        """One ImageNet standard deviation in the network's input, (1, C, 1, 1): the unit of every strength.

        A model without std is taken to have ImageNet-normalised input, where this is 1.
        """
        if self.std is None:
            return torch.ones(1, channels, 1, 1)
        unit = self._channels(IMAGENET_STD, len(self.std)) / torch.tensor(self.std)
        return unit.reshape(1, -1, 1, 1)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.mean is None or self.std is None:
            raise TypeError(
                f"{self.name} has no mean and std, so nobody knows what black is in its input; "
                "pass mean=..., std=... (one value a channel), or make a subject with xa.describe"
            )
        return self.mean, self.std

    def _channels(self, rgb: Sequence[float], channels: int) -> Tensor:
        if channels != 3:
            return torch.full((channels,), sum(rgb) / 3)
        return torch.tensor(rgb if self.layout == "RGB" else list(reversed(rgb)))


class Subject(nn.Module):
    """The model under test. `subject(images)` is the module's output as one tensor; `subject.module` is the module.

    Example:
        >>> subject = describe(nn.Conv2d(3, 1, 1), name="pixelwise", task="depth", unit="m")
        >>> subject
        <Subject pixelwise: depth in m, Conv2d, 4 parameters on cpu>
    """

    def __init__(self, module: nn.Module, card: Card) -> None:
        super().__init__()
        self.module = module
        self.card = card
        self.training = module.training
        self.precision: torch.dtype | None = None  # in which autocast runs it, if it does
        self._known: tuple[Signs, str] | None = None  # the fingerprint, and the signs it was taken under

    def with_card(self, card: Card) -> Subject:
        """The same module with another card."""
        return Subject(self.module, card)

    def forward(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a tensor (B, C, H, W), not {type(images).__name__}")
        try:
            raw = self.module(images.clone())  # a copy, because a model may write on its input
            output = raw if self.card.output is None else self.card.output(raw)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # also an assertion of the model's, which is no verdict of ours
            what = f"images {tuple(images.shape)} of {images.dtype}"
            raise ModelOutputError(f"the model {self.name} failed on {what}: {error}") from error
        if not isinstance(output, Tensor):
            raise ModelOutputError(
                f"{self.name} returned a {type(output).__name__}, not a tensor; give xa.describe an output= that "
                "picks the prediction, such as output=lambda raw: raw[0]"
            )
        if output.ndim == 0 or output.shape[0] != images.shape[0]:
            raise ModelOutputError(
                f"{self.name} returned {tuple(output.shape)} for {images.shape[0]} images; the first dimension of the "
                "output must be the batch"
            )
        return output

    @property
    def explained(self) -> Subject:
        """What attribution methods are given, and attacks: the subject itself, of an artefact its float twin."""
        return self

    @property
    def only_predicts(self) -> str:
        """Why no gradient can be asked of it, and what to do; empty for what gradients go through."""
        return ""

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All modules that passes are made through."""
        return (self.module,)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def id(self) -> str:
        """The name in characters that file names and test ids can carry."""
        return slug(self.card.name)

    @property
    def device(self) -> torch.device:
        first = next(itertools.chain(self.module.parameters(), self.module.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and values of all parameters and buffers, 16 hex digits."""
        digest = hashlib.sha256()
        tensors: dict[str, Tensor] = {**dict(self.module.named_parameters(remove_duplicate=False))}
        tensors |= dict(self.module.named_buffers(remove_duplicate=False))  # also those that no state dict holds
        for name, value in sorted(tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def known_fingerprint(self) -> str:
        """The fingerprint, hashed anew only if some tensor was moved, written on, or sums up to something else."""
        tensors = self._tensors()
        signs = Signs(marks(tensors), sums(tensors))
        if self._known is None or self._known[0] != signs:
            self._known = (signs, self.fingerprint())
        return self._known[1]

    def marks(self) -> list[Any]:
        """What shows at no cost that a tensor is another."""
        return marks(self._tensors())

    @property
    def known_marks(self) -> list[Any] | None:
        """The marks as `known_fingerprint` found them last."""
        return self._known and self._known[0].marks

    def _tensors(self) -> list[Tensor]:
        """Of all modules, in one walk through them; `parameters()` and `buffers()` are one each."""
        modules = [m for network in self.networks for m in network.modules()]
        stores = [store for m in modules for store in (m._parameters, m._buffers)]
        return [tensor for store in stores for tensor in store.values() if tensor is not None]

    def __repr__(self) -> str:
        task = self.card.task.name if self.card.task else "no task"
        unit = f" in {self.card.unit}" if self.card.unit else ""
        count = sum(p.numel() for p in self.module.parameters())
        kind = type(self.module).__name__
        return f"<Subject {self.name}: {task}{unit}, {kind}, {count:,} parameters on {self.device}>"


class Signs(NamedTuple):
    """What shows at little cost that a tensor is another."""

    marks: list[Any]
    sums: list[Any]


def marks(tensors: Sequence[Tensor]) -> list[Any]:
    """Where each tensor lies, and how often it was written on; those of inference mode count no versions."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.shape) for t in tensors]


def sums(tensors: Sequence[Tensor]) -> list[Any]:
    """Sums of the tensors' values and of their bits, for writes that no version counts (`p.data.mul_(2)`).

    The bits are summed up as whole numbers, modulo 2 ** 64, so that a place that differs always shows, however little;
    and the values because of changes that cancel each other in the bits, as those of a sign may.
    """
    kinds: dict[Any, list[Tensor]] = defaultdict(list)  # by device and type
    for tensor in tensors:
        if tensor.device.type != "meta":
            real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
            kinds[tensor.device, tensor.dtype].append(real.detach().reshape(-1))
    found: dict[torch.device, list[Tensor]] = defaultdict(list)
    for (device, _), flat in kinds.items():
        small = [one for one in flat if len(one) <= SMALL]  # many, and one call each would cost more than their bits
        parts = [torch.cat(small)] if small else []
        parts += [one for one in flat if len(one) > SMALL]
        wide = torch.float32 if parts[0].is_floating_point() and parts[0].element_size() < 4 else None
        found[device] += [*map(bit_sum, parts), bit_sum(torch.stack([one.sum(dtype=wide) for one in parts]))]
    return [torch.stack(each).tolist() for each in found.values()]  # waited for once


def bit_sum(flat: Tensor) -> Tensor:
    """The sum of the bits of (N,), eight bytes at a time; int64, ().

    >>> bit_sum(torch.tensor([True, False, True])).item()  # 1 + 256 ** 2
    65537
    """
    each = 8 // flat.element_size()  # values in an int64
    if len(flat) % each:
        flat = F.pad(flat, (0, each - len(flat) % each))
    elif flat.storage_offset() % each:  # which cannot be viewed as int64
        flat = flat.clone()
    return flat.view(torch.int64).sum()


def slug(name: str) -> str:
    """`name` in the letters [A-Za-z0-9_.-]."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or "unnamed"


def describe(
    module: nn.Module,
    *,
    name: str,
    task: str | Task,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: tuple[int, int] | None = None,
    output_size: tuple[int, int] | None = None,
    unit: str | None = None,
    layout: str = "RGB",
    output: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
) -> Subject:
    """Make a subject of any module; the module itself is left as it is.

    Args:
        module: takes images (B, C, H, W).
        name: how results and gates call it.
        task: "depth", "classification", "segmentation", or a `Task` of your own.
        mean, std: of the preprocessing, one value a channel, for pictures in [0, 1].
        input_size, output_size: (height, width) in pixels, for the data sets; the output's defaults to the input's.
        unit: of the prediction, such as "m".
        layout: "RGB" or "BGR".
        output: picks the prediction out of a raw output that is not a tensor.
        classes: their names, in the order of the output's channels.

    Example:
        >>> describe(nn.Conv2d(3, 1, 1), name="depthnet-v7", task="depth", mean=[0.5] * 3, std=[0.5] * 3, unit="m").id
        'depthnet-v7'
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    card = Card(
        name=name,
        task=as_task(task),
        mean=None if mean is None else tuple(map(float, mean)),
        std=None if std is None else tuple(map(float, std)),
        input_size=input_size,
        output_size=output_size or input_size,
        unit=unit,
        layout=layout,
        output=output,
        classes=None if classes is None else tuple(classes),
    )
    return Subject(module.module if isinstance(module, Subject) else module, card)


def as_subject(
    model: nn.Module,
    *,
    task: str | Task | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    unit: str | None = None,
) -> Subject:
    """A subject as it is, or a bare module with what the caller says of it; what is given goes before the card."""
    given: dict[str, Any] = {
        "task": as_task(task),
        "mean": None if mean is None else tuple(map(float, mean)),
        "std": None if std is None else tuple(map(float, std)),
        "unit": unit,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if isinstance(model, Subject):
        return model.with_card(dataclasses.replace(model.card, **given)) if given else model
    if isinstance(model, nn.Module):
        return Subject(model, Card(name=type(model).__name__, **given))
    raise TypeError(f"subject must be a Subject (xa.load_model, xa.describe) or a torch.nn.Module, not {model!r:.80}")
