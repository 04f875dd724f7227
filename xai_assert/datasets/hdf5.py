"""An HDF5 file of images and, if it has them, depths or labels; read row by row."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xai_assert.datasets.images import ImageSet
from xai_assert.errors import DataError
from xai_assert.subject import Card

SUFFIXES = (".h5", ".hdf5", ".mat")
TRUTHS = {"segmentation": "labels", "classification": "classes"}  # data sets of whole numbers, by task


def hdf5(path: str | os.PathLike[str], card: Card, *, limit: int | None = None) -> ImageSet:
    """The rows of an HDF5 file; one row is in memory at a time, and the file is open only while it is read.

    `images` is uint8, (N, H, W, 3) or (N, 3, H, W); `depths`, if it is there, (N, H, W): floats in metres, or integers
    with an attribute `scale`, stored values per metre; unknown where not above 0 and finite. MATLAB writes its axes
    backwards: files of version 7.3, such as NYU's nyu_depth_v2_labeled.mat, are turned round. An image's id is its row.

    For a card whose task is segmentation the ground truth is `labels`, whole numbers (N, H, W); for one of
    classification `classes`, (N,).

    Args:
        path: the file.
        card: of the model that the images are for.
        limit: take the first so many rows only.

    Raises:
        DataError: no HDF5 file, or truncated; data sets that are missing, do not fit together, or lie elsewhere: links,
            external storage and virtual data sets are refused, so that a data file cannot read other files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/val.h5", "w") as file:
        ...         file["images"] = np.zeros((2, 48, 64, 3), np.uint8)
        ...         file["depths"] = np.full((2, 48, 64), 2.5, np.float32)
        ...     sample = hdf5(f"{folder}/val.h5", Card(name="depthnet", unit="cm"))[1]
        >>> sample.id, float(sample.ground_truth.mean())
        (1, 250.0)
    """
    return ImageSet(
        Rows(Path(path), TRUTHS.get(card.task.name, "depths") if card.task else "depths"), card, limit=limit
    )


class Rows:
    """The source behind `hdf5`. It keeps no handle: HDF5's do not survive a fork or a pickle."""

    def __init__(self, path: Path, truth: str = "depths") -> None:
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'does not exist'}")
        self.path, self.truth = path, truth
        self.name = path.name
        with self._open() as file:
            images = self._data(file, "images")
            height, width = (images.shape[1 + axis] for axis in self._planes(images)[1:])
            if height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise DataError(f"{path}: images of {height}x{width} pixels are above Pillow's limit for a picture")
            self.ids: Sequence[int] = range(len(images))
            self.has_truth = truth in list(file)
            self.has_depth = self.has_truth and truth == "depths"
            if self.has_truth:
                self._check_truth(self._data(file, truth), images, (height, width))

    def _check_truth(self, found: h5py.Dataset, images: h5py.Dataset, size: tuple[int, int]) -> None:
        """One value a pixel of each image, or of `classes` one an image."""
        planes = () if self.truth == "classes" else size[::-1] if is_matlab(found) else size
        expected = (len(images), *planes)
        if found.shape != expected:
            raise DataError(
                f"{self.path}: {self.truth} are {found.shape}, not {expected} as images {images.shape} need"
            )
        if self.truth == "depths":
            self._scale(found)
        elif found.dtype.kind not in "iu":
            raise DataError(f"{self.path}: {self.truth} must be whole numbers, not {found.dtype}")

    def read(self, index: int) -> tuple[Tensor, Tensor | None]:
        with self._open() as file:
            images = self._data(file, "images")
            picture = torch.from_numpy(images[index].transpose(self._planes(images)).copy())
            if not self.has_truth:
                return picture, None
            found = self._data(file, self.truth)
            values = found[index] / self._scale(found) if self.truth == "depths" else np.asarray(found[index])
            plane = values.astype(np.float32)  # it holds every label up to 16 million
            return picture, torch.from_numpy(plane.T.copy() if is_matlab(found) else plane)

    def columns(self) -> dict[str, list[str]]:
        """The data sets (N,) of text or whole numbers; an attribute `names` of one says what its numbers mean."""
        found: dict[str, list[str]] = {}
        with self._open() as file:
            count = len(self._data(file, "images"))
            for name in file:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    continue
                data = file[name]
                if not isinstance(data, h5py.Dataset) or data.shape != (count,) or data.external or data.is_virtual:
                    continue
                text = h5py.check_string_dtype(data.dtype) is not None
                if text or data.dtype.kind in "iu":
                    values = data.asstr()[:] if text else data[:]
                    names = [str(word) for word in data.attrs.get("names", ())]
                    found[name] = [str(_named(value, names)) for value in values.tolist()]
        return found

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.path, "r") as file:
                yield file
        except DataError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            hint = "; MATLAB must have saved it as version 7.3" if self.path.suffix.lower() == ".mat" else ""
            raise DataError(
                f"{self.path}: cannot be read as HDF5 (truncated, damaged or foreign{hint}): {error}"
            ) from error

    def _data(self, file: h5py.File, name: str) -> h5py.Dataset:
        """The data set `name`, if it is an array of numbers that lies in this file."""
        link = file.get(name, getlink=True) if name in list(file) else None
        if link is None:
            found = ", ".join(list(file)[:10]) or "nothing"
            raise DataError(
                f"{self.path}: no data set {name!r}; expected are images and, if known, depths; found: {found}"
            )
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{self.path}: {name} is a link to elsewhere ({type(link).__name__}), which is refused")
        data = file[name]
        if not isinstance(data, h5py.Dataset):
            raise DataError(f"{self.path}: {name} is a {type(data).__name__.lower()}, not a data set")
        if data.external or data.is_virtual:
            raise DataError(
                f"{self.path}: {name} keeps its values in other files (external or virtual), which is refused"
            )
        return data

    def _planes(self, images: h5py.Dataset) -> tuple[int, int, int]:
        """Where the channels, the height and the width are among a row's axes."""
        shape: tuple[int, ...] = images.shape or ()
        if images.dtype != np.uint8 or len(shape) != 4 or not all(shape):
            raise DataError(
                f"{self.path}: images must be uint8 (N, H, W, 3) or (N, 3, H, W), not {images.dtype} {shape}"
            )
        if is_matlab(images):
            if shape[1] != 3:
                raise DataError(f"{self.path}: images of a MATLAB file must be (H, W, 3, N) there, not {shape[::-1]}")
            return 0, 2, 1
        if (shape[1] == 3) == (shape[3] == 3):
            raise DataError(
                f"{self.path}: images must have one axis of 3 channels, the second or the last, not {shape}"
            )
        return (0, 1, 2) if shape[1] == 3 else (2, 0, 1)

    def _scale(self, depths: h5py.Dataset) -> float:
        """Stored values per metre."""
        stored, kind = depths.attrs.get("scale"), depths.dtype.kind
        if kind not in "fiu":
            raise DataError(f"{self.path}: depths must be numbers, not {depths.dtype}")
        if stored is None and kind != "f":
            raise DataError(
                f"{self.path}: depths are {depths.dtype} and need an attribute scale, stored values per metre"
            )
        scale = np.asarray(1.0 if stored is None else stored)
        if scale.size != 1 or scale.dtype.kind not in "fiu" or not 0 < scale.item() < math.inf:
            raise DataError(f"{self.path}: the attribute scale of depths must be a positive number, not {stored}")
        return float(scale.item())


def _named(value: str | int, names: Sequence[str]) -> str | int:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def is_matlab(data: h5py.Dataset) -> bool:
    """Whether MATLAB wrote it, whose arrays lie in HDF5 with their axes in reverse."""
    return "MATLAB_class" in data.attrs
