"""Images one batch at a time, how large a batch is, and how many passes the model made."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from xai_assert.preserve import hooks
from xai_assert.randomness import ImageId
from xai_assert.subject import Subject

T = TypeVar("T")
CPU_START, CPU_MOST, CPU_GROWTH = 4, 32, 1.1
CUDA_PROBE, CUDA_MOST, CUDA_SHARE = 2, 256, 0.5


@dataclass(frozen=True)
class Sample:
    """One image (C, H, W), its stable id and, where it is known, its ground truth (H', W'), or
    the label of its class, a tensor without dimensions.

    >>> Sample(torch.zeros(3, 4, 4), "kitchen_0007").id
    'kitchen_0007'
    """

    image: Tensor
    id: ImageId
    ground_truth: Tensor | None = None


@runtime_checkable
class Samples(Protocol):
    """A lazy data set: `len`, and by position a `Sample`, an image, or (image, ground truth)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Batch:
    images: Tensor
    ids: tuple[ImageId, ...]
    ground_truth: Tensor | None
    positions: tuple[int, ...] = ()  # of the images in the whole set

    def __len__(self) -> int:
        return len(self.ids)


class ImageSource:
    """Images of any form, read a batch at a time.

    Args:
        images: (B, C, H, W), or a data set with `len` and `[i]` (`Samples`).
        ground_truth: (B, H', W') or (B, 1, H', W'), or labels (B,), for a tensor of images.
        image_ids: for a tensor of images; its positions by default.
        channels: how many the card says, if it says so.
    """

    def __init__(
        self,
        images: Tensor | Samples | None,
        *,
        ground_truth: Tensor | None = None,
        image_ids: Sequence[ImageId] | None = None,
        channels: int | None = None,
    ) -> None:
        if images is None:
            raise TypeError(
                "images: give a tensor (B, C, H, W) or a data set; None, the bundled scenes, is for registered models"
            )
        if not isinstance(images, Tensor) and not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
            raise TypeError(
                f"images must be a tensor (B, C, H, W) or a data set with len and [i] (of a DataLoader its .dataset), "
                f"not {type(images).__name__}"
            )
        if not isinstance(images, Tensor) and (ground_truth is not None or image_ids is not None):
            raise TypeError("ground_truth= and image_ids= go with a tensor of images; a data set brings its own")
        if isinstance(images, Tensor):
            check_images(images, channels)
        if not len(images):
            raise ValueError("images: the batch is empty")
        if image_ids is not None and len(image_ids) != len(images):
            raise ValueError(f"image_ids names {len(image_ids)} images, images holds {len(images)}")
        if image_ids is not None and len({str(i) for i in image_ids}) != len(image_ids):
            raise ValueError("image_ids must differ from each other: the random draws of an image are keyed by its id")
        self._images = images
        self._ids = image_ids
        self._truth = None if ground_truth is None else check_truth(ground_truth, len(images))
        self._channels = channels

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, start: int, stop: int) -> Batch:
        """Images start..stop-1, checked, on the device where they lie."""
        if isinstance(self._images, Tensor):
            ids = tuple(range(start, stop)) if self._ids is None else tuple(self._ids[start:stop])
            truth = None if self._truth is None else self._truth[start:stop]
            batch = Batch(self._images[start:stop].detach(), ids, truth, tuple(range(start, stop)))
        else:
            batch = stack([as_sample(self._images[i], i) for i in range(start, stop)])
            batch = dataclasses.replace(batch, positions=tuple(range(start, stop)))
            check_images(batch.images, self._channels)
        finite = finite_rows(batch.images).tolist()
        if not all(finite):
            bad = [i for i, ok in zip(batch.ids, finite, strict=True) if not ok]
            raise ValueError(f"images must be finite; NaN or infinity in: {', '.join(map(str, bad))}")
        return batch


def as_sample(item: Any, index: int) -> Sample:
    """What a data set returned, as a `Sample`."""
    if isinstance(item, Sample) and isinstance(item.image, Tensor):
        truth = None if item.ground_truth is None else check_truth(item.ground_truth[None], 1)[0]
        return Sample(item.image, item.id, truth)
    if isinstance(item, Tensor):
        return Sample(item, index)
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(t, Tensor) for t in item):
        return Sample(item[0], index, check_truth(item[1][None], 1)[0])
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Tensor) and isinstance(item[1], int):
        return Sample(item[0], index, torch.tensor(item[1]))  # (image, label), as torchvision's data sets give it
    raise TypeError(f"images[{index}] must be a Sample, an image or (image, ground truth), not {type(item).__name__}")


def stack(samples: Sequence[Sample]) -> Batch:
    shapes = {tuple(s.image.shape) for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"images of a data set must have one size, not {sorted(shapes)}; resize them there")
    known = [s.ground_truth for s in samples if s.ground_truth is not None]
    if known and len(known) < len(samples):
        raise ValueError("ground_truth: some images of the data set have it and others do not")
    shapes = {tuple(truth.shape) for truth in known}
    if len(shapes) > 1:
        raise ValueError(f"ground_truth of a data set must have one size, not {sorted(shapes)}; resize it there")
    truth = torch.stack(known) if known else None
    return Batch(torch.stack([s.image.detach() for s in samples]), tuple(s.id for s in samples), truth)


def finite_rows(values: Tensor) -> Tensor:
    """Whether all numbers of a row are finite, (B,), of (B, ...).

    From the smallest and the largest, which are NaN where one number is: a tenth of the time of asking every number.
    """
    flat = values.flatten(1)
    if not flat.shape[1]:
        return torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    return torch.isfinite(flat.amax(1)) & torch.isfinite(flat.amin(1))


def check_images(images: Tensor, channels: int | None = None) -> None:
    """Refuse what is not (B, C, H, W) of floating point with the card's channels."""
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), not {shape}; add or drop a dimension")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point and preprocessed, not {images.dtype}; divide by 255, normalise")
    if channels is not None and shape[1] != channels:
        raise ValueError(f"images have {shape[1]} channels, the model's card says {channels}; shape {shape}")


def check_truth(truth: Tensor, count: int) -> Tensor:
    if not isinstance(truth, Tensor):
        raise TypeError(f"ground_truth must be a tensor (B, H, W), not {type(truth).__name__}")
    if truth.ndim == 4 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim not in (1, 3) or len(truth) != count:
        raise ValueError(
            f"ground_truth must be (B, H, W), (B, 1, H, W) or, of classes, (B,), with B = {count}, "
            f"not {tuple(truth.shape)}"
        )
    return truth.detach()


class BatchSizer:
    """How many images the next batch takes.

    A number stays that number. "auto": on a CPU, start at 4 and double while images per second grow by 10 %, at most
    32 (nothing warns before the kernel kills us, and larger batches are slower). On CUDA, a small batch shows what an
    image needs, then half of the free memory is used; out of memory halves it.
    """

    def __init__(self, size: int | str, device: torch.device) -> None:
        if size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"batch_size must be 'auto' or a whole number of at least 1, not {size!r}")
        self._auto = size == "auto"
        self._cuda = device.type == "cuda"
        self._device = device
        self._size = int(size) if size != "auto" else CUDA_PROBE if self._cuda else CPU_START
        self._best_rate = 0.0
        self._growing = self._auto

    @property
    def size(self) -> int:
        return self._size

    @contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Learn from a batch of `count` images that runs inside."""
        if not self._growing or count < self._size:
            yield
            return
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        before, begun = torch.cuda.memory_allocated(self._device) if self._cuda else 0, time.perf_counter()
        yield
        if self._cuda:
            each = max(1, (torch.cuda.max_memory_allocated(self._device) - before) // count)
            free = torch.cuda.mem_get_info(self._device)[0]
            self._size = max(1, min(CUDA_MOST, int(CUDA_SHARE * free / each)))
            self._growing = False
            return
        rate = count / (time.perf_counter() - begun)
        self._growing = rate > CPU_GROWTH * self._best_rate and self._size < CPU_MOST
        if self._growing:
            self._best_rate, self._size = rate, 2 * self._size

    def shrink(self) -> bool:
        """Halve after out-of-memory; False if one image is already too many or the caller fixed the size."""
        if not self._auto or self._size == 1:
            return False
        self._size, self._growing = self._size // 2, False
        return True


def run_batches(source: ImageSource, sizer: BatchSizer, work: Callable[[Batch], T]) -> Iterator[T]:
    """`work` on all images in order; a batch that runs out of memory is done again, halved: none lost or repeated."""
    start = 0
    while start < len(source):
        batch = source.batch(start, min(start + sizer.size, len(source)))
        try:
            with sizer.measured(len(batch)):
                result = work(batch)
        except torch.OutOfMemoryError:
            if not sizer.shrink():
                raise
            continue
        yield result
        start += len(batch)


@dataclass
class Passes:
    """Passes of the model, counted in images: those that a gradient went back through, and those without."""

    forward: int = 0
    gradient: int = 0

    def __sub__(self, other: Passes) -> Passes:
        return Passes(self.forward - other.forward, self.gradient - other.gradient)


@contextmanager
def counted(model: nn.Module, passes: Passes) -> Iterator[None]:
    """Count what runs inside into `passes`; of a subject its modules, which a method may call behind its back."""

    def count(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        images = inputs[0]
        if torch.is_grad_enabled() and images.requires_grad:
            passes.gradient += len(images)
        else:
            passes.forward += len(images)

    modules = model.networks if isinstance(model, Subject) else (model,)
    with hooks(*(module.register_forward_hook(count) for module in modules)):
        yield


def without_gradient(subject: nn.Module, images: Tensor) -> Tensor:
    """One forward pass of which no graph is kept."""
    with torch.no_grad():
        output: Tensor = subject(images)
    return output
