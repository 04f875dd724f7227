"""One batch, explained and ranked: what every metric starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from xai_assert.perturbations import Ranking
from xai_assert.tasks import Task

Measured = dict[str, Tensor]  # per-image scalars, (B,)


@dataclass(frozen=True)
class Prepared:
    """Everything that is known of a batch before it is perturbed.

    `images` (B, C, H, W) on the subject's device; `predict` one forward pass, read by the task, without gradient;
    `clean` = predict(images); `truth` (B, H', W') or None; `floor` (B,) the error below which a change is rounding;
    `unit` (1, C, 1, 1) one ImageNet standard deviation in the input.
    """

    images: Tensor
    predict: Callable[[Tensor], Tensor]
    task: Task
    clean: Tensor
    truth: Tensor | None
    floor: Tensor
    unit: Tensor
    attribution: Tensor
    heatmap: Tensor
    ranking: Ranking
