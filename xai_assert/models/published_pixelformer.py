"""PixelFormer under its registered names."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import torch

from xai_assert.errors import CheckpointError
from xai_assert.models.builders import register_model
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.models.pixelformer import SIZES, Pixelformer
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card, Subject
from xai_assert.tasks import Depth

PIXELFORMER_URL = "https://github.com/ashutosh1807/PixelFormer"
PUBLISHED = ("tiny07", "base07", "large07")
MAX_DEPTH = {"nyu": 10.0, "kitti": 80.0}
DEPTH = Depth()
INPUT_SIZE = {"nyu": (480, 640), "kitti": (352, 1216)}


def pixelformer(size: str, data: str, weights: str | os.PathLike[str] | None = None) -> Subject:
    """PixelFormer for `data` ("nyu" or "kitti"), with the weights asked for or random ones (then named so).

    Raises:
        CheckpointError: no such file, or not one of this network.
    """
    if weights in MAX_DEPTH:
        raise CheckpointError(
            f"pixelformer-{size}-{data}: weights={str(weights)!r} cannot be downloaded by a program; fetch the "
            f"published file (of large07) by hand from where {PIXELFORMER_URL} says, and give its path as weights="
        )
    return _subject(size, f"pixelformer-{size}-{data}", INPUT_SIZE[data], MAX_DEPTH[data], weights)


def _subject(
    size: str, name: str, input_size: tuple[int, int], max_depth: float, weights: str | os.PathLike[str] | None
) -> Subject:
    with torch.device("cpu"):
        network = Pixelformer(size, max_depth=max_depth)
    card = Card(
        name=f"{name}-random",  # no gate of the trained network may match
        task=DEPTH,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_size=input_size,
        output_size=input_size,
        unit="m",
        weights=f"random(seed={torch.initial_seed()})",
    )
    if weights is not None:
        variants = {f"pixelformer-{other}": functools.partial(Pixelformer, other) for other in SIZES}
        load_checkpoint(network, weights, name=name, variants=variants)
        card = dataclasses.replace(card, name=name, weights=Path(weights).name)
    return Subject(network, card)


for _size in PUBLISHED:
    for _data in MAX_DEPTH:
        _name = f"pixelformer-{_size}-{_data}"
        register_model(_name, subject_name=_name)(functools.partial(pixelformer, _size, _data))
    _name = f"pixelformer-{_size}-nyu"
    register_model(f"pixelformer-{_size}", subject_name=_name)(functools.partial(pixelformer, _size, "nyu"))
