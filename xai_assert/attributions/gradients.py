"""Gradients of the target by the input: saliency (1312.6034), input x gradient, SmoothGrad (1706.03825)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai_assert import randomness
from xai_assert.attributions.base import Explained, register_method
from xai_assert.errors import ModelOutputError
from xai_assert.randomness import ImageId
from xai_assert.tasks import Target, at_least_float32


def input_gradient(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    """Gradient (B, C, H, W) of each image's target with respect to that image.

    Raises:
        ModelOutputError: the target does not depend on the images, or is not one number an image.
    """
    return value_and_gradient(model, images, target)[1]


def value_and_gradient(model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """The target (B,) of each image, and its gradient; see `input_gradient`."""
    return differentiate(model, images, target)[1:]


def differentiate(model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """The model's output on the images, the target (B,) of each, and its gradient; see `input_gradient`."""
    with torch.enable_grad():
        inputs = images.detach()  # another tensor with the same values: the flag of the caller's own is not touched
        inputs = (inputs.clone() if inputs.is_inference() else inputs).requires_grad_(True)
        output = model(inputs)
        values = checked_values(target(output), len(images))
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), inputs, allow_unused=True)
    if gradient is None:
        raise ModelOutputError(
            "the target does not depend on the images: no gradient reaches them. The model ignores its input, or "
            "detaches it (no_grad, .detach(), numpy, argmax) on the way"
        )
    return output.detach(), values.detach(), gradient.detach()


def checked_values(values: Tensor, count: int) -> Tensor:
    """What a target returned, if that is one number an image."""
    if not isinstance(values, Tensor) or tuple(values.shape) != (count,):
        got = tuple(values.shape) if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise ModelOutputError(
            f"the target must be one number an image, a tensor ({count},), not {got}; flatten and average what remains"
        )
    return values


@register_method("saliency", reduction="max_abs", gradient=True, passes=lambda: (0, 1), predicts=True)
def saliency(model: nn.Module, images: Tensor, target: Target) -> Explained:
    """The gradient of the target (Simonyan et al., 1312.6034); its heatmap is the largest |.| over the channels."""
    output, _, gradient = differentiate(model, images, target)
    return Explained(gradient, output=output)


@register_method("input_x_gradient", gradient=True, passes=lambda: (0, 1))
def input_x_gradient(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    """The input, as the network sees it, times the gradient of the target (Shrikumar et al., 1605.01713).

    Of a linear network the values add up to its output without the bias. What the network sees as 0 (ImageNet's mean
    colour, for most) is never relevant.
    """
    return images * input_gradient(model, images, target)


@register_method("smoothgrad", gradient=True, passes=lambda draws=25, noise=0.15: (0, int(draws)))
def smoothgrad(
    model: nn.Module,
    images: Tensor,
    target: Target,
    *,
    image_ids: Sequence[ImageId],
    seed: int,
    draws: int = 25,
    noise: float = 0.15,
) -> Tensor:
    """The mean gradient of the target over noisy copies of the image (Smilkov et al., 1706.03825).

    One draw is one gradient pass of the batch, added up as it comes. The noise is keyed by seed, image and draw.

    Args:
        model, images, target, image_ids, seed: as for every method; images (B, C, H, W).
        draws: noisy copies of each image.
        noise: standard deviation, as a share of each image's range (largest minus smallest value of the input).

    Raises:
        ValueError: no draw, or noise that is negative or not finite.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"smoothgrad: draws must be a whole number of at least 1, not {draws!r}")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(f"smoothgrad: noise must be a finite number of at least 0, not {noise!r}")
    flat = images.flatten(1)
    scale = noise * (flat.amax(1) - flat.amin(1)).reshape(-1, 1, 1, 1)
    total = torch.zeros_like(at_least_float32(images))
    for draw in range(draws):
        field = randomness.normal(images.shape[1:], seed=seed, image_ids=image_ids, purpose=f"smoothgrad {draw}")
        total += input_gradient(model, images + scale * field.to(images), target)
    return total / draws
