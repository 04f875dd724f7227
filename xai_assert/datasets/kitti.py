"""KITTI as Eigen split it: pictures and sparse depth maps in the folders of the raw recordings, named by a list."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from xai_assert.datasets.folders import Folder
from xai_assert.datasets.images import ImageSet
from xai_assert.datasets.lists import Listed
from xai_assert.subject import Card

PER_METRE = 256.0
KB_CROP = (352, 1216)


def kitti(
    path: str | os.PathLike[str],
    card: Card,
    *,
    files: str | os.PathLike[str] | None = None,
    depths: str | os.PathLike[str] | None = None,
    crop: bool | None = None,
    limit: int | None = None,
) -> ImageSet:
    """KITTI pictures with depth maps of 16-bit PNG (metres = value / 256, 0 where unknown), one in memory at a time.

    Args:
        path: the folder that the list's pictures are relative to; without a list, of picture and depth pairs.
        card: of the model that the images are for.
        files: the list: a line an image, "picture depth focal", as eigen_test_files_with_gt.txt of BTS. The 45 lines
            that have None as depth are left out.
        depths: the folder of the depth maps, if it is another one. They lie there as the list says, or under the
            picture's date, or under train/ or val/.
        crop: cut pictures and depth maps to the 352x1216 of KITTI's benchmark, at the bottom in the middle. By default
            where that is the model's input size (PixelFormer), and not elsewhere (METER).
        limit: take the first so many images only.

    Raises:
        DataError: a file is missing, damaged, of another kind or smaller than the crop; all absent files of a list are
            named at once.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (1242, 375)).save(f"{folder}/rgb_7.png")
        ...     Image.new("I;16", (1242, 375), 512).save(f"{folder}/depth_7.png")
        ...     sample = kitti(folder, Card(name="depthnet", unit="m"), crop=True)[0]
        >>> sample.image.shape, float(sample.ground_truth.mean())
        (torch.Size([3, 352, 1216]), 2.0)
    """
    root = Path(path)
    cut = kb_crop if crop or (crop is None and card.input_size == KB_CROP) else None
    if files is None:
        if depths is not None:
            raise TypeError("depths= goes with files=, the list that says which depth map belongs to which picture")
        return ImageSet(Folder(root, PER_METRE, cut), card, limit=limit)
    depth_root = None if depths is None else Path(depths)
    return ImageSet(Listed(Path(files), root, scale=PER_METRE, depth_root=depth_root, crop=cut), card, limit=limit)


def kb_crop(planes: Tensor) -> Tensor:
    """(..., H, W) cut to 352x1216: the bottom rows, and the columns in the middle (rounded to the left).

    Raises:
        ValueError: it is smaller.
    """
    height, width = planes.shape[-2:]
    top, left = height - KB_CROP[0], (width - KB_CROP[1]) // 2
    if top < 0 or left < 0:
        raise ValueError(f"{height}x{width} pixels are too few for KITTI's crop of {KB_CROP[0]}x{KB_CROP[1]}")
    return planes[..., top:, left : left + KB_CROP[1]]
