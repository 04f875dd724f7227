"""Sparseness: how much of the relevance lies on few pixels (Gini index; Chalasani et al., 1810.06583)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.perturbations import Perturbed


@dataclass(frozen=True, eq=False)
class SparsenessCell(Cell):
    """The Gini index of the heatmap; no pass."""

    @property
    def key(self) -> tuple[object, ...]:
        return ("sparseness",)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        return {"sparseness": gini(relevance_of(batch.heatmap))}


def gini(relevance: Tensor) -> Tensor:
    """The Gini index of the rows of (B, n), not negative: 0 if all are equal, 1 - 1/n if one has everything; (B,).

    >>> gini(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 7.0]])).tolist()
    [0.0, 0.75]
    """
    ascending, n = relevance.double().sort(dim=1).values, relevance.shape[1]
    place = torch.arange(1, n + 1, device=relevance.device, dtype=torch.float64)
    return ((2 * place - n - 1) * ascending).sum(1) / (n * ascending.sum(1))


def relevance_of(heatmap: Tensor) -> Tensor:
    """A heatmap (B, H, W) as relevance that is not negative, (B, H*W) float64.

    Of a method that means negative values (signed="as_is"), the least relevant pixel counts as 0.
    """
    flat = heatmap.double().flatten(1)
    return flat - flat.amin(1, keepdim=True).clamp(max=0)


SPARSENESS = Metric(
    "sparseness",
    "1810.06583",
    lambda measured: measured["sparseness"],
    range=(0.0, 1.0),
    caveat="judges the form of a map, not whether it is true: one hot pixel anywhere is as sparse as the right one",
)
