"""Monocular depth: dense regression of one channel."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_assert.errors import ModelOutputError
from xai_assert.tasks.base import Target, Task, at_least_float32


class Depth(Task):
    """Dense regression of one channel: output (B, 1, H', W') or (B, H', W'), in the card's unit.

    Target: the mean of the predicted map. Error: RMSE over the map; against ground truth only where that is finite and
    not 0. An attack raises the mean squared error (the RMSE's gradient at zero error is NaN).
    """

    name = "depth"
    target_of_clean = False

    def read(self, output: Tensor) -> Tensor:
        if output.ndim == 4 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim != 3:
            raise ModelOutputError(
                f"a depth model must return (B, 1, H, W) or (B, H, W), not {tuple(output.shape)}; "
                "give xa.describe an output= that picks the depth map"
            )
        return at_least_float32(output)

    def target(self, clean: Tensor) -> Target:
        return depth_mean

    def error(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return (prediction - reference).square().flatten(1).mean(1).sqrt()

    def truth_error(self, prediction: Tensor, truth: Tensor) -> Tensor:
        return self.loss(prediction, truth).sqrt()

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        if prediction.shape != truth.shape:
            raise ValueError(
                f"ground_truth is {tuple(truth.shape[1:])} a sample, the output {tuple(prediction.shape[1:])}; "
                "metrics accept only the output's size: resize the depth in the data set (the card's output_size)"
            )
        known = torch.isfinite(truth) & (truth != 0)
        if not known.flatten(1).any(1).all():
            raise ValueError("ground_truth has a depth map without a single known pixel (all 0 or not finite)")
        squares = (prediction - truth.where(known, prediction)).square().flatten(1)
        return squares.sum(1) / known.flatten(1).sum(1)

    def magnitude(self, prediction: Tensor) -> Tensor:
        return prediction.abs().flatten(1).amax(1)

    def spread(self, prediction: Tensor) -> Tensor:
        return prediction.flatten(1).std(1, correction=0)


def depth_mean(output: Tensor) -> Tensor:
    """Mean of the predicted depth map, (B,)."""
    return output.flatten(1).mean(1)


def depth_in_box(top: int, left: int, bottom: int, right: int) -> Target:
    """Target: mean depth in rows top..bottom-1 and columns left..right-1 of the output."""

    def target(output: Tensor) -> Tensor:
        box = output[..., top:bottom, left:right]
        if not box.numel():
            raise ValueError(f"depth_in_box({top}, {left}, {bottom}, {right}) is empty in {tuple(output.shape)}")
        return box.flatten(1).mean(1)

    return target


def depth_in_mask(mask: Tensor) -> Target:
    """Target: mean depth where `mask` (H', W') is true."""
    if not mask.any():
        raise ValueError("depth_in_mask: the mask selects no pixel")

    def target(output: Tensor) -> Tensor:
        if output.shape[-2:] != mask.shape:
            raise ValueError(f"depth_in_mask: the mask is {tuple(mask.shape)}, the output {tuple(output.shape)}")
        return output[..., mask.to(output.device, torch.bool)].flatten(1).mean(1)

    return target


def depth_quantile(q: float) -> Target:
    """Target: the q-quantile of the predicted depth, 0 <= q <= 1."""
    if not 0 <= q <= 1:
        raise ValueError(f"depth_quantile: q must be between 0 and 1, not {q}")
    return lambda output: at_least_float32(output).flatten(1).quantile(q, dim=1)


def log_depth(output: Tensor) -> Tensor:
    """Target: mean of log depth; depths at or below 0 count as 1e-6."""
    return output.clamp(min=1e-6).log().flatten(1).mean(1)
