"""Integrated gradients (Sundararajan et al., 1703.01365)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from xai_assert.attributions.base import Explained, register_method
from xai_assert.attributions.baselines import Baseline, split, warn_if_near
from xai_assert.attributions.baselines import resolve_baseline as resolve_baseline
from xai_assert.attributions.gradients import input_gradient
from xai_assert.attributions.path_integral import FEWEST, integrate
from xai_assert.errors import NotConvergedWarning
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32

Steps = int | Literal["auto"]

TOLERANCE = 0.05
MOST = 500  # gradients an image; a METER needs 60 to 120 for the default tolerance


def _passes(steps: Steps = 200, baseline: Baseline = "black", **_: Any) -> tuple[int, int] | None:
    return None if steps == "auto" else (0, int(steps) * len(split(baseline)))


@register_method("integrated_gradients", gradient=True, passes=_passes)
def integrated_gradients(
    model: Subject,
    images: Tensor,
    target: Target,
    *,
    steps: Steps = 200,
    baseline: Baseline = "black",
    tolerance: float = TOLERANCE,
    most: int = MOST,
) -> Tensor | Explained:
    """(x - b) times the mean gradient on the straight path from baseline b to x.

    With a number of steps, by the midpoint rule: one step is one gradient pass of the batch, added up as it comes, so
    memory does not grow with it. With `steps="auto"` each image gets the gradients that it needs, placed where its map
    still changes (`xai_assert.attributions.path_integral`); how many these were, the completeness gap and the map
    change stand beside the scores. Of several baselines it is the mean, with `steps` for each; a pixel that looks like
    one of them is then not lost.

    Args:
        model, images, target: as for every method; images (B, C, H, W).
        steps: points of the midpoint rule, or "auto".
        baseline: "black", "white", "mean" (ImageNet's mean colour), "blurred" (the image itself, by 10 pixels), a
            tensor that broadcasts to one image, or several: "black+white", or a tuple.
        tolerance: with "auto", of the gap and of the map change, both relative.
        most: with "auto", gradients an image (and baseline) after which it is enough, at least 17.

    Raises:
        TypeError: a colour is asked for and the subject has no mean and std.

    Warns:
        NearBaselineWarning: an image is as its baseline in more than half of the pixels; its map is 0 there.
        NotConvergedWarning: with "auto", an image is above the tolerance after `most` gradients.
    """
    _check(steps, tolerance, most)
    starts = [resolve_baseline(model, images, what) for what in split(baseline)]
    warn_if_near(model, images, starts, baseline)
    if steps == "auto":
        return _adaptive(model, images, target, starts, tolerance, most)
    found = _midpoint(model, images, target, starts[0], steps)
    for start in starts[1:]:
        found += _midpoint(model, images, target, start, steps)
    return found / len(starts)


def _midpoint(model: Subject, images: Tensor, target: Target, start: Tensor, steps: int) -> Tensor:
    """One tensor is kept beside what a gradient needs: of a small network these are no small part of its memory."""
    total = torch.zeros_like(at_least_float32(images))  # in half precision the last steps would be rounded away
    for step in range(steps):
        total += input_gradient(model, torch.lerp(start, images, (step + 0.5) / steps), target)
    return total.mul_(images - start).div_(steps)


def _adaptive(
    model: Subject, images: Tensor, target: Target, starts: Sequence[Tensor], tolerance: float, most: int
) -> Explained:
    each = [integrate(model, images, start, target, tolerance=tolerance, most=most) for start in starts]
    details = {
        "ig_gradients": torch.stack([one.gradients for one in each]).sum(0),
        "ig_gap": torch.stack([one.gap for one in each]).amax(0),
        "ig_map_change": torch.stack([one.map_change for one in each]).amax(0),
    }
    above = torch.maximum(details["ig_gap"], details["ig_map_change"]) > tolerance
    if above.any():
        warnings.warn(
            f"integrated_gradients: {int(above.sum())} of {len(images)} images are above the tolerance of {tolerance} "
            f"after {most} gradients (gap up to {float(details['ig_gap'].max()):.2g}, map change up to "
            f"{float(details['ig_map_change'].max()):.2g}); allow more with most=, or a larger tolerance=",
            NotConvergedWarning,
            stacklevel=3,
        )
    return Explained(torch.stack([one.integral for one in each]).mean(0), details)


def _check(steps: Steps, tolerance: float, most: int) -> None:
    if steps != "auto" and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ValueError(f"integrated_gradients: steps must be 'auto' or a whole number of at least 1, not {steps!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise ValueError(f"integrated_gradients: tolerance must be above 0 and below 1, not {tolerance!r}")
    if isinstance(most, bool) or not isinstance(most, int) or most < FEWEST:
        raise ValueError(f"integrated_gradients: most must be a whole number of at least {FEWEST}, not {most!r}")
    if steps != "auto" and (tolerance, most) != (TOLERANCE, MOST):
        raise ValueError(f"integrated_gradients: tolerance= and most= go with steps='auto', not with steps={steps}")
