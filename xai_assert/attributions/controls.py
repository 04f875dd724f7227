"""Maps that know nothing of the model: what every method must beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert import randomness
from xai_assert.attributions.base import register_method
from xai_assert.randomness import ImageId
from xai_assert.tasks import Target

CONTROLS = ("random", "edges")


@register_method("random", passes=lambda draw=0: (0, 0))
def random(
    model: nn.Module, images: Tensor, target: Target, *, image_ids: Sequence[ImageId], seed: int, draw: int = 0
) -> Tensor:
    """Uniform noise (B, H, W), keyed by seed and image: its expected AF is exactly 0. Each `draw` is another map."""
    if isinstance(draw, bool) or not isinstance(draw, int):
        raise TypeError(f"draw must be a whole number, not {draw!r}")
    purpose = f"random control {draw}" if draw else "random control"
    draws = randomness.uniform(images.shape[-2:], seed=seed, image_ids=image_ids, purpose=purpose)
    return draws.to(images.device)


@register_method("edges", passes=lambda: (0, 0))
def edges(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    """Sobel magnitude of the input, averaged over the channels, (B, H, W)."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(images)
    kernels = torch.stack([across, across.T])[:, None]
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, kernels).square().sum(1).sqrt()
