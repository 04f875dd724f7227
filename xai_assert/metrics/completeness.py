"""Completeness (Sundararajan et al., 1703.01365): an attribution's values add up to f(x) - f(baseline)."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_assert import registry
from xai_assert.attributions import Method
from xai_assert.attributions.baselines import Baseline, resolve_baseline, split
from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.packing import Job, Steps
from xai_assert.perturbations import Perturbed

FLOOR = (
    0.01  # of the larger target: where f(x) and f(b) are as near as that, a gap relative to their difference blows up
)
NOTHING = 1e-12  # the floor where both targets are 0


@dataclass(frozen=True, eq=False)
class CompletenessCell(Cell):
    """The gap between the sum of the attribution and f(x) - f(b): one forward pass a baseline.

    `baseline` None is the method's, taken to be one; of several f(b) is the mean.
    """

    baseline: Baseline | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return ("completeness", registry.parameters_key({"baseline": self.baseline}))

    @property
    def passes(self) -> Passes:
        return Passes(forward=1 if self.baseline is None else len(split(self.baseline)))

    def measure(self, batch: Prepared, perturb: Perturbed) -> Steps[Measured]:
        wanted = baseline_of(batch.method) if self.baseline is None else self.baseline
        baselines = [resolve_baseline(batch.subject, batch.images, what) for what in split(wanted)]
        values = yield [
            Job(functools.partial(b.expand_as, batch.images), lambda images, output: batch.target(output))
            for b in baselines
        ]
        reference = torch.stack(values).mean(0)
        total = batch.attribution.double().flatten(1).sum(1)
        return {"gap": gap(total, batch.clean_target, reference), "change": batch.clean_target - reference}

    def about(self) -> dict[str, Any]:
        if self.baseline is None:  # the method says it
            return {}
        return {"baseline": self.baseline if isinstance(self.baseline, str) else "given"}


COMPLETENESS = Metric(
    "completeness",
    "1703.01365",
    lambda measured: measured["gap"],
    range=(0.0, float("inf")),
    higher_is_better=False,
    reads="attribution",
    caveat="a sum can be right by luck, and says nothing of where the relevance lies",
)


def gap(total: Tensor, value: Tensor, reference: Tensor) -> Tensor:
    """|total - (value - reference)| / |value - reference|, (B,) float64; of at least a hundredth of the larger one.

    >>> gap(torch.tensor([6.0]), torch.tensor([9.0]), torch.tensor([1.0])).tolist()
    [0.25]
    """
    total, value, reference = total.double(), value.double(), reference.double()
    change = value - reference
    floor = FLOOR * torch.maximum(value.abs(), reference.abs())
    return (total - change).abs() / torch.maximum(change.abs(), floor).clamp(min=NOTHING)


def baseline_of(method: Method) -> Any:
    """The baseline that a method works with: its parameter of that name, given or by default; else black."""
    declared = inspect.signature(method.function).parameters.get("baseline")
    default = "black" if declared is None or declared.default is inspect.Parameter.empty else declared.default
    given = method.parameters.get("baseline", method.parameters.get("baselines", default))  # Captum's word
    return torch.tensor(float(given)) if isinstance(given, int | float) else given
