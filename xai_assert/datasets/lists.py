"""File lists in the form that BTS and its successors use: a line an image, "picture depth focal"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from torch import Tensor

from xai_assert.datasets.folders import Pairs
from xai_assert.errors import DataError

SHOWN = 50  # absent files that an error lists by name
NOWHERE = "None"  # what KITTI's lists say in place of a depth map that does not exist
Line = tuple[PurePosixPath, PurePosixPath | None]


class Listed(Pairs):
    """The source behind a list: all of its files are looked for at once, and none is opened.

    An image's id is its path in the list without the suffix. If some lines name a depth map, those without are left
    out. Depth maps lie under `depth_root`; or in there under the picture's first folder (the date, in KITTI's lists),
    or under train or val (as KITTI publishes them).
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        *,
        scale: float,
        depth_root: Path | None = None,
        crop: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        depth_root = depth_root or root
        for folder in (root, depth_root):
            if not folder.is_dir():
                raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'does not exist'}")
        lines = read_list(path)
        if any(depth for _, depth in lines):
            lines = [line for line in lines if line[1]]
        files: list[tuple[Path, Path | None]] = []
        for picture, depth in lines:
            places = [] if depth is None else [depth_root / p / depth for p in ("", picture.parts[0], "train", "val")]
            depth_file = next((place for place in places if place.is_file()), places[0] if places else None)
            files.append((root / picture, depth_file))
        absent = [file for pair in files for file in pair if file is not None and not file.is_file()]
        if absent:
            names = "".join(f"\n  {file}" for file in absent[:SHOWN])
            more = f"\n  and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
            raise DataError(f"{path} names {len(absent)} files that do not exist:{names}{more}")
        super().__init__(path.stem, [str(picture.with_suffix("")) for picture, _ in lines], files, scale, crop)


def read_list(path: Path) -> list[Line]:
    """Picture and depth map of every line, relative to their folders; the focal length is of no use here.

    Raises:
        DataError: no text file, no line, a line of another form, a path that leaves its folder, a picture named twice.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a file list: {error}") from error
    lines: list[Line] = []
    for number, row in enumerate(rows, 1):
        words = row.split()
        if not words:
            continue
        picture, depth = (PurePosixPath(word.lstrip("/")) for word in [*words, NOWHERE][:2])
        if len(words) > 3 or not (picture.name and depth.name):
            raise DataError(f"{path}, line {number}: {row!r} is not of the form 'picture depth focal'")
        if ".." in picture.parts + depth.parts:
            raise DataError(f"{path}, line {number}: {row!r} leads out of the data's folder, which is refused")
        lines.append((picture, None if str(depth) == NOWHERE else depth))
    if not lines:
        raise DataError(f"{path}: a list without a line")
    twice = [str(picture) for picture, count in Counter(picture for picture, _ in lines).items() if count > 1]
    if twice:
        raise DataError(f"{path} names {len(twice)} pictures more than once: {', '.join(twice[:3])}")
    return lines
