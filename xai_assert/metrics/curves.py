"""Curves of error over the share of pixels perturbed: deletion and insertion AUC (1806.07421), SRG (2401.06654).

Errors, not outputs, stand on the vertical axis, so the directions are turned round against the papers: the better the
map, the faster the error grows when the most relevant pixels go first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.packing import Steps
from xai_assert.perturbations import Perturbation, Perturbed

STEPS = 16


@dataclass(frozen=True, eq=False)
class CurveCell(Cell):
    """The errors at the fractions 1/steps, 2/steps, ... 1, the most and the least relevant pixels first.

    At 1 both have perturbed everything, so that pass is shared.
    """

    perturbation: Perturbation
    steps: int = STEPS

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 2:
            raise ValueError(f"steps must be a whole number of at least 2, not {self.steps!r}")

    @property
    def key(self) -> tuple[object, ...]:
        return ("curve", self.perturbation.key, self.steps)

    @property
    def passes(self) -> Passes:
        return Passes(forward=2 * self.steps - 1)

    def check(self, size: tuple[int, int]) -> None:
        if self.steps > size[0] * size[1]:
            raise ValueError(f"steps={self.steps} is more than the {size[0]}x{size[1]} pixels of an image")

    def measure(self, batch: Prepared, perturb: Perturbed) -> Steps[Measured]:
        order = batch.ranking.order
        pixels = order.shape[1]
        counts = [math.floor(pixels * step / self.steps + 0.5) for step in range(1, self.steps)]
        nothing = torch.zeros_like(batch.floor, dtype=batch.clean.dtype)
        parts = [order, *(order[:, :count] for count in counts), *(order[:, -count:] for count in counts)]
        everything, *errors = yield [batch.error_job(perturb, part) for part in parts]
        curves = {
            "most": torch.stack([nothing, *errors[: len(counts)], everything], 1),
            "least": torch.stack([nothing, *errors[len(counts) :], everything], 1),
        }
        return curves | {"responsive": (curves["most"] + curves["least"] > 0).any(1)}

    def about(self) -> dict[str, Any]:
        return {"steps": self.steps}


def auc(curve: Tensor) -> Tensor:
    """Area under curves (B, n) over [0, 1] by the trapezoidal rule, (B,).

    >>> auc(torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 2.0]])).tolist()
    [1.0, 1.5]
    """
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


DELETION_AUC = Metric(
    "deletion_auc",
    "1806.07421",
    lambda measured: auc(measured["most"]),
    range=(0.0, math.inf),
    unit="error",
)
# Putting the most relevant pixels back into a picture of which everything is perturbed passes through the same pictures
# as taking the least relevant ones away, only backwards: the two curves have one area.
INSERTION_AUC = Metric(
    "insertion_auc",
    "1806.07421",
    lambda measured: auc(measured["least"]),
    range=(0.0, math.inf),
    higher_is_better=False,
    unit="error",
)
SRG = Metric(
    "srg",
    "2401.06654",
    lambda measured: auc(measured["most"]) - auc(measured["least"]),
    unit="error",
    chance=0.0,
)
