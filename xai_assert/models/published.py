"""METER under its registered names: the cards, and where the published weights are.

The networks for NYU and KITTI have the same shapes, and differ in input, output and unit: they are registered apart.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import torch

from xai_assert import registry
from xai_assert.errors import CheckpointError
from xai_assert.models.builders import register_model
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.models.download import cache_folder, download
from xai_assert.models.meter import SIZES, Meter
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card, Subject
from xai_assert.tasks import Depth

METER_URL = "https://github.com/lorenzopapa5/METER/raw/main/models"
METER_SHA256 = {
    "meter-xxs-nyu": "327cddf3bfc85f4a13b8d18d2f13d8e40cdeb022ea397995c409ef1569bcbb53",
    "meter-xxs-kitti": "e55544ae36f9ad74237017fd5f8e761db4b258dbed44623c71ce305d44488bea",
    "meter-xxs-scenes": "df56d0d9e86244a57cd44d30553a722100be81f8d5ac15e736181aa5b616959d",  # it comes with the project
}
METER_CARDS = {
    "nyu": Card(
        name="meter-nyu",
        task=Depth(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_size=(192, 256),
        output_size=(48, 64),
        unit="cm",
    ),
    "kitti": Card(
        name="meter-kitti",
        task=Depth(),
        mean=(0.0, 0.0, 0.0),  # KITTI's METER takes pictures in [0, 1] as they are
        std=(1.0, 1.0, 1.0),
        input_size=(192, 636),
        output_size=(48, 160),
        unit="dm",
    ),
}


def meter(size: str, data: str, weights: str | os.PathLike[str] | None = None) -> Subject:
    """METER with random weights (then named so, for no gate of the trained network may match), or with those asked for.

    Args:
        size: "s", "xs" or "xxs".
        data: "nyu" or "kitti".
        weights: a path, or `data` for the published file.

    Raises:
        CheckpointError: no such file, or not one of this network.
    """
    name = f"meter-{size}-{data}"
    with torch.device("cpu"):
        network = Meter(size)
    if weights is None:
        seed = torch.initial_seed()
        return _subject(network, data, f"{name}-random", f"random(seed={seed})")
    named = f"meter-{size}-{weights}" in registry.models.names()
    path = _published(size, data, str(weights)) if named else Path(weights)
    variants = {f"meter-{other}": functools.partial(Meter, other) for other in SIZES}
    load_checkpoint(network, path, name=name, variants=variants, published=METER_SHA256)
    return _subject(network, data, name, path.name)


def _subject(network: Meter, data: str, name: str, weights: str) -> Subject:
    return Subject(network, dataclasses.replace(METER_CARDS[data], name=name, weights=weights))


def _published(size: str, data: str, asked: str) -> Path:
    name = f"meter-{size}-{data}"
    if asked != data:
        raise CheckpointError(f"{name} has no weights {asked!r}; they belong to 'meter-{size}-{asked}': load that")
    file = f"build_model_best_{data}_{size}"
    return download(f"{METER_URL}/{file}", cache_folder() / "meter" / file, sha256=METER_SHA256.get(name))


for _size in SIZES:
    for _data in METER_CARDS:
        _name = f"meter-{_size}-{_data}"
        register_model(_name, subject_name=_name)(functools.partial(meter, _size, _data))
    register_model(f"meter-{_size}", subject_name=f"meter-{_size}-nyu")(functools.partial(meter, _size, "nyu"))
