"""What a model's output means: how to read it, the scalar that is explained, and how far apart two outputs are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from xai_assert.errors import ModelOutputError, UnknownNameError

Target = Callable[[Tensor], Tensor]


class Task(ABC):
    """The meaning of an output. A new one is this class with these seven methods; see `Depth`.

    Everything is per sample: B outputs give a tensor (B,). Errors are never negative and never clipped.

    >>> Depth().error(torch.zeros(2, 4, 4), torch.full((2, 4, 4), 3.0)).tolist()
    [3.0, 3.0]
    """

    name: str
    target_of_clean = True  # whether the default target depends on the prediction of the clean image

    @abstractmethod
    def read(self, output: Tensor) -> Tensor:
        """Check the output's shape and return the prediction that errors are taken of, in float32 or float64."""

    @abstractmethod
    def target(self, clean: Tensor) -> Target:
        """The default scalar to explain, as a function of the output; `clean` is the prediction on the clean image,
        and empty where `target_of_clean` says that it is not needed."""

    @abstractmethod
    def error(self, prediction: Tensor, reference: Tensor) -> Tensor:
        """Distance between two predictions, (B,)."""

    @abstractmethod
    def truth_error(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Distance from the ground truth, (B,)."""

    @abstractmethod
    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """What an attack with ground truth raises, (B,); differentiable also where the error is 0."""

    @abstractmethod
    def magnitude(self, prediction: Tensor) -> Tensor:
        """max |f(x)|, (B,): errors far below it are rounding."""

    @abstractmethod
    def spread(self, prediction: Tensor) -> Tensor:
        """The error of a prediction that lost all its structure, (B,): errors near it are saturated."""


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


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def for_rows(target: Target, rows: Tensor, count: int) -> Target:
    """The target of outputs that belong to these images (n,) of a batch of `count`.

    A target may know its batch (the class that was predicted of each image), so it is always given as many outputs, in
    their order; those of images that are not among the rows are copies, and their targets are left out.
    """
    if len(rows) == count and bool((rows == torch.arange(count, device=rows.device)).all()):
        return target
    groups = occurrences(rows.tolist())

    def chosen(output: Tensor) -> Tensor:
        values = []
        for group in groups:  # none of which holds an image twice
            here = torch.tensor(group, device=output.device)
            whole = output.detach()[:1].expand(count, *output.shape[1:]).index_copy(0, rows[here], output[here])
            values.append(target(whole)[rows[here]])
        order = torch.tensor([i for group in groups for i in group], device=output.device)
        return torch.cat(values)[order.argsort()]

    return chosen


def occurrences(rows: Sequence[int]) -> list[list[int]]:
    """The places of each value's first occurrence, then of each one's second, and so on.

    >>> occurrences([3, 3, 5, 3])
    [[0, 2], [1], [3]]
    """
    groups: list[list[int]] = []
    seen: dict[int, int] = {}
    for place, row in enumerate(rows):
        number = seen[row] = seen.get(row, -1) + 1
        if number == len(groups):
            groups.append([])
        groups[number].append(place)
    return groups


TASKS: dict[str, Callable[[], Task]] = {"depth": Depth}


def as_task(task: str | Task | None) -> Task | None:
    """A task by name or as it is; None stays None (a task is then asked for where an error is needed)."""
    if task is None or isinstance(task, Task):
        return task
    if task not in TASKS:
        raise UnknownNameError("task", str(task), TASKS)
    return TASKS[task]()
