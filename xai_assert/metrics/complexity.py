"""Complexity: over how many pixels the relevance is spread (entropy; Bhatt et al., 2005.00631)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.sparseness import relevance_of
from xai_assert.perturbations import Perturbed


@dataclass(frozen=True, eq=False)
class ComplexityCell(Cell):
    """The entropy of the heatmap; no pass."""

    @property
    def key(self) -> tuple[object, ...]:
        return ("complexity",)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        return {"complexity": entropy(relevance_of(batch.heatmap))}


def entropy(relevance: Tensor) -> Tensor:
    """Entropy of the rows of (B, n) as shares of their sum, over log n: 1 if all are equal, 0 for one alone; (B,).

    >>> entropy(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 7.0]])).tolist()
    [1.0, 0.0]
    """
    share = relevance.double() / relevance.double().sum(1, keepdim=True)
    terms: Tensor = torch.special.entr(share)
    return terms.sum(1) / math.log(relevance.shape[1])


COMPLEXITY = Metric(
    "complexity",
    "2005.00631",
    lambda measured: measured["complexity"],
    range=(0.0, 1.0),
    higher_is_better=False,
    caveat="judges the form of a map, not whether it is true: one hot pixel anywhere is as simple as the right one",
)
