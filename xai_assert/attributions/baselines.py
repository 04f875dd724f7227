"""Baselines of path methods: what a picture without information looks like, and pictures that look like it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from xai_assert.errors import NearBaselineWarning
from xai_assert.perturbations.blur import blurred
from xai_assert.subject import IMAGENET_MEAN, Subject

Baseline = str | Tensor | tuple[str | Tensor, ...]

COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "mean": IMAGENET_MEAN}
SIGMA = 10.0  # pixels, of "blurred", as the perturbation's
LEVELS = 3  # of 255 grey levels: what compression and sensor noise leave of black
LEVEL = 1 / 255 / 0.225  # a grey level in ImageNet standard deviations
# R and I have at most half of the pixels each: beyond half, all of I lies where the map is 0 whatever the gradient.
# Of 24 rendered rooms and 31 photographs the largest shares are .03 for black, .10 for white (the frame of NYU's), less
# than .01 for mean and, where walls are flat, .45 for blurred.
SHARE = 0.5


def split(baseline: Baseline) -> tuple[str | Tensor, ...]:
    """The baselines that are averaged over.

    >>> split("black+white")
    ('black', 'white')
    """
    if isinstance(baseline, str):
        return tuple(name.strip() for name in baseline.split("+"))
    if isinstance(baseline, tuple):
        return baseline or ("",)  # which is no baseline, and said to be none
    return (baseline,)


def resolve_baseline(model: Subject, images: Tensor, what: str | Tensor) -> Tensor:
    """One baseline as a tensor that broadcasts to the images (B, C, H, W); no image depends on the others of its batch.

    Args:
        model: whose card knows the colours.
        images: (B, C, H, W).
        what: "black", "white", "mean" (ImageNet's mean colour), "blurred" (the image itself, by 10 pixels), or a
            tensor that broadcasts to one image.

    Raises:
        TypeError: a colour is asked for and the subject has no mean and std.
        ValueError: an unknown baseline, or a tensor of another shape.
    """
    if isinstance(what, Tensor):
        try:
            return what.detach().to(images).broadcast_to(1, *images.shape[1:])
        except RuntimeError:
            shapes = f"{tuple(what.shape)} does not broadcast to one image {tuple(images.shape[1:])}"
            raise ValueError(f"integrated_gradients: baseline {shapes}") from None
    if what == "blurred":
        return blurred(images, SIGMA).to(images)
    if not isinstance(what, str) or what not in COLOURS:
        known = f"{', '.join(COLOURS)}, blurred, or a tensor; several as 'black+white' or a tuple"
        raise ValueError(f"integrated_gradients: unknown baseline {what!r}; known: {known}")
    return model.card.colour(COLOURS[what]).to(images)


def warn_if_near(model: Subject, images: Tensor, starts: Sequence[Tensor], baseline: Baseline) -> None:
    """Warn of images (B, C, H, W) that are as their baseline in most pixels, such as dark ones against black.

    Warns:
        NearBaselineWarning: naming the share of the pixels, and another baseline.
    """
    tolerance = LEVELS * LEVEL * model.card.strength(images.shape[1]).to(images)
    near = torch.stack([((images - start).abs() <= tolerance).all(1) for start in starts]).all(0)
    shares = near.flatten(1).float().mean(1)
    bad = int((shares > SHARE).sum())
    if not bad:
        return
    names = [what for what in split(baseline) if isinstance(what, str)]
    other = next((name for name in ("white", "black") if name not in names), "mean")
    warnings.warn(
        f"integrated_gradients: {bad} of {len(images)} images are as their baseline "
        f"{'+'.join(names) or 'tensor'} in more than half of the pixels ({float(shares.max()):.0%}, within {LEVELS} of "
        "255 grey levels); the map is about 0 there, whatever the gradient, and says nothing of them; use another "
        f"baseline, such as '{other}' or 'black+white'",
        NearBaselineWarning,
        stacklevel=3,
    )
