"""Data sets: NYU, KITTI, a folder of pictures and depth maps, an HDF5 file, and what comes with the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from xai_assert.datasets.folders import folder
from xai_assert.datasets.hdf5 import SUFFIXES as HDF5_SUFFIXES
from xai_assert.datasets.hdf5 import hdf5
from xai_assert.datasets.images import ImageSet
from xai_assert.datasets.kitti import kitti
from xai_assert.datasets.nearest import OBJECTS
from xai_assert.datasets.nyu import SPLITS_FILE, nyu
from xai_assert.datasets.pictures import generated
from xai_assert.datasets.rooms import CLASSES
from xai_assert.datasets.scenes import nearest_masks, scenes
from xai_assert.errors import DataError
from xai_assert.registry import bind, keywords, parse_spec
from xai_assert.subject import UNITS_PER_METRE, Card

__all__ = [
    "ImageSet",
    "bundled_images",
    "folder",
    "generated",
    "hdf5",
    "kitti",
    "nearest_masks",
    "nyu",
    "open_data",
    "scenes",
]

NAMED: dict[str, Callable[..., ImageSet]] = {"kitti": kitti, "nyu": nyu}


def open_data(
    path: str | os.PathLike[str], card: Card, *, depth_scale: float = 1000.0, limit: int | None = None
) -> ImageSet:
    """Open a folder (`folder`), an HDF5 file (`hdf5`), or what `nyu(path=..., ...)` or `kitti(path=..., ...)` says.

    A file beside which NYU's splits.mat lies is `nyu`'s, and gives its test split. No pixel is read yet.

    Args:
        path: a directory; a file .h5, .hdf5 or .mat; or a text such as "kitti(path='raw', files='eigen_test.txt')".
        card: of the model that the images are for.
        depth_scale: stored values per metre of a folder's depth PNGs; the others say their own.
        limit: take the first so many images only.

    Raises:
        DataError: the path is missing or nothing of that kind, or its contents do not fit together.
        TypeError: `nyu` or `kitti` takes no such parameter.
    """
    where = Path(path)
    if where.is_dir():
        return folder(where, card, depth_scale=depth_scale, limit=limit)
    if where.suffix.lower() in HDF5_SUFFIXES:
        labelled = where.with_name(SPLITS_FILE).is_file() and where.suffix.lower() == ".mat"
        return nyu(where, card, limit=limit) if labelled else hdf5(where, card, limit=limit)
    if not where.exists() and str(path).startswith(tuple(f"{name}(" for name in NAMED)):
        name, parameters = parse_spec(str(path), "data")
        bind("data", name, parameters, keywords(NAMED[name], skip=0, given=("card", "limit")))
        return NAMED[name](**parameters, card=card, limit=limit)
    kinds = f"a folder of pictures or an HDF5 file ({', '.join(HDF5_SUFFIXES)}), nyu(path=...) or kitti(path=...)"
    raise DataError(f"{where}: {'not' if where.exists() else 'does not exist; data are'} {kinds}")


def bundled_images(card: Card, *, limit: int | None = None) -> ImageSet:
    """What there is without any data: `scenes`, or `generated` pictures for a card that leaves sizes or unit open, or
    whose classes are not those of the rooms."""
    known = card.classes in (OBJECTS, CLASSES) or card.unit in UNITS_PER_METRE
    if card.input_size and card.output_size and known:
        return scenes(card, limit=limit)
    return generated(card) if limit is None else generated(card, count=limit)
