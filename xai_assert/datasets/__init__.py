"""Data sets: a folder of pictures and depth maps, an HDF5 file, or pictures that the project makes itself."""

from __future__ import annotations

import os
from pathlib import Path

from xai_assert.datasets.folders import folder
from xai_assert.datasets.hdf5 import SUFFIXES as HDF5_SUFFIXES
from xai_assert.datasets.hdf5 import hdf5
from xai_assert.datasets.images import ImageSet
from xai_assert.datasets.pictures import generated
from xai_assert.errors import DataError
from xai_assert.subject import Card

__all__ = ["ImageSet", "folder", "generated", "hdf5", "open_data"]


def open_data(
    path: str | os.PathLike[str], card: Card, *, depth_scale: float = 1000.0, limit: int | None = None
) -> ImageSet:
    """Open a folder (`folder`) or an HDF5 file (`hdf5`), by what the path is; no pixel is read yet.

    Args:
        path: a directory, or a file .h5, .hdf5 or .mat.
        card: of the model that the images are for.
        depth_scale: stored values per metre of a folder's depth PNGs; an HDF5 file says its own.
        limit: take the first so many images only.

    Raises:
        DataError: the path is missing or nothing of that kind, or its contents do not fit together.
    """
    where = Path(path)
    if where.is_dir():
        return folder(where, card, depth_scale=depth_scale, limit=limit)
    if where.suffix.lower() in HDF5_SUFFIXES:
        return hdf5(where, card, limit=limit)
    kinds = f"a folder of pictures or an HDF5 file ({', '.join(HDF5_SUFFIXES)})"
    raise DataError(f"{where}: {'not' if where.exists() else 'does not exist; data are'} {kinds}")
