"""Input-shift invariance (Kindermans et al., 1711.00867): a constant that the model takes away is no explanation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from xai_assert.attributions import Method
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.sensitivity import relative_change
from xai_assert.perturbations import Perturbed
from xai_assert.perturbations.base import positive
from xai_assert.preserve import hooks

SHIFT = 1.0  # ImageNet standard deviations, in every channel


@dataclass(frozen=True, eq=False)
class InputShiftCell(Cell):
    """The heatmap of g(x) = f(x - s) at x + s against that of f at x: one explanation."""

    shift: float = SHIFT

    def __post_init__(self) -> None:
        positive("shift", self.shift)

    @property
    def key(self) -> tuple[object, ...]:
        return ("input_shift", self.shift)

    @property
    def explanations(self) -> tuple[Method | None, ...]:
        return (None,)

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        constant = self.shift * batch.unit
        # a hook and not a wrapper: the module keeps its layers' names and its attention. First of all hooks, because
        # one that is there already (a normalisation, say) is part of f
        taken = batch.subject.explained.module.register_forward_pre_hook(taking_away(constant), prepend=True)
        with hooks(taken):
            shifted = batch.explain(batch.images + constant)
        return {"input_shift": relative_change(batch.heatmap, batch.method.heatmap(shifted))}

    def about(self) -> dict[str, Any]:
        return {"shift": self.shift}


INPUT_SHIFT = Metric(
    "input_shift",
    "1711.00867",
    lambda measured: measured["input_shift"],
    range=(0.0, float("inf")),
    higher_is_better=False,
    caveat="a fixed baseline is another colour after the shift: integrated gradients vary by design",
)


def taking_away(constant: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that makes f(x - constant) of f(x)."""
    return lambda module, inputs: (inputs[0] - constant, *inputs[1:])
