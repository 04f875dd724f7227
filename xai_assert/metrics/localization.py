"""Localisation: whether the relevance lies where it is known to belong.

Relevance mass and rank accuracy (Arras et al., 2003.07258), pointing game (Zhang et al., 1608.00507).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xai_assert.metrics.cell import Cell
from xai_assert.metrics.fidelity import check_choice
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.sparseness import relevance_of
from xai_assert.perturbations import Perturbed
from xai_assert.randomness import ImageId

Kind = Literal["mass", "rank", "pointing"]
Masks = Tensor | Mapping[ImageId, Tensor]


@dataclass(frozen=True, eq=False)
class LocalizationCell(Cell):
    """Mass, rank and pointing accuracy against masks: (n, H, W) in the order of the images, or by image id; no pass."""

    masks: Masks

    def __post_init__(self) -> None:
        if not isinstance(self.masks, Tensor | Mapping):
            raise TypeError(f"masks must be a tensor (n, H, W) or a mapping by image id, not {self.masks!r:.80}")
        if isinstance(self.masks, Tensor) and self.masks.ndim != 3:
            raise ValueError(f"masks must be (n, H, W), not {tuple(self.masks.shape)}")

    @functools.cached_property
    def key(self) -> tuple[object, ...]:
        """By content: a tensor that was written on is another."""
        masks = {"": self.masks} if isinstance(self.masks, Tensor) else self.masks
        digest = hashlib.sha256()
        for name, mask in masks.items():
            mask = torch.as_tensor(mask)
            digest.update(f"{name} {mask.dtype} {tuple(mask.shape)}".encode())
            digest.update(mask.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return ("localization", digest.hexdigest()[:16])

    def about(self) -> dict[str, Any]:
        return {"masks": self.key[1]}

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        masks = self._of(batch).flatten(1)
        order, inside = batch.ranking.order, masks.sum(1)
        relevance = relevance_of(batch.heatmap)
        hits = masks.gather(1, order)  # of the pixels, most relevant first
        place = torch.arange(order.shape[1], device=order.device)
        return {
            "mass": (relevance * masks).sum(1) / relevance.sum(1),
            "rank": (hits & (place < inside[:, None])).sum(1).double() / inside,
            "pointing": hits[:, 0].double(),
            "share": masks.double().mean(1),  # what a random map is expected to get, of each kind
        }

    def _of(self, batch: Prepared) -> Tensor:
        """The masks of a batch (B, H, W), checked."""
        size = tuple(batch.images.shape[2:])
        if isinstance(self.masks, Tensor):
            given = list(self.masks[list(batch.positions)])
        else:
            missing = [str(i) for i in batch.image_ids if i not in self.masks]
            if missing:
                raise ValueError(f"masks has none for the images {', '.join(missing[:5])}")
            given = [torch.as_tensor(self.masks[i]) for i in batch.image_ids]
        for image_id, mask in zip(batch.image_ids, given, strict=True):
            if tuple(mask.shape) != size:
                raise ValueError(f"masks: that of image {image_id} is {tuple(mask.shape)}, the image {size}; resize it")
            if not ((mask == 0) | (mask == 1)).all():
                raise ValueError(
                    f"masks: that of image {image_id} holds other values than true and false; threshold it"
                )
        masks = torch.stack(given).to(batch.images.device, torch.bool)
        share = masks.flatten(1).double().mean(1)
        for words, bad in (("empty: nothing could be hit", share == 0), ("full: nothing could miss", share == 1)):
            if bad.any():
                ids = [str(i) for i, is_bad in zip(batch.image_ids, bad.tolist(), strict=True) if is_bad]
                raise ValueError(f"masks: that of images {', '.join(ids[:5])} is {words}; leave these images out")
        return masks


def localization_metric(kind: Kind) -> Metric:
    """The facts of one kind."""
    check_choice("kind", kind, ("mass", "rank", "pointing"))
    return Metric(
        f"localization_{kind}",
        "1608.00507" if kind == "pointing" else "2003.07258",
        lambda measured: measured[kind],
        range=(0.0, 1.0),
        caveat="asks whether the map points where people look; a network may decide by something else",
    )
