"""What is measured of a (subject, method): a cell is a perturbation with a fraction, or with groups for FE."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import TracebackType

from torch import Tensor

from xai_assert.metrics import faithfulness, fidelity
from xai_assert.metrics.faithfulness import GROUPS, Mode
from xai_assert.metrics.fidelity import Seen, check_choice
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.perturbations import Perturbation, pixel_count


@dataclass(frozen=True, eq=False)
class FidelityCell:
    """AF and ASR: R and I of `fraction` of the pixels are perturbed, two forward passes an image."""

    perturbation: Perturbation
    fraction: float = 0.05

    @property
    def key(self) -> tuple[object, ...]:
        return ("fidelity", self.perturbation.key, self.fraction)

    @property
    def forwards(self) -> int:
        return 2

    def check(self, size: tuple[int, int]) -> None:
        pixel_count(self.fraction, size)

    def measure(self, batch: Prepared, field: Tensor, seen: list[Seen] | None = None) -> Measured:
        return fidelity.measure(batch, field, self.fraction, seen)


@dataclass(frozen=True, eq=False)
class FaithfulnessCell:
    """FE: each of `groups` groups of pixels is perturbed, a forward pass each."""

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
    def forwards(self) -> int:
        return self.groups

    def check(self, size: tuple[int, int]) -> None:
        if self.groups > size[0] * size[1]:
            raise ValueError(f"groups={self.groups} is more than the {size[0]}x{size[1]} pixels of an image")

    def measure(self, batch: Prepared, field: Tensor, seen: list[Seen] | None = None) -> Measured:
        return faithfulness.measure(batch, field, self.groups, self.mode)


Cell = FidelityCell | FaithfulnessCell


@dataclass(frozen=True)
class Failure:
    """An exception that ended a cell, and the lines it came from without the tensors that were alive there."""

    error: Exception
    trace: TracebackType | None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        return cls(error, error.__traceback__)
