"""A folder of pictures, with a depth map for each or for none."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from xai_assert.datasets.images import ImageSet
from xai_assert.errors import DataError
from xai_assert.randomness import ImageId
from xai_assert.subject import Card

SUFFIXES = (".png", ".jpg", ".jpeg")
BETWEEN = r"[_\-. ]*"
WORDS = re.compile(
    rf"{BETWEEN}(?:(?<![a-z0-9])(?:rgb|colou?rs?|images?|sync|depths?)(?![a-z0-9]){BETWEEN})+", re.IGNORECASE
)
DEPTH_MODES = ("I;16", "I;16B", "I")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def folder(
    path: str | os.PathLike[str], card: Card, *, depth_scale: float = 1000.0, limit: int | None = None
) -> ImageSet:
    """The PNG and JPEG pictures of a folder and its sub-folders, sorted; only names are read until an image is.

    A file whose name (or else whose nearest sub-folder) has the word "depth" is a depth map: a 16-bit greyscale PNG,
    0 where unknown. It belongs to the picture whose path is the same but for the words rgb, color, image, sync and
    depth; what remains of the path is the image's id. So all of these are pairs: `00000_colors.png` and
    `00000_depth.png`, `rgb_7.jpg` and `sync_depth_7.png`, `rgb/a.png` and `depth/a.png`.

    Args:
        path: the folder.
        card: of the model that the images are for.
        depth_scale: stored values per metre: 1000 for millimetres, 256 for KITTI.
        limit: take the first so many images only.

    Raises:
        DataError: no pictures, two files for one id, or a depth map for some of the pictures only; later, from the
            image that is read: unreadable, or its depth map not of 16 bits or of another size.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     Image.new("RGB", (64, 48)).save(f"{path}/rgb_7.png")
        ...     Image.new("I;16", (64, 48), 2500).save(f"{path}/depth_7.png")
        ...     sample = folder(path, Card(name="depthnet", unit="cm", output_size=(24, 32)))[0]
        >>> sample.id, float(sample.ground_truth.mean())
        ('7', 250.0)
    """
    return ImageSet(Folder(Path(path), depth_scale), card, limit=limit)


class Pairs:
    """A source of files: pictures and, for all or none, depth maps of `scale` stored values per metre.

    `crop` is applied to both once they are found to be of one size.
    """

    def __init__(
        self,
        name: str,
        ids: Sequence[ImageId],
        files: Sequence[tuple[Path, Path | None]],
        scale: float,
        crop: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if isinstance(scale, bool) or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"depth_scale must be a positive number of stored values per metre, not {scale!r}")
        self.name, self.ids, self.files, self.scale, self.crop = name, ids, files, float(scale), crop
        self.has_depth = any(depth for _, depth in files)

    def columns(self) -> dict[str, list[str]]:
        """`folder`: what stands before the last slash of a picture's id."""
        return {"folder": [str(one).rpartition("/")[0] for one in self.ids]}

    def read(self, index: int) -> tuple[Tensor, Tensor | None]:
        picture_file, depth_file = self.files[index]
        picture = read_picture(picture_file, upright=depth_file is not None)
        depth = None if depth_file is None else read_depth(depth_file) / self.scale
        if depth is not None and depth.shape != picture.shape[1:]:
            raise DataError(
                f"{depth_file}: depth of another size ({_size(depth)}) than its picture {picture_file.name} "
                f"({_size(picture)})"
            )
        if self.crop is None:
            return picture, depth
        try:
            return self.crop(picture), None if depth is None else self.crop(depth)
        except ValueError as error:
            raise DataError(f"{picture_file}: {error}") from None


class Folder(Pairs):
    """The source behind `folder`."""

    def __init__(self, root: Path, scale: float, crop: Callable[[Tensor], Tensor] | None = None) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: {'not a folder' if root.exists() else 'does not exist'}")
        pictures, depths = find(root)
        if not pictures and not depths:
            raise DataError(f"{root}: no picture ({', '.join(SUFFIXES)}) in it or its sub-folders")
        lone = [pictures[key] for key in sorted(pictures.keys() - depths)] if depths else []
        orphans = [depths[key] for key in sorted(depths.keys() - pictures)]
        if lone or orphans:
            without = [f"no depth map for {_some(lone)}"] if lone else []
            without += [f"no picture for {_some(orphans)}"] if orphans else []
            raise DataError(
                f"{root}: {'; '.join(without)}; every picture needs a depth map, or none has one; a pair's names are "
                "equal but for words such as rgb, colors and depth"
            )
        keys = sorted(pictures)
        ids = [key or pictures[key].stem for key in keys]
        files = [(pictures[key], depths.get(key)) for key in keys]
        super().__init__(root.resolve().name, ids, files, scale, crop)


def find(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Pictures and depth maps under `root`, each by the key that a pair has in common."""
    found: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root).with_suffix("")
        if file.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in relative.parts):
            continue
        names = found[says_depth(relative.parts)]
        key = "/".join(filter(None, (WORDS.sub("_", part).strip("_-. ") for part in relative.parts)))
        if key in names:
            raise DataError(
                f"{root}: {_some([names[key], file])} are both {'depth maps' if names is found[1] else 'pictures'} "
                f"of {key!r}; keep one, or name depth maps with the word depth"
            )
        names[key] = file
    return found


def says_depth(parts: Iterable[str]) -> bool:
    """Whether the last part of a path with one of the words in it has the word depth."""
    worded = [words for part in parts if (words := "".join(WORDS.findall(part)))]
    return bool(worded) and "depth" in worded[-1].lower()


def read_picture(file: Path, *, upright: bool) -> Tensor:
    """(3, H, W) uint8 RGB, turned as its EXIF data say; `upright` refuses one that needs it.

    Alpha is dropped; palettes and greyscale become RGB.
    """
    try:
        with Image.open(file) as image:
            mode, turned = image.mode, image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            # By way of RGBA, because Pillow warns where a palette has transparent entries.
            rgb = np.array(ImageOps.exif_transpose(image).convert("RGBA").convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read as a picture: {error}") from error
    if mode in DEPTH_MODES:
        raise DataError(f"{file}: a picture of 8 bits is needed, not 16-bit greyscale; is it a depth map without name?")
    if turned and upright:
        raise DataError(
            f"{file}: to be turned (EXIF orientation), and nobody knows if its depth map is; store both upright"
        )
    return torch.from_numpy(rgb).permute(2, 0, 1)


def read_depth(file: Path) -> Tensor:
    """(H, W) float32, as stored."""
    try:
        with Image.open(file) as image:
            kind, mode = image.format, image.mode
            stored = np.array(image)
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read as a depth map: {error}") from error
    if mode not in DEPTH_MODES:
        raise DataError(f"{file}: a depth map must be a 16-bit greyscale PNG, not {kind} of mode {mode}")
    return torch.from_numpy(stored.astype(np.float32))


def _some(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3} more"


def _size(planes: Tensor) -> str:
    return f"{planes.shape[-2]}x{planes.shape[-1]}"
