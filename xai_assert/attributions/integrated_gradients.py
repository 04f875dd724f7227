"""Integrated gradients (Sundararajan et al., 1703.01365)."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_assert.attributions.base import register_method
from xai_assert.attributions.baselines import Baseline, split, warn_if_near
from xai_assert.attributions.baselines import resolve_baseline as resolve_baseline
from xai_assert.attributions.gradients import input_gradient
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32


def _passes(steps: int = 200, baseline: Baseline = "black") -> tuple[int, int]:
    return 0, steps * len(split(baseline))


@register_method("integrated_gradients", gradient=True, passes=_passes)
def integrated_gradients(
    model: Subject, images: Tensor, target: Target, *, steps: int = 200, baseline: Baseline = "black"
) -> Tensor:
    """(x - b) times the mean gradient on the straight path from baseline b to x, by the midpoint rule.

    One step is one gradient pass of the batch, added up as it comes: memory does not grow with `steps`. Of several
    baselines it is the mean, with `steps` for each; a pixel that looks like one of them is then not lost.

    Args:
        model, images, target: as for every method; images (B, C, H, W).
        steps: points of the midpoint rule.
        baseline: "black", "white", "mean" (ImageNet's mean colour), "blurred" (the image itself, by 10 pixels), a
            tensor that broadcasts to one image, or several: "black+white", or a tuple.

    Raises:
        TypeError: a colour is asked for and the subject has no mean and std.

    Warns:
        NearBaselineWarning: an image is as its baseline in more than half of the pixels; its map is 0 there.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"integrated_gradients: steps must be a whole number of at least 1, not {steps!r}")
    starts = [resolve_baseline(model, images, what) for what in split(baseline)]
    warn_if_near(model, images, starts, baseline)
    found = torch.zeros_like(at_least_float32(images))  # in half precision the last steps would be rounded away
    for start in starts:
        path, total = images - start, torch.zeros_like(found)
        for step in range(steps):
            total += input_gradient(model, start + path * ((step + 0.5) / steps), target)
        found += path * total / steps
    return found / len(starts)
