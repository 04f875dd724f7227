"""Random perturbations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xai_assert import randomness
from xai_assert.perturbations.base import clipped, positive, register_perturbation, whole
from xai_assert.randomness import ImageId
from xai_assert.subject import Card


@register_perturbation("gaussian_noise")
def gaussian_noise(
    images: Tensor, *, card: Card, image_ids: Sequence[ImageId], seed: int, sigma: float = 0.8, clip: bool = False
) -> Tensor:
    """Additive normal noise of `sigma` ImageNet standard deviations, the same field for every sigma and method.

    Args:
        images: (B, C, H, W).
        sigma: strength, in ImageNet standard deviations whatever the network's own scaling.
        clip: keep the picture between black and white.
    """
    noise = randomness.normal(images.shape[1:], seed=seed, image_ids=image_ids, purpose="gaussian_noise")
    strength = positive("gaussian_noise: sigma", sigma) * card.strength(images.shape[1])
    noisy = images + noise.to(images) * strength.to(images)
    return clipped(noisy, card) if clip else noisy


@register_perturbation("patch_noise")
def patch_noise(
    images: Tensor,
    *,
    card: Card,
    image_ids: Sequence[ImageId],
    seed: int,
    size: int = 16,
    sigma: float = 0.8,
    clip: bool = False,
) -> Tensor:
    """Additive normal noise that is the same all over a patch of size x size pixels, so that no filter averages it out.

    Args:
        images: (B, C, H, W); the last patches are smaller where `size` does not divide H or W.
        size: side of a patch, in pixels.
        sigma: strength, in ImageNet standard deviations whatever the network's own scaling.
        clip: keep the picture between black and white.
    """
    side = whole("patch_noise: size", size, least=1)
    channels, height, width = images.shape[1:]
    patches = (channels, -(-height // side), -(-width // side))
    noise = randomness.normal(patches, seed=seed, image_ids=image_ids, purpose="patch_noise")
    noise = noise.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    strength = positive("patch_noise: sigma", sigma) * card.strength(channels)
    noisy = images + noise.to(images) * strength.to(images)
    return clipped(noisy, card) if clip else noisy
