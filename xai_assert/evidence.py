"""What one cell did to one image, kept for the pictures of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from xai_assert.metrics.fidelity import Seen, errors, fidelity
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.randomness import ImageId
from xai_assert.subject import Card

Keep = Literal["none", "worst", "all"]
KEEP: tuple[Keep, ...] = get_args(Keep)


def checked_keep(word: str) -> Keep:
    """One of the words of `--xai-report-images`."""
    for known in KEEP:
        if word == known:
            return known
    raise ValueError(f"report-images must be one of {', '.join(KEEP)}, not {word!r}")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything on the CPU; images are as the network takes them, `card` says how to turn them into pictures.

    `image` (C, H, W) with its `heatmap` (H, W); `relevant` and `irrelevant` (H, W) are R and I as masks; `perturbed`
    the two pictures that the network was shown, R perturbed and I perturbed, (C, H, W) each; `clean` its prediction on
    the image and `predictions` those on `perturbed`, as the task reads them (depth: (H', W')). `value` is the AF
    against the prediction.
    """

    image_id: ImageId
    value: float
    image: Tensor
    heatmap: Tensor
    relevant: Tensor
    irrelevant: Tensor
    perturbed: tuple[Tensor, Tensor]
    clean: Tensor
    predictions: tuple[Tensor, Tensor]
    card: Card


@dataclass(frozen=True)
class Print:
    """Evidence that was made a picture at once (a WebP; empty if that failed), because all images are kept."""

    image_id: ImageId
    value: float
    webp: bytes


Kept = Evidence | Print
Develop = Callable[[Evidence], bytes]


class Keeper:
    """Keeps the evidence of the worst and of the best image of each cell, or of all, while the batches go by.

    Of all images what is kept is what `develop` makes of it: else memory would grow with the data set.
    """

    def __init__(self, which: Keep, card: Card, develop: Develop | None = None) -> None:
        self._which, self._card = which, card
        self._develop = develop if which == "all" else None
        self._kept: dict[Any, dict[ImageId, Kept]] = {}

    def take(self, cell: Any) -> list[Kept]:
        """What is kept of a cell, the worst image first; it is kept no longer."""
        return sorted(self._kept.pop(cell, {}).values(), key=lambda kept: kept.value)

    def look(self, cell: Any, prepared: Prepared, seen: Sequence[Seen], measured: Measured) -> None:
        """See one batch of a cell; a batch that is done again, because memory ran out, is kept once."""
        relevant, irrelevant, responsive = errors(measured, "prediction")
        values = torch.where(responsive, fidelity(relevant, irrelevant), 0.0).tolist()
        kept = self.take(cell)
        found: Sequence[int] = range(len(values))
        if self._which == "worst":
            low, high = (kept[0].value, kept[-1].value) if kept else (math.inf, -math.inf)
            ends = dict.fromkeys((min(found, key=values.__getitem__), max(found, key=values.__getitem__)))
            found = [i for i in ends if values[i] < low or values[i] > high]
        kept += [self._developed(self._evidence(i, values[i], prepared, seen)) for i in found]
        kept.sort(key=lambda evidence: evidence.value)
        kept = kept if self._which == "all" else [kept[0], kept[-1]]
        self._kept[cell] = {evidence.image_id: evidence for evidence in kept}

    def _developed(self, evidence: Evidence) -> Kept:
        if self._develop is None:
            return evidence
        return Print(evidence.image_id, evidence.value, self._develop(evidence))

    def _evidence(self, i: int, value: float, prepared: Prepared, seen: Sequence[Seen]) -> Evidence:
        def copy(of: Tensor) -> Tensor:
            return of[i].detach().cpu().clone()  # a view would keep the whole batch alive

        first, second = seen
        return Evidence(
            prepared.image_ids[i],
            value,
            copy(prepared.images),
            copy(prepared.heatmap),
            copy(first.mask[:, 0]),
            copy(second.mask[:, 0]),
            (copy(first.perturbed), copy(second.perturbed)),
            copy(prepared.clean),
            (copy(first.prediction), copy(second.prediction)),
            self._card,
        )
