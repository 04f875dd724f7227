"""ROAD: remove and debias (Rong et al., 2202.00449), as errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.packing import Steps
from xai_assert.perturbations import Perturbation, Perturbed, pixel_count

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, eq=False)
class RoadCell(Cell):
    """The errors after the most and the least relevant pixels were imputed, at several fractions."""

    perturbation: Perturbation
    fractions: tuple[float, ...] = FRACTIONS

    @property
    def key(self) -> tuple[object, ...]:
        return ("road", self.perturbation.key, self.fractions)

    @property
    def passes(self) -> Passes:
        return Passes(forward=2 * len(self.fractions))

    def check(self, size: tuple[int, int]) -> None:
        for fraction in self.fractions:
            pixel_count(fraction, size)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Steps[Measured]:
        order = batch.ranking.order
        counts = [pixel_count(fraction, batch.ranking.size) for fraction in self.fractions]
        parts = [*(order[:, :count] for count in counts), *(order[:, -count:] for count in counts)]
        errors = yield [batch.error_job(perturb, part) for part in parts]
        most, least = (torch.stack(side, 1) for side in (errors[: len(counts)], errors[len(counts) :]))
        return {"most": most, "least": least, "responsive": (most + least > 0).any(1)}

    def about(self) -> dict[str, Any]:
        return {"fractions": list(self.fractions)}


def as_fractions(fractions: Any) -> tuple[float, ...]:
    """Several fractions, in order; one alone is refused."""
    if isinstance(fractions, str) or not isinstance(fractions, Iterable):
        raise TypeError(f"fractions must be a list of numbers, not {fractions!r}")
    fractions = [fraction.item() if hasattr(fraction, "item") else fraction for fraction in fractions]
    if not fractions:
        raise ValueError("fractions is empty; give at least one, above 0 and at most 0.5")
    numbers = all(isinstance(fraction, int | float) for fraction in fractions)
    if not numbers or len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions must be numbers that differ from each other, not {list(fractions)!r}")
    return tuple(sorted(fractions))


ROAD = Metric(
    "road",
    "2202.00449",
    lambda measured: (measured["most"] - measured["least"]).mean(1),
    range=(-math.inf, math.inf),
    unit="error",
    chance=0.0,
    caveat="imputation guesses scattered pixels better than a region: a blurred map may score above the true one",
)
