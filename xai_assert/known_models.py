"""Small models whose right answers are known on paper: to test metrics, methods and perturbations with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from xai_assert.randomness import generator
from xai_assert.subject import Subject, describe


class Pixelwise(nn.Module):
    """f(x)_i = sum_c w_ci x_ci, (B, 1, H, W): each pixel of the depth depends on that pixel of the image alone.

    With the mean as target its gradient is w / HW, its integrated gradients from b are w (x - b) / HW, and the RMSE
    after a change d is sqrt(mean_i (sum_c w_ci d_ci)^2), so the relevance of a pixel is worked out on paper.

    >>> Pixelwise(torch.tensor([[[1.0, 3.0]]]))(torch.ones(1, 1, 1, 2)).tolist()
    [[[[1.0, 3.0]]]]
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.clone())  # (C, H, W)

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weights.to(images)).sum(1, keepdim=True)


class Squares(Pixelwise):
    """sum_c (w_ci x_ci)^2, (B, 1, H, W): a `Pixelwise` model whose gradient depends on the image."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weights.to(images)).square().sum(1, keepdim=True)


class Corner(nn.Module):
    """The mean colour of the top-left quarter, (B, 1, ceil(H/2), ceil(W/2)); it never looks elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        corner = images[..., : -(-height // 2), : -(-width // 2)]
        return self.scale.to(images) * corner.mean(1, keepdim=True)


class Blind(nn.Module):
    """Ones (B, 1, H, W), whatever it is shown; no gradient leads back to the image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones_like(images[:, :1])


KINDS = ("pixelwise", "squares", "corner")


@dataclass(frozen=True)
class KnownModel:
    """A known-answer model by its recipe: `kind` is "pixelwise", "squares" or "corner".

    At least half of the pixels, rounded down, have no relevance: perturbing them moves nothing, so that the AF of the
    true map is exactly 1 wherever perturbing the others moves the prediction at all.

    >>> model = KnownModel("corner", seed=0)
    >>> model.subject((4, 4))
    <Subject corner-0: depth in m, Corner, 1 parameters on cpu>
    >>> int((model.relevance((4, 4)) > 0).sum())
    4
    """

    kind: str
    seed: int

    def subject(self, size: tuple[int, int], *, layout: str = "RGB") -> Subject:
        """The model for images (B, 3, *size), whose card has mean .5 and another std for each channel."""
        return describe(
            self._module(size),
            name=f"{self.kind}-{self.seed}",
            task="depth",
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.25, 0.3),
            input_size=size,
            unit="m",
            layout=layout,
        )

    def relevance(self, size: tuple[int, int]) -> Tensor:
        """The true map (H, W): how much the output moves with a pixel, 0 where the model does not look."""
        if self.kind == "corner":
            seen = torch.zeros(size)
            seen[: -(-size[0] // 2), : -(-size[1] // 2)] = 1
            return seen
        return self._weights(size).sum(0)

    def _module(self, size: tuple[int, int]) -> nn.Module:
        if self.kind == "corner":
            return Corner()
        return {"pixelwise": Pixelwise, "squares": Squares}[self.kind](self._weights(size))

    def _weights(self, size: tuple[int, int]) -> Tensor:
        """(3, H, W): between .5 and 1.5 in half of the pixels, 0 in the others."""
        random = generator(self.seed, "weights", self.kind)
        weights = random.uniform(0.5, 1.5, (3, *size)).astype(np.float32)
        pixels = size[0] * size[1]
        dark = random.permutation(pixels)[max(1, pixels // 2) :]
        weights.reshape(3, pixels)[:, dark] = 0
        return torch.from_numpy(weights)
