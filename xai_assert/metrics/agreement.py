"""Rank agreement: whether two methods rank the pixels alike ("the disagreement problem", 2202.01602)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xai_assert.attributions import Method, check_ranks
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.ranks import spearman
from xai_assert.perturbations import Perturbed


@dataclass(frozen=True, eq=False)
class AgreementCell(Cell):
    """Spearman's rank correlation with the heatmap of `other`, which is one explanation more."""

    other: Method

    @property
    def key(self) -> tuple[object, ...]:
        return ("agreement", self.other.key)

    @property
    def explanations(self) -> tuple[Method | None, ...]:
        return (self.other,)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        other = self.other.heatmap(batch.explain(method=self.other))
        check_ranks(other, batch.image_ids, self.other)
        return {"agreement": spearman(batch.heatmap.flatten(1), other.flatten(1))}

    def about(self) -> dict[str, Any]:
        return {"other": str(self.other)}


AGREEMENT = Metric(
    "rank_agreement",
    "2202.01602",
    lambda measured: measured["agreement"],
    range=(-1.0, 1.0),
    chance=0.0,
    caveat="two methods may agree and both be wrong; beside edges, it says how much of a map is just the picture",
)
