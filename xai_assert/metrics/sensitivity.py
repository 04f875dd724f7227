"""Max-sensitivity (Yeh et al., 1901.09392): how far an attribution moves under changes that nobody would see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_assert import randomness
from xai_assert.attributions import Method
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.infidelity import check_count
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.perturbations import Perturbed
from xai_assert.perturbations.base import positive

RADIUS = 0.1  # ImageNet standard deviations: about 6 of 255 grey levels
SAMPLES = 10


@dataclass(frozen=True, eq=False)
class SensitivityCell(Cell):
    """Max-sensitivity over `samples` draws from the L-inf ball of `radius`: one explanation each."""

    radius: float = RADIUS
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        positive("radius", self.radius)
        check_count("samples", self.samples)

    @property
    def key(self) -> tuple[object, ...]:
        return ("max_sensitivity", self.radius, self.samples)

    @property
    def explanations(self) -> tuple[Method | None, ...]:
        return (None,) * self.samples

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        largest = torch.zeros(len(batch.images), dtype=torch.float64, device=batch.images.device)
        for sample in range(self.samples):
            there = batch.explain(batch.images + self.radius * batch.unit * directions(batch, sample))
            largest = torch.maximum(largest, relative_change(batch.attribution, there))
        return {"max_sensitivity": largest}

    def about(self) -> dict[str, Any]:
        return {"radius": self.radius, "samples": self.samples}


MAX_SENSITIVITY = Metric(
    "max_sensitivity",
    "1901.09392",
    lambda measured: measured["max_sensitivity"],
    range=(0.0, float("inf")),
    higher_is_better=False,
    reads="attribution",
    caveat="a map that ignores the image is perfectly stable: look at a fidelity beside it",
)


def directions(batch: Prepared, sample: int) -> Tensor:
    """Uniform in [-1, 1), like the images (B, C, H, W), keyed by image."""
    drawn = randomness.uniform(
        batch.images.shape[1:], seed=batch.seed, image_ids=batch.image_ids, purpose=f"max sensitivity {sample}"
    )
    return (2 * drawn - 1).to(batch.images)


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """||after - before|| / ||before|| of each image, (B,) float64; where `before` is 0 everywhere, ||after||.

    >>> relative_change(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 9.0]])).tolist()
    [1.0]
    """
    before, after = before.double().flatten(1), after.double().flatten(1)
    norm = before.square().sum(1).sqrt()
    return (after - before).square().sum(1).sqrt() / norm.where(norm > 0, torch.ones_like(norm))
