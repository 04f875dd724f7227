"""The same works with Captum and with Quantus. Both may be absent; what cannot do a work says why."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import bare
from benchmarks.measuring import Contender
from benchmarks.networks import Setup

POINTS, PATCHES, DRAWS, RADIUS = 16, 16, 10, 0.1  # our defaults: FE and curves, infidelity, max-sensitivity
NEEDED = {"captum": ("captum",), "quantus": ("quantus", "cv2")}
NO_TARGET = "judges one number of a classifier; it has no AF, no ends of a ranking and no error of a map"


def installed(name: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return all(importlib.util.find_spec(package) is not None for package in NEEDED[name])


def contender(name: str, run: Callable[[], object]) -> Contender:
    """It, or why it is not there."""
    return Contender(name, run) if installed(name) else Contender(name, None, "not installed")


def captum_saliency(setup: Setup, images: Tensor | None = None) -> Tensor:
    """Captum's gradient, signed."""
    from captum.attr import Saliency

    inputs = (setup.images if images is None else images).detach().clone()  # Captum sets a flag on the caller's tensor
    found: Tensor = Saliency(setup.scalar).attribute(inputs, abs=False)
    return found


def captum_ig(setup: Setup, steps: int, *, at_once: bool = False) -> Tensor:
    """Captum's integrated gradients; a batch at a time, as ours, or all steps at once, its default."""
    from captum.attr import IntegratedGradients

    black = setup.subject.card.colour((0.0, 0.0, 0.0)).to(setup.images).expand_as(setup.images)
    found: Tensor = IntegratedGradients(setup.scalar).attribute(
        setup.images.detach().clone(),
        baselines=black.contiguous(),
        n_steps=steps,
        method="riemann_middle",
        internal_batch_size=None if at_once else setup.batch,
    )
    return found


def captum_explainers(setup: Setup, steps: int) -> list[bare.Explain]:
    """Heatmaps of saliency and IG, anew at each call."""

    def saliency(setup: Setup) -> Tensor:
        return captum_saliency(setup).abs().amax(1)

    def ig(setup: Setup) -> Tensor:
        return captum_ig(setup, steps).sum(1).abs()

    return [saliency, ig]


def captum_sensitivity(setup: Setup) -> Tensor:
    """Max-sensitivity, a batch at a time."""
    from captum.metrics import sensitivity_max

    found: Tensor = sensitivity_max(
        lambda inputs: (captum_saliency(setup, inputs[0]).contiguous(),),  # it takes a view of it
        setup.images,
        perturb_radius=RADIUS,
        n_perturb_samples=DRAWS,
        max_examples_per_batch=setup.batch,
    )
    return found


def captum_infidelity(setup: Setup) -> Tensor:
    """A saliency and its infidelity over random patches, a batch at a time."""
    from captum.metrics import infidelity

    side = min(setup.images.shape[-2:]) // 2
    random = torch.Generator().manual_seed(0)

    def patch(images: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.zeros_like(images)
        top, left = (int(torch.randint(length - side + 1, (), generator=random)) for length in images.shape[-2:])
        drawn = torch.randn(len(images), 3, side, side, generator=random)
        noise[..., top : top + side, left : left + side] = 0.8 * drawn.to(images)
        return noise, images - noise

    found: Tensor = infidelity(
        setup.scalar,
        patch,
        setup.images,
        captum_saliency(setup),
        n_perturb_samples=PATCHES,
        max_examples_per_batch=setup.batch,
    )
    return found


class Logit(nn.Module):
    """The scalar explained as the only logit of a classifier, (B, 1): what Quantus can read."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, images: Tensor) -> Tensor:
        return self.setup.scalar(images)[:, None]


def quantus_run(setup: Setup, make: Callable[[Any, int], Any]) -> np.ndarray[Any, Any]:
    """A metric of Quantus on a gradient map: `make` gets the package and how many values of an image are one step.

    Quantus counts the channels of a pixel as features of their own, and asks that a step divides the pixels.
    """
    import quantus

    channels, height, width = setup.images.shape[1:]
    parts = math.ceil(POINTS / channels)
    values = next(height * width // n for n in range(parts, height * width + 1) if height * width % n == 0)

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
        images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32, device=setup.images.device)
        return bare.gradient(setup, images.reshape(-1, *setup.images.shape[1:])).cpu().numpy()

    images = setup.images.cpu().numpy()
    answers = np.zeros(len(images), dtype=int)
    found = make(quantus, values)(
        model=Logit(setup).eval(),
        x_batch=images,
        y_batch=answers,
        a_batch=explain(None, images, None),
        explain_func=explain,
        softmax=False,
        channel_first=True,
        device=str(setup.images.device),
        batch_size=setup.batch,
    )
    return np.asarray(found)


QUIET = {"disable_warnings": True, "display_progressbar": False}
QUANTUS: dict[str, Callable[[Any, int], Any]] = {
    "fe": lambda q, values: q.FaithfulnessEstimate(features_in_step=values, normalise=False, **QUIET),
    "deletion": lambda q, values: q.PixelFlipping(features_in_step=values, normalise=False, **QUIET),
    "max_sensitivity": lambda q, values: q.MaxSensitivity(nr_samples=DRAWS, lower_bound=RADIUS, **QUIET),
}


def quantus(setup: Setup, work: str) -> Contender:
    """Quantus at this work, or why it cannot do it."""
    if work == "infidelity":
        return Contender("quantus", None, "perturbs every patch of a grid in every channel, not so many at random")
    if work not in QUANTUS:
        return Contender("quantus", None, NO_TARGET)
    return contender("quantus", functools.partial(quantus_run, setup, QUANTUS[work]))
