"""Localisation: whether the relevance lies where it is known to belong.

Relevance mass and rank accuracy (Arras et al., 2003.07258), pointing game (Zhang et al., 1608.00507).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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

    @property
    def key(self) -> tuple[object, ...]:
        return ("localization", id(self.masks))

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        masks = self._of(batch).flatten(1)
        order, inside = batch.ranking.order, masks.sum(1)
        relevance = relevance_of(batch.heatmap)
        hits = masks.gather(1, order)  # of the pixels, most relevant first
        place = torch.arange(order.shape[1], device=order.device)
        return {
            "mass": (relevance * masks).sum(1) / relevance.sum(1),
            "rank": (hits & (place < inside[:, None])).sum(1) / inside,
            "pointing": hits[:, 0].double(),
            "share": masks.double().mean(1),  # what a random map is expected to get, of each kind
        }

    def _of(self, batch: Prepared) -> Tensor:
        """The masks of a batch (B, H, W), checked."""
        if isinstance(self.masks, Tensor):
            masks = self.masks[list(batch.positions)]
        else:
            missing = [str(i) for i in batch.image_ids if i not in self.masks]
            if missing:
                raise ValueError(f"masks has none for the images {', '.join(missing[:5])}")
            masks = torch.stack([torch.as_tensor(self.masks[i]) for i in batch.image_ids])
        size = tuple(batch.images.shape[2:])
        if tuple(masks.shape[1:]) != size:
            raise ValueError(f"masks are {tuple(masks.shape[1:])}, the images {size}; resize them to the images")
        masks = masks.to(batch.images.device, torch.bool)
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
