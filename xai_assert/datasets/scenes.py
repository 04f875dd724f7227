"""The bundled scenes: rendered rooms with exact depth, of seeds that are kept apart from any training.

`python -m xai_assert.datasets.scenes` makes the file anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from xai_assert.datasets.hdf5 import hdf5
from xai_assert.datasets.images import ImageSet
from xai_assert.datasets.rooms import CLASSES, scene
from xai_assert.resources import fixtures
from xai_assert.subject import Card

FILE = "scenes.h5"
SEEDS = range(1_000_000, 1_000_024)  # training counts from 0, and never gets here
SIZE = (240, 320)
DEPTH_STEP = 2.0**-11  # metres: half a millimetre, so that the file compresses
MATLAB_CLASS = {"images": "uint8", "depths": "single", "labels": "uint16", "instances": "uint8"}


def scenes(card: Card, *, limit: int | None = None) -> ImageSet:
    """24 rendered rooms with their depth, for the card's model; an image's id is its row.

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


def write(path: Path, *, seeds: range = SEEDS, size: tuple[int, int] = SIZE) -> None:
    """Render the scenes into a file laid out as NYU's labelled one: MATLAB's axes, depth in metres, class names."""
    frames = [scene(seed, *size) for seed in seeds]
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
        file.attrs["names"] = list(CLASSES)
        file.attrs["seeds"] = np.array(seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render the bundled scenes.")
    parser.add_argument("--out", type=Path, default=Path("fixtures") / FILE)
    write(parser.parse_args().out)
