"""A heatmap as a snapshot keeps it: small, signed, in HDF5, with what it is of; and how far another one is from it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import scipy.stats
import torch.nn.functional as F
from torch import Tensor

from xai_assert.errors import DataError

SCHEMA = 1
FINEST, FINEST_OF_VALUE = 2.0**-17, 2.0**-20  # of the range, and of the largest value: under float32's rounding
SLACK = 2  # steps: rounding to steps, and float64 or another batch size (5e-6 of the range), is no move
LONGEST = 56  # pixels of a side: a few KB in git, and averaging takes the noise of single pixels out
# Of the same weights, on any device: a convolution that rounds its inputs to TF32 moves up to 1.6 % of the pixels of a
# ReLU network's full-size map by over 1e-3 of its range, with a rank correlation of .997 and an overlap of .976.
MOVED, MOVED_SHARE = 1e-3, 0.01
RANK, OVERLAP, TOP = 0.99, 0.95, 0.05
IDENTITY = ("subject", "method", "image_id", "seed")  # another of these is another heatmap, not a changed one


@dataclass(frozen=True, eq=False)
class StoredHeatmap:
    """The signed channel sum of an attribution, averaged to at most 56 x 56, (h, w) float32, and what it is of.

    >>> import torch
    >>> about = {"subject": "net", "fingerprint": "0" * 16, "method": "saliency", "image_id": "a", "seed": 0}
    >>> heatmap = StoredHeatmap.of(torch.ones(3, 112, 56), about)
    >>> heatmap.values.shape, StoredHeatmap.read(heatmap.to_bytes()).about["subject"]
    ((56, 28), 'net')
    """

    values: np.ndarray[Any, np.dtype[np.float32]]
    about: dict[str, Any]

    @classmethod
    def of(cls, attribution: Tensor, about: dict[str, Any]) -> StoredHeatmap:
        """From the attribution of one image, (C, H, W) or (H, W).

        Raises:
            ValueError: it is not finite.
        """
        values = attribution.detach().double().cpu()
        values = values.sum(0) if values.ndim == 3 else values
        scale = min(1.0, LONGEST / max(values.shape))
        height, width = (max(1, round(side * scale)) for side in values.shape)
        pooled = F.adaptive_avg_pool2d(values[None, None], (height, width))[0, 0].float()
        if not bool(pooled.isfinite().all()):
            raise ValueError(
                f"the attribution of {about['method']} on image {about['image_id']} is not finite (NaN or infinity); "
                "there is no heatmap to store or to compare"
            )
        return cls(pooled.numpy(), about)

    def to_bytes(self) -> bytes:
        """As an HDF5 file; the same bytes for the same content."""
        file = io.BytesIO()
        with h5py.File(file, "w", libver="latest") as root:
            options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
            steps, root.attrs["step"] = in_steps(self.values)
            root.create_dataset("heatmap", data=steps, **options)
            root.attrs["schema"] = SCHEMA
            root.attrs["about"] = np.bytes_(json.dumps(self.about, sort_keys=True))  # of a fixed length: no 4 KB heap
        return file.getvalue()

    @classmethod
    def read(cls, content: bytes, name: str = "the stored heatmap") -> StoredHeatmap:
        """From the bytes of such a file; `name` is for the error.

        Raises:
            DataError: it is cut off, or no heatmap of ours.
        """
        try:
            with h5py.File(io.BytesIO(content), "r") as root:
                if root.attrs["schema"] != SCHEMA:
                    raise DataError(f"{name} is of schema {root.attrs['schema']}, this version reads {SCHEMA}")
                values = (root["heatmap"][()] * root.attrs["step"]).astype(np.float32)
                about = json.loads(bytes(root.attrs["about"]))
                if values.ndim != 2 or not isinstance(about, dict):
                    raise ValueError(f"its heatmap is {values.shape}, and it says {type(about).__name__} of itself")
                return cls(values, about)
        except DataError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{name} cannot be read as a stored heatmap ({error})") from None


def in_steps(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """Values as whole multiples of a step, a power of two of at most 2^-17 of the range: far under what is told apart.

    >>> in_steps(np.array([0.0, 1 / 3, 1.0]))
    (array([     0,  43691, 131072], dtype=int32), 7.62939453125e-06)
    """
    step = 2.0 ** math.floor(math.log2(_finest(values) or 1.0))
    return np.round(values.astype(np.float64) / step).astype(np.int32), step


def _finest(values: np.ndarray[Any, Any]) -> float:
    """What is told apart; of a map that is nearly constant, no finer than float32 does."""
    wide = values.astype(np.float64)
    return max(FINEST * float(np.ptp(wide)), FINEST_OF_VALUE * float(np.abs(wide).max()))


@dataclass(frozen=True)
class Difference:
    """How far a received heatmap is from the stored one, and what else differs.

    `moved` is the share of pixels that differ by more than 1e-3 of the stored range, `rank` Spearman's correlation,
    `overlap` the share of the stored top 5 % (by absolute value) that are in the received top 5 %.
    """

    stored: StoredHeatmap
    received: StoredHeatmap
    moved: float
    rank: float
    overlap: float

    @property
    def close(self) -> bool:
        """Whether the maps are the same but for what devices and versions of torch may change."""
        return self.moved <= MOVED_SHARE and self.rank >= RANK and self.overlap >= OVERLAP

    @property
    def other(self) -> list[str]:
        """What makes it another heatmap: `method 'saliency' -> 'edges'`."""
        return [self._change(name) for name in IDENTITY if self._pair(name)[0] != self._pair(name)[1]]

    @property
    def other_weights(self) -> bool:
        """The model changed."""
        stored, received = self._pair("fingerprint")
        return bool(stored != received)

    @property
    def ok(self) -> bool:
        """Close, of the same image, method and weights."""
        return self.close and not self.other and not self.other_weights

    def headline(self) -> str:
        """One line that says enough alone."""
        about = self.received.about
        name = f"heatmap of {about['subject']} / {about['method']} on {about['image_id']}"
        if self.other:
            return f"{name} is not of what is stored: {', '.join(self.other)}"
        if self.other_weights:
            weights = " -> ".join(map(str, self._pair("fingerprint")))
            return f"{name}: the MODEL changed (weights {weights}); {self.numbers()}"
        return f"{name} changed although the weights did not: {self.numbers()}"

    def numbers(self) -> str:
        """The three figures beside what is allowed."""
        moved = f"{100 * self.moved:.1f} % of pixels moved by more than {MOVED:g} of the range"
        rank, overlap = f"rank correlation {self.rank:.3f}", f"top-5 % overlap {self.overlap:.2f}"
        return f"{moved} ({100 * MOVED_SHARE:g} % allowed), {rank} ({RANK} needed), {overlap} ({OVERLAP} needed)"

    def circumstances(self) -> str:
        """Versions and devices that differ."""
        old, new = (dict(side.about.get("versions") or {}) for side in (self.stored, self.received))
        old["device"], new["device"] = self._pair("device")
        changes = [
            f"{name} {old.get(name)} -> {new.get(name)}" for name in sorted(old | new) if old.get(name) != new.get(name)
        ]
        return ", ".join(changes) or "same versions and device"

    def _pair(self, name: str) -> tuple[Any, Any]:
        return self.stored.about.get(name), self.received.about.get(name)

    def _change(self, name: str) -> str:
        stored, received = self._pair(name)
        return f"{name.replace('_', ' ')} {stored!r} -> {received!r}"


def compare(stored: StoredHeatmap, received: StoredHeatmap) -> Difference:
    """How far apart two heatmaps are; of other sizes, as far as can be.

    >>> import torch
    >>> about = {"subject": "net", "fingerprint": "0" * 16, "method": "saliency", "image_id": "a", "seed": 0}
    >>> one = StoredHeatmap.of(torch.arange(16.0).reshape(4, 4), about)
    >>> compare(one, one).ok, compare(one, StoredHeatmap(-one.values, about)).rank
    (True, -1.0)
    """
    first, second = (side.values.astype(np.float64) for side in (stored, received))
    if first.shape != second.shape:
        return Difference(stored, received, 1.0, 0.0, 0.0)
    # what rounding moves ranks as before: else the order among equals (patches of a rollout, zeros) would be judged
    second = np.where(np.abs(second - first) <= SLACK * _finest(first), first, second)
    span = float(np.ptp(first))
    if span == 0 or np.ptp(second) == 0:  # a constant map ranks nothing: only the very same one is close
        same = float(np.array_equal(first, second))
        return Difference(stored, received, 1.0 - same, same, same)
    moved = float((np.abs(second - first) > MOVED * span).mean())
    rank = float(scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic)
    return Difference(stored, received, moved, rank, _overlap(first, second))


def _overlap(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    count = max(1, round(TOP * first.size))
    tops = [set(np.argsort(-np.abs(side).ravel(), kind="stable")[:count].tolist()) for side in (first, second)]
    return len(tops[0] & tops[1]) / count
