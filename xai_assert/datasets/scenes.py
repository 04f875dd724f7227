"""The bundled scenes: rendered rooms with exact depth, of seeds that are kept apart from any training.

`python -m xai_assert.datasets.scenes` makes the file anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xai_assert.datasets.hdf5 import hdf5
from xai_assert.datasets.images import ImageSet, prepare_labels
from xai_assert.datasets.nearest import OBJECTS, nearest_object
from xai_assert.datasets.rooms import CLASSES, scene
from xai_assert.randomness import ImageId
from xai_assert.resources import fixtures
from xai_assert.subject import Card

FILE = "scenes.h5"
SEEDS = range(1_000_000, 1_000_024)  # training counts from 0, and never gets here
SIZE = (240, 320)
DEPTH_STEP = 2.0**-11  # metres: half a millimetre, so that the file compresses
MATLAB_CLASS = {"images": "uint8", "depths": "single", "labels": "uint16", "instances": "uint8"}


def scenes(card: Card, *, limit: int | None = None) -> ImageSet:
    """24 rendered rooms with their ground truth, for the card's model; an image's id is its row.

    Ground truth is what the card's task asks for: depth; of a segmentation the class of each pixel (`rooms.CLASSES`);
    of a classification which object is nearest (`nearest.OBJECTS`).

    They are test data of our own: no photographs, but a depth network trained on others of their kind is right on them
    for the reasons that it should be (perspective, known sizes, contact with the floor, shading).

    Args:
        card: of the model that the images are for; depth is given in its unit.
        limit: take the first so many only.

    Example:
        >>> scenes(Card(name="depthnet", input_size=(192, 256), unit="m"), limit=3)
        <ImageSet scenes.h5: 3 images 192x256, depth in m, for depthnet>
    """
    return hdf5(fixtures() / FILE, card, limit=limit)


def nearest_masks(card: Card) -> dict[ImageId, Tensor]:
    """Where the nearest object of each bundled scene is, (H, W) bool at the card's input size, by image id.

    For `xa.localization(..., masks=nearest_masks(subject.card))`; images without such an object are left out.

    Example:
        >>> masks = nearest_masks(Card(name="nearest", input_size=(192, 256)))
        >>> masks[0].shape, bool(masks[0].any())
        (torch.Size([192, 256]), True)
    """
    with h5py.File(fixtures() / FILE) as file:
        rows = enumerate(zip(file["instances"], file["nearest"][:], strict=True))
        return {row: mask_of(plane.T, int(number), card) for row, (plane, number) in rows if number}


def mask_of(instances: NDArray[np.uint8], number: int, card: Card) -> Tensor:
    """The pixels of one object, at the card's input size."""
    plane = torch.from_numpy((instances == number).astype(np.float32))
    return prepare_labels(plane, card.input_size) > 0


def write(path: Path, *, seeds: range = SEEDS, size: tuple[int, int] = SIZE) -> None:
    """Render the scenes into a file laid out as NYU's labelled one: MATLAB's axes, depth in metres, class names."""
    frames = [scene(seed, *size) for seed in seeds]
    nearest = [nearest_object(frame) for frame in frames]
    rows: dict[str, list[np.ndarray]] = {
        "images": [frame.image.transpose(2, 1, 0) for frame in frames],
        "depths": [np.round(frame.depth.T / DEPTH_STEP) * np.float32(DEPTH_STEP) for frame in frames],
        "labels": [frame.labels.T.astype(np.uint16) for frame in frames],
        "instances": [frame.instances.T for frame in frames],
    }
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        for name, values in rows.items():
            data = np.stack(values)
            stored = file.create_dataset(
                name, data=data, chunks=(1, *data.shape[1:]), compression="gzip", compression_opts=9, shuffle=True
            )
            stored.attrs["MATLAB_class"] = np.bytes_(MATLAB_CLASS[name])
        for name in ("label", "instance"):
            found = np.array([getattr(one, name) for one in nearest], np.uint8)
            column = file.create_dataset({"label": "classes", "instance": "nearest"}[name], data=found)
            if name == "label":
                column.attrs["names"] = list(OBJECTS)
        file.attrs["names"] = list(CLASSES)
        file.attrs["seeds"] = np.array(seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render the bundled scenes.")
    parser.add_argument("--out", type=Path, default=Path("fixtures") / FILE)
    write(parser.parse_args().out)
