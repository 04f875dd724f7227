"""What every task says of a model's output, and helpers for targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Target = Callable[[Tensor], Tensor]


class Task(ABC):
    """The meaning of an output. A new one is this class with these seven methods; see `Depth`, and docs/tasks.md.

    Everything is per sample: B outputs give a tensor (B,). Errors are never negative and never clipped.

    >>> from xai_assert.tasks import Depth
    >>> Depth().error(torch.zeros(2, 4, 4), torch.full((2, 4, 4), 3.0)).tolist()
    [3.0, 3.0]
    """

    name: str
    target_of_clean = True  # whether the default target depends on the prediction of the clean image
    attack_lowers_target = False  # whether an attack without ground truth lowers the target, or raises it

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
