"""Gradients of the target with respect to the input: saliency (1312.6034)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xai_assert.attributions.base import Explained, register_method
from xai_assert.errors import ModelOutputError
from xai_assert.tasks import Target


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
        values = target(output)
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(images),):
            got = tuple(values.shape) if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise ModelOutputError(
                f"the target must be one number an image, a tensor ({len(images)},), not {got}; "
                "flatten and average what remains"
            )
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), inputs, allow_unused=True)
    if gradient is None:
        raise ModelOutputError(
            "the target does not depend on the images: no gradient reaches them. The model ignores its input, or "
            "detaches it (no_grad, .detach(), numpy, argmax) on the way"
        )
    return output.detach(), values.detach(), gradient.detach()


@register_method("saliency", reduction="max_abs", gradient=True, passes=lambda: (0, 1), predicts=True)
def saliency(model: nn.Module, images: Tensor, target: Target) -> Explained:
    """The gradient of the target (Simonyan et al., 1312.6034); its heatmap is the largest |.| over the channels."""
    output, _, gradient = differentiate(model, images, target)
    return Explained(gradient, output=output)
