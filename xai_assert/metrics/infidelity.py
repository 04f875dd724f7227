"""Infidelity (Yeh et al., 1901.09392): how badly an attribution predicts what perturbations do to the target."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import FLOOR_FLOAT, Measured, Prepared
from xai_assert.packing import Job, Steps
from xai_assert.perturbations import Perturbation, Perturbed
from xai_assert.randomness import ImageId, generator

# Of the shorter side. Of noise in patches of half of it the gradients of two METERs (scenes, NYU; 6 images each) leave
# .65 and .90 unexplained, a random map .84 and .99; with a quarter it is .94 and .86 against .93 and .98.
SIZE = 0.5
SAMPLES = 16


@dataclass(frozen=True, eq=False)
class InfidelityCell(Cell):
    """Infidelity over `samples` random square patches: one forward pass each."""

    perturbation: Perturbation
    size: float = SIZE
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        if not isinstance(self.size, int | float) or not 0 < self.size < 1:
            raise ValueError(f"size must be a share of the image's shorter side, above 0 and below 1, not {self.size}")

    @property
    def key(self) -> tuple[object, ...]:
        return ("infidelity", self.perturbation.key, self.size, self.samples)

    @property
    def passes(self) -> Passes:
        return Passes(forward=self.samples)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Steps[Measured]:
        expected, change = yield from explained_changes(batch, perturb, self.size, self.samples)
        # The target of unmoved output has the same bits, so its floor is that of float32 in any precision: in half
        # precision the floor of maps would hide half of what an average of them does.
        floor = FLOOR_FLOAT * batch.task.magnitude(batch.clean)[:, None]
        moved = change.where(change.abs() > floor, torch.zeros_like(change))
        return {
            "infidelity": (expected - change).square().mean(1),
            "unexplained": unexplained(expected, moved),
            "responsive": (moved != 0).any(1),
        }

    def about(self) -> dict[str, Any]:
        return {"size": self.size, "samples": self.samples}


INFIDELITY = Metric(
    "infidelity",
    "1901.09392",
    lambda measured: measured["unexplained"],
    range=(0.0, 1.0),
    higher_is_better=False,
    reads="attribution",
    caveat="judges an attribution as a slope: one multiplied by the input (IG) answers another question, and loses; "
    "fillers that change all pixels one way (black) are explained by any positive map; ask for beats='random'",
)
RAW_INFIDELITY = Metric(
    "infidelity_raw",
    "1901.09392",
    lambda measured: measured["infidelity"],
    range=(0.0, float("inf")),
    higher_is_better=False,
    reads="attribution",
    caveat="in squared units of the target, and of the attribution's scale: no two methods or models compare",
)


def explained_changes(batch: Prepared, perturb: Perturbed, size: float, samples: int) -> Steps[tuple[Tensor, Tensor]]:
    """What the attribution says of each perturbation, I . A, and what the target did, f(x) - f(x - I); (B, samples).

    I = x - perturbed. A map (B, H, W) stands for every channel alike: it multiplies the sum of I over the channels.
    """
    images = batch.images
    attribution = batch.attribution if batch.attribution.ndim == 4 else batch.attribution[:, None]

    def pictures(sample: int) -> Tensor:
        purpose = f"infidelity {sample}"
        return perturb(random_patches(images, size, seed=batch.seed, image_ids=batch.image_ids, purpose=purpose))

    def read(perturbed: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        expected = ((images - perturbed).double() * attribution.double()).flatten(1).sum(1)
        return expected, batch.clean_target.double() - batch.target(output).double()

    found = yield [Job(functools.partial(pictures, sample), read) for sample in range(samples)]
    expected, changes = zip(*found, strict=True)
    return torch.stack(expected, 1), torch.stack(changes, 1)


def unexplained(expected: Tensor, change: Tensor) -> Tensor:
    """Share of the squared changes (B, n) that the expected ones leave at their best scale s >= 0, (B,) in [0, 1].

    min_s sum (s expected - change)^2 / sum change^2. A negative scale would call an inverted map faithful. Where
    nothing changed there was nothing to explain: 1.

    >>> change = torch.tensor([[1.0, -2.0, 3.0]]).double()
    >>> unexplained(7 * change, change).tolist(), unexplained(-change, change).tolist()
    ([0.0], [1.0])
    """
    expected, change = (
        t / t.abs().amax(1, keepdim=True).clamp(min=torch.finfo(t.dtype).tiny) for t in (expected, change)
    )
    norm = (expected.square().sum(1) * change.square().sum(1)).sqrt()
    cosine = (expected * change).sum(1) / norm.where(norm > 0, torch.ones_like(norm))
    return 1 - cosine.clamp(0, 1).square()


def random_patches(images: Tensor, size: float, *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """One square patch an image that lies inside it, anywhere with the same chance; (B, 1, H, W) bool.

    >>> mask = random_patches(torch.zeros(2, 3, 8, 6), 0.5, seed=0, image_ids=["a", "b"], purpose="example")
    >>> mask.flatten(1).sum(1).tolist()
    [9, 9]
    """
    height, width = images.shape[-2:]
    side = max(1, int(size * min(height, width) + 0.5))
    mask = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    for row, image_id in enumerate(image_ids):
        random = generator(seed, image_id, purpose)
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        mask[row, :, top : top + side, left : left + side] = True
    return mask.to(images.device)


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
