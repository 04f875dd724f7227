"""How much of a network's input gradient is noise: one number an image, 0 for a linear network.

In deep rectifier networks the gradients at two inputs that hardly differ are hardly correlated ("The Shattered
Gradients Problem", 1702.08591), and a map of them then says more of where it was taken than of the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai_assert import randomness
from xai_assert.attributions import choose_target
from xai_assert.attributions.gradients import input_gradient
from xai_assert.batching import Batch, BatchSizer, run_batches, without_gradient
from xai_assert.evaluation import Evaluation
from xai_assert.metrics import Score
from xai_assert.preserve import undisturbed
from xai_assert.randomness import ImageId
from xai_assert.subject import Subject
from xai_assert.tasks import Target

SIGMA = 0.05  # ImageNet standard deviations: three grey levels of 255, which nobody sees
PASSES = 2  # gradient passes an image


def gradient_noise(
    subject: Subject,
    images: Tensor,
    target: Target,
    *,
    image_ids: Sequence[ImageId],
    seed: int = 0,
    sigma: float = SIGMA,
) -> Tensor:
    """1 - cos(g(x + d1), g(x + d2)), (B,) float64: g is the target's gradient, d1 and d2 are two draws of noise.

    If each gradient is a signal that both share plus noise of its own, this is the noise's share of its energy: 0 for
    a linear network, 1 where nothing is shared. It is 0 where no gradient is left at all.

    Args:
        subject: the network.
        images: (B, C, H, W), on its device.
        target: the scalar that is explained.
        image_ids: which key the draws.
        seed: of the draws.
        sigma: of the noise, in ImageNet standard deviations.

    Example:
        >>> from xai_assert.subject import describe
        >>> linear = describe(nn.Conv2d(3, 1, 3), name="linear", task="depth")
        >>> noise = gradient_noise(linear, torch.rand(2, 3, 8, 8), lambda out: out.mean((1, 2, 3)), image_ids="ab")
        >>> bool((noise.abs() < 1e-12).all())
        True
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, not {sigma!r}")
    strength = sigma * subject.card.strength(images.shape[1])
    first, second = (
        input_gradient(subject, images + (strength * draw).to(images), target).flatten(1).double()
        for draw in (
            randomness.normal(images.shape[1:], seed=seed, image_ids=image_ids, purpose=f"gradient noise {k}")
            for k in (1, 2)
        )
    )
    energy = first.square().sum(1) * second.square().sum(1)
    cosine = (first * second).sum(1) / energy.where(energy > 0, torch.ones_like(energy)).sqrt()
    none = (first == 0).all(1) & (second == 0).all(1)
    return torch.where(none, 0.0, 1 - cosine).clamp(min=0.0)


def of_images(evaluation: Evaluation) -> Score:
    """The gradient noise of all images of an evaluation, a batch at a time."""
    subject, seed = evaluation.subject, evaluation.seed
    ids: list[ImageId] = []

    def work(batch: Batch) -> Tensor:
        images = batch.images.to(subject.device)
        target = choose_target(subject, None, without_gradient(subject, images))
        ids.extend(batch.ids)
        return gradient_noise(subject.explained, images, target, image_ids=batch.ids, seed=seed).cpu()

    with undisturbed(subject):
        values = torch.cat(list(run_batches(evaluation.source, BatchSizer("auto", subject.device), work)))
    unique = tuple(dict.fromkeys(ids))  # a batch that ran out of memory is done again
    return Score(values, unique, "gradient_noise", None, False, {"sigma": SIGMA, "seed": seed}, range=(0.0, 2.0))


def layers(subject: Subject, images: Tensor) -> int:
    """The depth of a network: calls of convolution and linear layers in one forward pass of images (B, C, H, W)."""
    calls = []
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    hooks = [m.register_forward_hook(lambda *_: calls.append(1)) for m in subject.modules() if isinstance(m, kinds)]
    try:
        with undisturbed(subject):
            without_gradient(subject, images[:1].to(subject.device))
    finally:
        for hook in hooks:
            hook.remove()
    return len(calls)
