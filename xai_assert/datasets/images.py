"""The lazy data set, and how a model's card turns a picture and its depth map into input and ground truth."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xai_assert.batching import Sample, stack
from xai_assert.errors import DataError
from xai_assert.randomness import ImageId
from xai_assert.subject import UNITS_PER_METRE, Card

# An average over few known pixels at the rim of the filter is an extrapolation, and twice as many of its values are
# off by over 10 % if they are kept; a share of 1/4 would drop nearly all of a map that is known at 20 % of its pixels.
KNOWN_SHARE = 0.1


class Source(Protocol):
    """Where pictures come from: plain data, so that a data set can be pickled; files are opened to read one item."""

    name: str
    has_depth: bool

    @property
    def ids(self) -> Sequence[ImageId]: ...

    def read(self, index: int) -> tuple[Tensor, Tensor | None]:
        """RGB picture (3, H, W) uint8 and, if the source has depth, (H, W) float32 in metres, unknown where not > 0.

        A source without depth may give labels instead, (H, W) or one without dimensions; it then says `has_truth`.
        One that knows more of its images has a method `columns()`: for each name a value an image, as text.
        """
        ...


class ImageSet:
    """A sequence of `Sample`s, each read and preprocessed when it is asked for; nothing is kept.

    The image is (3, H, W) float32 as the card's model takes it: RGB / 255, resized to `input_size` (bilinear,
    antialiased), BGR if the layout says so, normalised. The ground truth is (H', W') in the card's unit, resized in the
    same way to `output_size`; 0 is unknown. What the card leaves open stays as it is in the picture.

    Args:
        source: of the pictures.
        card: of the model that they are for.
        limit: take the first so many only.

    Raises:
        DataError: the model does not take pictures of 3 channels, or there is depth and its unit is not known.

    Example:
        >>> from xai_assert.datasets import generated
        >>> images = generated(Card(name="depthnet", input_size=(32, 48)), count=3)
        >>> images
        <ImageSet generated: 3 images 32x48, no ground truth, for depthnet>
        >>> images.ids, images[-1].image.shape
        (['generated-00', 'generated-01', 'generated-02'], torch.Size([3, 32, 48]))
    """

    def __init__(self, source: Source, card: Card, *, limit: int | None = None) -> None:
        if not isinstance(card, Card):
            raise TypeError(f"card must be a Card, such as subject.card, not {type(card).__name__}")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise ValueError(f"limit must be None or a whole number of at least 1, not {limit!r}")
        if card.channels not in (None, 3):
            raise DataError(f"{source.name} holds RGB pictures; the card of {card.name} has {card.channels} channels")
        if source.has_depth and card.unit not in UNITS_PER_METRE:
            raise DataError(
                f"{source.name} brings depth in metres, and the card of {card.name} has unit {card.unit!r}; give it "
                f"one of {', '.join(UNITS_PER_METRE)} (unit=...), or leave the depth maps out"
            )
        self.name = source.name
        self.ids: list[ImageId] = list(source.ids[:limit])
        self.card = card
        self._source = source
        self._truth_size = card.output_size or card.input_size

    def full_size(self) -> ImageSet:
        """The same images, with each ground truth at the size of its picture: for depth metrics that are taken there.

        >>> from xai_assert.datasets import generated
        >>> generated(Card(name="depthnet"), count=2).full_size()
        <ImageSet generated: 2 images, no ground truth, for depthnet>
        """
        full = copy.copy(self)
        full._truth_size = None
        return full

    def column(self, name: str) -> dict[ImageId, str]:
        """A value for each image, by its id: of an HDF5 file a data set (N,) of text or whole numbers; of files
        `folder`, the one that the picture is in.

        Raises:
            DataError: there is no such column; those that there are stand in the text.

        >>> from xai_assert.datasets import scenes
        >>> scenes(Card(name="depthnet", unit="m"), limit=3).column("classes")
        {0: 'bed', 1: 'bed', 2: 'ball'}
        """
        columns: dict[str, list[str]] = getattr(self._source, "columns", dict)()
        if name not in columns:
            known = ", ".join(sorted(columns)) or "none"
            raise DataError(f"{self.name} has no column {name!r}; its columns: {known}")
        return dict(zip(self.ids, columns[name], strict=False))

    @property
    def has_ground_truth(self) -> bool:
        return self._source.has_depth or self._has_labels

    @property
    def _has_labels(self) -> bool:
        return not self._source.has_depth and bool(getattr(self._source, "has_truth", False))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"image {at} of {self.name}, which has {len(self)}")
        at %= len(self)
        picture, found = self._source.read(at)
        if found is None or self._has_labels:
            truth = None if found is None else prepare_labels(found, self._truth_size)
            return Sample(prepare_picture(picture, self.card), self.ids[at], truth)
        truth = prepare_depth(found, self.card, self._truth_size)
        if not truth.any():
            raise DataError(f"{self.name}, image {self.ids[at]}: too little of its depth is known (above 0 and finite)")
        return Sample(prepare_picture(picture, self.card), self.ids[at], truth)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def tensor(self) -> Tensor:
        """All images in memory, (B, 3, H, W): for small sets of one size."""
        return stack(list(self)).images

    def ground_truth(self) -> Tensor | None:
        """All depth maps in memory, (B, H', W') in the card's unit, or None: for small sets of one size."""
        return stack(list(self)).ground_truth

    def __repr__(self) -> str:
        size = " {}x{}".format(*self.card.input_size) if self.card.input_size else ""
        truth = "labels" if self._has_labels else f"depth in {self.card.unit}" if self.has_ground_truth else None
        truth = truth or "no ground truth"
        return f"<ImageSet {self.name}: {len(self)} images{size}, {truth}, for {self.card.name}>"


def prepare_picture(picture: Tensor, card: Card) -> Tensor:
    """RGB (3, H, W) uint8 -> the model's input (3, H', W') float32."""
    image = resize(picture.float() / 255, card.input_size)
    if card.layout == "BGR":
        image = image.flip(0)
    if card.mean is not None and card.std is not None:
        image = (image - torch.tensor(card.mean)[:, None, None]) / torch.tensor(card.std)[:, None, None]
    return image


def prepare_depth(depth: Tensor, card: Card, size: tuple[int, int] | None) -> Tensor:
    """Metres (H, W) -> the card's unit at `size` (None leaves it), 0 where unknown.

    Only known pixels are averaged: unknown ones would pull their surroundings towards 0, and the nearest pixel instead
    of an average takes whatever edge or gap it meets.
    """
    known = torch.isfinite(depth) & (depth > 0)
    total, share = resize(torch.stack([depth.where(known, 0), known.float()]), size).unbind()
    return (total / share * UNITS_PER_METRE[str(card.unit)]).where(share >= KNOWN_SHARE, 0)


def prepare_labels(labels: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Labels (H, W) at `size` (None leaves them), each that of the nearest pixel; the one label of a picture stays.

    >>> prepare_labels(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (4, 2)).tolist()
    [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    """
    if labels.ndim != 2 or size is None:
        return labels
    return F.interpolate(labels[None, None], size, mode="nearest-exact")[0, 0]


def resize(planes: Tensor, size: tuple[int, int] | None) -> Tensor:
    """(C, H, W) to (C, *size), bilinear and antialiased; None leaves them."""
    if size is None or planes.shape[1:] == size:
        return planes
    resized: Tensor = F.interpolate(planes[None], size, mode="bilinear", align_corners=False, antialias=True)
    return resized.squeeze(0)
