"""NYU Depth V2: the official labelled file with its splits, or the folders of BTS and PixelFormer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io
from torch import Tensor

from xai_assert.datasets.folders import Folder
from xai_assert.datasets.hdf5 import Rows
from xai_assert.datasets.images import ImageSet
from xai_assert.datasets.lists import Listed
from xai_assert.errors import DataError
from xai_assert.subject import Card

SPLITS = {"test": "testNdxs", "train": "trainNdxs"}
SPLITS_FILE = "splits.mat"
HOME = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"
MILLIMETRES = 1000.0


def nyu(
    path: str | os.PathLike[str],
    card: Card,
    *,
    split: Literal["test", "train"] | None = None,
    splits: str | os.PathLike[str] | None = None,
    files: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> ImageSet:
    """NYU Depth V2, one image in memory at a time.

    From `nyu_depth_v2_labeled.mat`: the 654 images of the official test split, or the 795 of the training split; an
    image's id is its row, counted from 0. From a folder: the pairs `rgb_*.jpg` and `sync_depth_*.png` (16 bits,
    millimetres, 0 where unknown) that a list names, or all that are in there.

    Args:
        path: the labelled file, or the folder.
        card: of the model that the images are for.
        split: of the labelled file: "test" (also if nothing is said) or "train".
        splits: the official splits.mat; by default the one beside the labelled file.
        files: for a folder, its list: a line an image, "picture depth focal", as
            nyudepthv2_test_files_with_gt.txt of BTS.
        limit: take the first so many images only.

    Raises:
        DataError: a file is missing, damaged or of another kind; all absent files of a list are named at once.
        TypeError: an option of the labelled file for a folder, or of a folder for the labelled file.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (64, 48)).save(f"{folder}/rgb_7.jpg")
        ...     Image.new("I;16", (64, 48), 2500).save(f"{folder}/sync_depth_7.png")
        ...     _ = Path(folder, "list.txt").write_text("rgb_7.jpg sync_depth_7.png 518.8579")
        ...     sample = nyu(folder, Card(name="depthnet", unit="m"), files=f"{folder}/list.txt")[0]
        >>> sample.id, float(sample.ground_truth.mean())
        ('rgb_7', 2.5)
    """
    where = Path(path)
    if where.is_dir():
        if split is not None or splits is not None:
            raise TypeError(f"split= and splits= go with the labelled file; {where} is a folder, choose with files=")
        source = Folder(where, MILLIMETRES) if files is None else Listed(Path(files), where, scale=MILLIMETRES)
        return ImageSet(source, card, limit=limit)
    if files is not None:
        raise TypeError(f"files= goes with a folder of pictures; {where} is none, choose with split=")
    split = split or "test"
    if split not in SPLITS:
        raise ValueError(f"split must be 'test' or 'train', not {split!r}")
    return ImageSet(Labelled(where, split, Path(splits or where.with_name(SPLITS_FILE))), card, limit=limit)


class Labelled(Rows):
    """The rows of one split."""

    def __init__(self, path: Path, split: str, splits: Path) -> None:
        super().__init__(path)
        self.name = f"{path.name} ({split})"
        self.ids = read_split(splits, SPLITS[split], len(self.ids))

    def read(self, index: int) -> tuple[Tensor, Tensor | None]:
        return super().read(self.ids[index])

    def columns(self) -> dict[str, list[str]]:
        return {name: [values[row] for row in self.ids] for name, values in super().columns().items()}


def read_split(path: Path, key: str, count: int) -> list[int]:
    """Rows, counted from 0, of the split that splits.mat calls `key` and counts from 1.

    Raises:
        DataError: the file is missing or damaged, or does not fit to `count` rows.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; NYU's official splits.mat is on {HOME}, give its path as splits=")
    try:
        found = scipy.io.loadmat(path, variable_names=[key])
    except Exception as error:  # a damaged file can make the reader raise anything
        raise DataError(f"{path}: cannot be read as NYU's splits.mat: {error}") from error
    if key not in found:
        raise DataError(f"{path}: no {key} in it; NYU's splits.mat has {' and '.join(sorted(SPLITS.values()))}")
    rows = np.asarray(found[key]).ravel()
    if not (len(rows) == len(np.unique(rows)) > 0 and np.isin(rows, np.arange(1, count + 1)).all()):
        raise DataError(f"{path}: {key} must be different whole numbers from 1 to {count}, the rows of the data")
    return [int(row) - 1 for row in rows]
