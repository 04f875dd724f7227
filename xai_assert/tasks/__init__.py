"""What a model's output means: how to read it, the scalar that is explained, and how far apart two outputs are."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xai_assert.errors import UnknownNameError
from xai_assert.tasks.base import Target, Task, at_least_float32, for_rows, occurrences
from xai_assert.tasks.classes import Classification, Segmentation, class_in_mask, class_log_probability, class_logit
from xai_assert.tasks.depth import Depth, depth_in_box, depth_in_mask, depth_mean, depth_quantile, log_depth

__all__ = [
    "TASKS",
    "Classification",
    "Depth",
    "Segmentation",
    "Target",
    "Task",
    "as_task",
    "at_least_float32",
    "class_in_mask",
    "class_log_probability",
    "class_logit",
    "depth_in_box",
    "depth_in_mask",
    "depth_mean",
    "depth_quantile",
    "for_rows",
    "infer_task",
    "log_depth",
    "occurrences",
]

TASKS: dict[str, Callable[[], Task]] = {
    "depth": Depth,
    "classification": Classification,
    "segmentation": Segmentation,
}


def as_task(task: str | Task | None) -> Task | None:
    """A task by name or as it is; None stays None (a task is then asked for where an error is needed)."""
    if task is None or isinstance(task, Task):
        return task
    if task not in TASKS:
        raise UnknownNameError("task", str(task), TASKS)
    return TASKS[task]()


def infer_task(output: Tensor) -> Task | None:
    """The task of an output that can be no other: (B, K) is a classification, (B, K, H, W) a segmentation, K at least
    2. Of one channel nobody knows what it means.

    >>> import torch
    >>> infer_task(torch.zeros(1, 10)).name, infer_task(torch.zeros(1, 1, 4, 4))
    ('classification', None)
    """
    if output.ndim in (2, 4) and output.shape[1] >= 2:
        return Classification() if output.ndim == 2 else Segmentation()
    return None
