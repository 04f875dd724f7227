"""Integrated gradients (Sundararajan et al., 1703.01365)."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_assert.attributions.base import register_method
from xai_assert.attributions.gradients import input_gradient
from xai_assert.subject import IMAGENET_MEAN, Subject
from xai_assert.tasks import Target, at_least_float32

BASELINES = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "mean": IMAGENET_MEAN}


@register_method("integrated_gradients", gradient=True, passes=lambda steps=200, **_: (0, steps))
def integrated_gradients(
    model: Subject, images: Tensor, target: Target, *, steps: int = 200, baseline: str | Tensor = "black"
) -> Tensor:
    """(x - b) times the mean gradient on the straight path from baseline b to x, by the midpoint rule.

    One step is one gradient pass of the batch, added up as it comes: memory does not grow with `steps`.

    Args:
        model, images, target: as for every method; images (B, C, H, W).
        steps: points of the midpoint rule.
        baseline: "black", "white", "mean" (ImageNet's mean colour), or a tensor that broadcasts to one image.

    Raises:
        TypeError: a colour is asked for and the subject has no mean and std.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"integrated_gradients: steps must be a whole number of at least 1, not {steps!r}")
    start = resolve_baseline(model, images, baseline)
    path = images - start
    total = torch.zeros_like(at_least_float32(images))  # in half precision the last steps would be rounded away
    for step in range(steps):
        total += input_gradient(model, start + path * ((step + 0.5) / steps), target)
    return path * total / steps


def resolve_baseline(model: Subject, images: Tensor, baseline: str | Tensor) -> Tensor:
    """The baseline as a tensor that broadcasts to the images, the same for each: batches are not the caller's."""
    if isinstance(baseline, Tensor):
        try:
            return baseline.to(images).broadcast_to(1, *images.shape[1:])
        except RuntimeError:
            shapes = f"{tuple(baseline.shape)} does not broadcast to one image {tuple(images.shape[1:])}"
            raise ValueError(f"integrated_gradients: baseline {shapes}") from None
    if not isinstance(baseline, str) or baseline not in BASELINES:
        known = ", ".join(BASELINES)
        raise ValueError(f"integrated_gradients: unknown baseline {baseline!r}; known: {known}, or a tensor")
    return model.card.colour(BASELINES[baseline]).to(images)
