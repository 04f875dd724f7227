"""The networks that the project trains itself on rendered rooms (training/train.py); their weights come with it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from xai_assert.datasets.nearest import OBJECTS
from xai_assert.datasets.rooms import CLASSES
from xai_assert.models import meter, pixelformer, room_classes
from xai_assert.models.builders import register_model
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.models.published import METER_SHA256
from xai_assert.resources import fixtures
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card, Subject
from xai_assert.tasks import Classification, Depth, Segmentation

WEIGHTS = "scenes"  # the name of the bundled weights
CARD = Card(
    name="bundled",
    task=Depth(),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    input_size=(192, 256),
    output_size=(192, 256),
    unit="m",
)
Sizes = Mapping[str, Callable[[], nn.Module]]
METERS: Sizes = {f"meter-{size}": functools.partial(meter.Meter, size) for size in meter.SIZES}
PIXELFORMERS: Sizes = {
    f"pixelformer-{size}": functools.partial(pixelformer.Pixelformer, size) for size in pixelformer.SIZES
}
DEPTH: Mapping[str, tuple[Sizes, str, Card]] = {
    "meter-xxs-scenes": (METERS, "meter-xxs", dataclasses.replace(CARD, output_size=(48, 64))),
    "pixelformer-nano": (PIXELFORMERS, "pixelformer-nano", CARD),
}
NEAREST = dataclasses.replace(CARD, task=Classification(), unit=None, classes=OBJECTS)
SEGMENTED = dataclasses.replace(CARD, task=Segmentation(), unit=None, classes=CLASSES)
NETWORKS: Mapping[str, tuple[Sizes, str, Card]] = {
    **DEPTH,
    "nearest-object-nano": ({"nearest-object-nano": room_classes.NearestObject}, "nearest-object-nano", NEAREST),
    "segmenter-nano": ({"segmenter-nano": room_classes.RoomSegmenter}, "segmenter-nano", SEGMENTED),
}


def bundled(name: str, weights: str | os.PathLike[str] | None = None) -> Subject:
    """A network of the project, with the weights asked for or random ones (then named so).

    Args:
        name: one of `NETWORKS`.
        weights: "scenes" for the bundled file, a path, or None.

    Raises:
        CheckpointError: no such file, or not one of this network.
    """
    sizes, size, card = NETWORKS[name]
    with torch.device("cpu"):
        network = sizes[size]()
    if name == "meter-xxs-scenes":  # two thirds of the time on a CPU, which this network is for
        network = network.to(memory_format=torch.channels_last)
    if weights is None:
        random = f"random(seed={torch.initial_seed()})"
        return Subject(network, dataclasses.replace(card, name=f"{name}-random", weights=random))
    path = bundled_weights(name) if weights == WEIGHTS else Path(weights)
    load_checkpoint(network, path, name=name, variants=sizes, published=METER_SHA256)
    return Subject(network, dataclasses.replace(card, name=name, weights=path.name))


def bundled_weights(name: str) -> Path:
    """Where the weights that come with the project lie."""
    return fixtures() / "weights" / f"{name}.safetensors"


for _name in NETWORKS:
    register_model(_name, subject_name=_name)(functools.partial(bundled, _name))
