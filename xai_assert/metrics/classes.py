"""How often predicted classes are right, of pictures or of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_assert.tasks.classes import known


def class_accuracy(output: Tensor, truth: Tensor) -> dict[str, float]:
    """The share of known labels that are hit; of a segmentation also the mean intersection over union, over all pixels
    of a class at once and the classes that occur among the labels.

    Args:
        output: logits (B, K) or (B, K, H, W).
        truth: labels (B,) or (B, H, W); 255 or below 0 where unknown.

    Raises:
        ValueError: labels of another shape, or of a class that there is not.

    >>> rows = torch.eye(3)[None, :, :, None].expand(1, 3, 3, 2)  # class k in row k
    >>> class_accuracy(rows, torch.tensor([[[0, 0], [1, 0], [2, 255]]]))  # 4 of 5; 2/3, 1/2 and 1/1
    {'accuracy': 0.8, 'mean_iou': 0.7222222222222222}
    """
    here = known(output, truth)
    label, answer = truth[here].long(), output.argmax(1)[here]
    found = {"accuracy": (label == answer).double().mean().item()}
    if output.ndim == 4:
        there = [k for k in range(output.shape[1]) if bool((label == k).any())]
        both = torch.stack([(label == k) & (answer == k) for k in there]).sum(1)
        either = torch.stack([(label == k) | (answer == k) for k in there]).sum(1)
        found["mean_iou"] = (both / either.double()).mean().item()
    return found
