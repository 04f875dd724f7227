"""Faithfulness estimate (FE; Alvarez-Melis & Jaakkola, 1806.07538)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.fidelity import check_choice
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.score import Score
from xai_assert.packing import Steps
from xai_assert.perturbations import Perturbation, Perturbed
from xai_assert.randomness import ImageId

Mode = Literal["single", "cumulative"]
GROUPS = 16
ROUNDING = 1e-9  # of the largest value: what spreads less is constant in float64


FE = Metric(
    "fe",
    "1806.07538",
    range=(-1.0, 1.0),
    caveat="correlates the map's values, not only their order: of two noisy maps the noisier one may score higher",
)
FE_CUMULATIVE = Metric(
    "fe_cumulative",
    "1806.07538",
    range=(-1.0, 1.0),
    caveat="the sums and the errors of growing sets grow together under any map: a random one scores near 1",
)


@dataclass(frozen=True, eq=False)
class FaithfulnessCell(Cell):
    """FE: each of `groups` groups of pixels is perturbed."""

    perturbation: Perturbation
    groups: int = GROUPS
    mode: Mode = "single"

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("single", "cumulative"))
        if not isinstance(self.groups, int) or self.groups < 2:
            raise ValueError(f"groups must be a whole number of at least 2, not {self.groups!r}")

    @property
    def key(self) -> tuple[object, ...]:
        return ("faithfulness", self.perturbation.key, self.groups, self.mode)

    @property
    def passes(self) -> Passes:
        return Passes(forward=self.groups)

    def check(self, size: tuple[int, int]) -> None:
        if self.groups > size[0] * size[1]:
            raise ValueError(f"groups={self.groups} is more than the {size[0]}x{size[1]} pixels of an image")

    def measure(self, batch: Prepared, perturb: Perturbed) -> Steps[Measured]:
        return measure(batch, perturb, self.groups, self.mode)

    def about(self) -> dict[str, Any]:
        return {"groups": self.groups, "mode": self.mode}


def measure(batch: Prepared, perturb: Perturbed, groups: int, mode: Mode) -> Steps[Measured]:
    """Perturb each group of pixels alone, or one after another from the most relevant on: `groups` forward passes."""
    order = batch.ranking.order
    relevance = batch.heatmap.double().flatten(1).gather(1, order)
    ends = [part.shape[1] for part in order[:1].tensor_split(groups, dim=1)]
    ends = list(itertools.accumulate(ends))
    starts = [0, *ends[:-1]] if mode == "single" else [0] * groups
    errors = yield [batch.error_job(perturb, order[:, a:b]) for a, b in zip(starts, ends, strict=True)]
    summed = torch.stack([part.sum(1) for part in relevance.tensor_split(groups, dim=1)], 1)
    summed = summed.cumsum(1) if mode == "cumulative" else summed
    value, constant = pearson(summed, torch.stack(errors, 1).double())
    return {"fe": value, "constant": constant}


def pearson(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of the rows of (B, n) tensors, and where one of them is constant (the correlation is 0 there).

    >>> x = torch.tensor([[1.0, 2.0, 3.0]]).double()
    >>> pearson(x, -x)[0].tolist()
    [-1.0]
    """
    scales = [t.abs().amax(1, keepdim=True) for t in (x, y)]
    x, y = (t / s.where(s > 0, torch.ones_like(s)) for t, s in zip((x, y), scales, strict=True))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    constant = (x.abs().amax(1) <= ROUNDING) | (y.abs().amax(1) <= ROUNDING)
    norm = (x.square().sum(1) * y.square().sum(1)).sqrt()
    value = (x * y).sum(1) / norm.where(~constant, torch.ones_like(norm))
    return value.where(~constant, torch.zeros_like(value)).clamp(-1, 1), constant


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FaithfulnessScore(Score):
    """FE of every image. `constant` (n,) marks those where relevance or error did not vary: their FE is 0.

    >>> from xai_assert.evaluation import Evaluation
    >>> ev = Evaluation(torch.nn.Conv2d(3, 1, 1), torch.rand(4, 3, 8, 8), task="depth")
    >>> ev.faithfulness_estimate("edges").degenerate
    0
    """

    constant: Tensor
    groups: int
    mode: Mode

    @classmethod
    def build(
        cls,
        measured: Measured,
        image_ids: tuple[ImageId, ...],
        *,
        groups: int,
        mode: Mode,
        provenance: dict[str, Any],
    ) -> FaithfulnessScore:
        """From what `measure` returned for all images."""
        facts = FE if mode == "single" else FE_CUMULATIVE
        return cls(
            measured["fe"],
            image_ids,
            facts.name,
            provenance=provenance,
            range=facts.range,
            caveat=facts.caveat,
            constant=measured["constant"].bool(),
            groups=groups,
            mode=mode,
        )

    @property
    def degenerate(self) -> int:
        """Images without variance."""
        return int(self.constant.sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {"groups": self.groups, "mode": self.mode, "degenerate": self.degenerate}
