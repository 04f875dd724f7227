"""Networks of Hugging Face's transformers by name: "hf/REPO", or "hf/FOLDER" of one that was saved.

Depth estimation (DPT, the present form of MiDaS; Depth Anything, GLPN, ZoeDepth), image classification and semantic
segmentation. What the images are comes from the image processor's own file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.errors import CheckpointError
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.registry import format_spec, parse_spec
from xai_assert.subject import Card, Subject
from xai_assert.tasks import as_task

PREFIX = "hf/"
PRETRAINED = "pretrained"  # the word for the weights that lie beside the configuration
REMEDY = 'pip install "xai-assert[transformers]"'
TASKS = {  # by the end of an architecture's name: our task, transformers' class that makes it
    "ForDepthEstimation": ("depth", "AutoModelForDepthEstimation"),
    "ForImageClassification": ("classification", "AutoModelForImageClassification"),
    "ForImageClassificationWithTeacher": ("classification", "AutoModelForImageClassification"),
    "ForSemanticSegmentation": ("segmentation", "AutoModelForSemanticSegmentation"),
}
METRIC = ("glpn", "zoedepth")  # kinds of networks whose depth is in metres; Depth Anything's configuration says it
BYTE = 255.0  # what processors scale from


class Prediction(nn.Module):
    """A network of transformers' as a module from images (B, 3, H, W) to one tensor.

    Logits of classes (B, K); logits of pixels (B, K, H, W) and depth (B, H, W) at the size of the images, to which they
    are resized bilinearly, as transformers' own processors do it with logits.
    """

    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network = network
        self.task = task

    def forward(self, images: Tensor) -> Tensor:
        raw = self.network(pixel_values=images)
        found: Tensor = raw.predicted_depth if self.task == "depth" else raw.logits
        if self.task == "classification" or found.shape[-2:] == images.shape[-2:]:
            return found
        planes = found[:, None] if self.task == "depth" else found
        planes = F.interpolate(planes, images.shape[-2:], mode="bilinear", align_corners=False)
        return planes[:, 0] if self.task == "depth" else planes


@dataclass(frozen=True)
class Preparation:
    """What a processor does to a picture with values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    layout: str


def from_transformers(spec: str, weights: str | os.PathLike[str] | None = None) -> Subject:
    """A network of transformers' as a subject; task, colours, size and unit are those of its own files.

    Args:
        spec: "hf/REPO" (downloaded once, by huggingface_hub) or "hf/FOLDER" with a config.json and a
            preprocessor_config.json; in brackets if need be `task=`, `input_size=(height, width)` and `revision=`.
        weights: "pretrained" (those in the repository or folder), the path of a state dict or safetensors file, or
            None: as transformers draws them.

    Raises:
        ImportError: transformers is not installed.
        CheckpointError: the configuration, the processor's file or the weights cannot be read.
        ValueError: the network is made for something else or other sizes, or an argument is unknown.
    """
    name, given = parsed(spec)
    called = canonical(spec)
    if unknown := set(given) - {"task", "input_size", "revision"}:
        raise ValueError(f"model {called!r} takes task=, input_size= and revision=, not {sorted(unknown)[0]}=")
    where = {"revision": given["revision"]} if "revision" in given else {}
    config = read("AutoConfig", name, "config.json", where)
    task, kind = task_of(config, given.get("task"), called)
    preparation = prepared(read("AutoImageProcessor", name, "preprocessor_config.json", where), given, called)
    network = build(kind, name, config, where, pretrained=weights == PRETRAINED)
    source = f"random(seed={torch.initial_seed()})" if weights is None else PRETRAINED
    if weights is not None and weights != PRETRAINED:
        load_checkpoint(network, weights, name=called)
        source = Path(weights).name
    module = Prediction(network, task)
    try_out(module, preparation.size, called)
    labels = getattr(config, "id2label", None) or {}
    card = Card(
        name=called if weights is not None else f"{called}-random",
        task=as_task(task),
        mean=preparation.mean,
        std=preparation.std,
        input_size=preparation.size,
        output_size=preparation.size,
        unit="m" if task == "depth" and is_metric(config) else None,
        layout=preparation.layout,
        weights=source,
        classes=None if task == "depth" else tuple(labels[k] for k in sorted(labels)),
    )
    return Subject(module, card)


def canonical(spec: str) -> str:
    """How a subject with weights is called: the spec, its arguments written in one way.

    >>> canonical("hf/Intel/dpt-large( task = 'depth' )")
    "hf/Intel/dpt-large(task='depth')"
    """
    return PREFIX + format_spec(*parsed(spec))


def parsed(spec: str) -> tuple[str, dict[str, Any]]:
    """The repository or folder, whose name may be any, and what stands in the brackets.

    >>> parsed("hf/runs/2026/my-dpt(task=depth)")
    ('runs/2026/my-dpt', {'task': 'depth'})
    """
    name, bracket, rest = spec.removeprefix(PREFIX).partition("(")
    return name.strip(), parse_spec(f"hf{bracket}{rest}", f"transformers model {name.strip()!r}, given as")[1]


def read(kind: str, name: str, file: str, where: dict[str, Any]) -> Any:
    """What one of transformers' classes makes of a file of the repository or folder.

    Raises:
        ImportError, CheckpointError: see `from_transformers`.
    """
    try:
        import transformers  # late, because it is an extra
    except ImportError as error:
        raise ImportError(f"model hf/{name} needs transformers: {REMEDY}") from error
    try:
        return getattr(transformers, kind).from_pretrained(name, **where)
    except Exception as error:
        raise CheckpointError(
            f"{file} of {name} could not be read: {first_line(error)}. Give the name of a repository of the hub, or "
            "the folder that save_pretrained wrote, of the network and of its image processor"
        ) from error


def task_of(config: Any, given: str | None, called: str) -> tuple[str, str]:
    """Our task and transformers' class: what is given, or what the configuration says that the network is."""
    by_task = dict(TASKS.values())
    if given is not None:
        if given not in by_task:
            raise ValueError(f"model {called!r}: task must be one of {', '.join(by_task)}, not {given!r}")
        return given, by_task[given]
    architectures = config.architectures or []
    for end, found in TASKS.items():
        if any(architecture.endswith(end) for architecture in architectures):
            return found
    raise ValueError(
        f"model {called!r} is {' or '.join(architectures) or 'of no named architecture'}, which gives no depth, "
        f"classes or classes of pixels; if a head for them can be put on it, say task= ({', '.join(by_task)})"
    )


def is_metric(config: Any) -> bool:
    """Whether depth is in metres; that of the others is inverse, up to a scale and a shift."""
    return config.model_type in METRIC or getattr(config, "depth_estimation_type", None) == "metric"


def prepared(processor: Any, given: dict[str, Any], called: str) -> Preparation:
    """What the processor does to a picture.

    Raises:
        ValueError: it does not say the size of its images, and nobody else does.
    """
    factor = BYTE * processor.rescale_factor if getattr(processor, "do_rescale", True) else BYTE
    normalizes = getattr(processor, "do_normalize", True) and processor.image_mean is not None
    mean, std = (processor.image_mean, processor.image_std) if normalizes else ((0.0,) * 3, (1.0,) * 3)
    size = given.get("input_size") or size_of(processor)
    if size is None:
        raise ValueError(f"model {called!r}: its processor names no size of images; say input_size=(height, width)")
    flipped = getattr(processor, "do_flip_channel_order", False)
    return Preparation(
        tuple(m / factor for m in mean), tuple(s / factor for s in std), tuple(size), "BGR" if flipped else "RGB"
    )


def size_of(processor: Any) -> tuple[int, int] | None:
    """(height, width) of the images: cut out, resized, or a square of the edge that is named."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else getattr(processor, "size", None)
    size = dict(size) if size is not None and not isinstance(size, int) else size
    if isinstance(size, int):
        return size, size
    if not size:
        return None
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    edge = size.get("shortest_edge") or size.get("longest_edge")
    return (edge, edge) if edge else None


def build(kind: str, name: str, config: Any, where: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """The network on the CPU, with its own weights or random ones."""
    import transformers

    maker = getattr(transformers, kind)
    try:
        with torch.device("cpu"):
            found: nn.Module = (
                maker.from_pretrained(name, config=config, **where) if pretrained else maker.from_config(config)
            )
    except Exception as error:
        what = "its weights could not be loaded" if pretrained else "it cannot be made of its configuration"
        raise CheckpointError(f"model hf/{name}: {what}: {first_line(error)}") from error
    return found.eval()


def try_out(module: Prediction, size: tuple[int, int], called: str) -> None:
    """One pass: the hooks that transformers sets in a first call are then in place, and none of ours to be noticed.

    Raises:
        ValueError: the network does not take images of that size.
    """
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *size))
    except Exception as error:
        raise ValueError(
            f"model {called!r} fails on an image {size[0]}x{size[1]}: {first_line(error)}; say another "
            "input_size=(height, width)"
        ) from error


def first_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split("\n")[0].split()).rstrip(".")
