"""What is measured of a (subject, method) on each batch: the base of every metric's cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from xai_assert.attributions import Method
from xai_assert.batching import Passes
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.packing import Steps
from xai_assert.perturbations import Perturbation, Perturbed


class Cell(ABC):
    """A measurement with its parameters. A new metric is a frozen dataclass of this class with its own `measure`.

    The evaluation gives it batches that are explained already, and adds up what the cells of a method need, so each
    says what it costs beside the clean forward pass, the method's own attribution and the perturbation's gradients.

    >>> from xai_assert.metrics.fidelity import FidelityCell
    >>> from xai_assert.perturbations import perturbation
    >>> FidelityCell(perturbation("black"), 0.1).passes
    Passes(forward=2, gradient=0)
    """

    perturbation: Perturbation | None = None  # what the selected pixels become; None if nothing is perturbed so

    @property
    @abstractmethod
    def key(self) -> tuple[object, ...]:
        """Equal for two cells that would measure the same."""

    @property
    def passes(self) -> Passes:
        """Forward and gradient passes an image."""
        return Passes()

    @property
    def explanations(self) -> tuple[Method | None, ...]:
        """More attributions an image: of these methods, None being the method that is judged."""
        return ()

    def check(self, size: tuple[int, int]) -> None:  # noqa: B027  (most have nothing to refuse)
        """Refuse parameters that do not go with images of this size, (height, width)."""

    @abstractmethod
    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured | Steps[Measured]:
        """Measure one batch: tensors (B,), or (B, n) where one number an image does not do.

        `perturb(mask)` are the images with the pixels of `mask` (B, 1, H, W) perturbed. A generator yields its forward
        passes as jobs (`batch.job`) and is sent what they read: they share full batches with those of other cells. A
        plain function may call `batch.predict` instead, one batch of its own at a time.
        """

    def about(self) -> dict[str, Any]:
        """Its parameters, for the provenance of the score, as plain JSON types."""
        return {}
