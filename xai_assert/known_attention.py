"""A network whose attention is planted, and its rollout by explicit matrices: to test rollouts with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.subject import Subject, describe


class Planted(nn.Module):
    """Attention (B, G, heads, N, N) from planted logits (G, heads, N, N); brighter images (B, C, H, W) sharpen it.

    >>> Planted(torch.zeros(1, 2, 3, 3))(torch.zeros(1, 3, 4, 4)).sum(-1).unique().item()
    1.0
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images: Tensor) -> Tensor:
        sharp = 1 + images.mean((1, 2, 3)).abs()
        return (self.logits.to(images) * sharp[:, None, None, None, None]).softmax(-1)


class PlantedAttention(nn.Module):
    """Depth (B, 1, H, W) that is the brightness, and four layers of planted attention that a rollout can read.

    Two layers lie on the grid of patches of 4 x 4 pixels, in windows of 2 x 2 of which the second layer's are shifted
    by one, round the edges; two on that grid pooled by 2, where all tokens attend to all. With `prefix`, so many tokens
    without a place stand before the others, and all layers attend to all.

    >>> [tuple(tap.tokens.shape) for tap in PlantedAttention((24, 32)).attention_taps(24, 32)]
    [(12, 4), (12, 4), (1, 12), (1, 12)]
    """

    patch, window, heads = 4, 2, 2

    def __init__(self, size: tuple[int, int], *, prefix: int = 0, seed: int = 0) -> None:
        super().__init__()
        if any(side % (2 * self.patch) for side in size):
            raise ValueError(f"size must be multiples of {2 * self.patch}, not {size}")
        self.fine = (size[0] // self.patch, size[1] // self.patch)
        self.coarse = (self.fine[0] // 2, self.fine[1] // 2)
        self.prefix = prefix
        random = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            Planted(3 * torch.randn(len(groups), self.heads, len(groups[0]), len(groups[0]), generator=random))
            for _, groups in self.plan()
        )

    def plan(self) -> list[tuple[tuple[int, int], list[list[int]]]]:
        """Of each layer, its grid and the tokens of its groups."""
        fine = [self._windows(0), self._windows(1)] if not self.prefix else [self._all(self.fine)] * 2
        return [(self.fine, groups) for groups in fine] + [(self.coarse, self._all(self.coarse))] * 2

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            layer(images)
        return images.mean(1, keepdim=True)

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        layers = zip(self.layers, self.plan(), strict=True)
        return [AttentionTap(layer, grid, torch.tensor(groups), self.prefix) for layer, (grid, groups) in layers]

    def rollout(self, images: Tensor) -> Tensor:
        """The rollout (B, H, W), by N x N matrices multiplied from the first layer to the last: column sums.

        Nothing of it is shared with `attention_rollout`, which goes backwards with a vector.
        """
        maps = [self._matrices(image[None]) for image in images]
        grids = torch.stack(maps).reshape(len(images), 1, *self.fine)
        return F.interpolate(grids, tuple(images.shape[-2:]), mode="bilinear", align_corners=False)[:, 0]

    def _matrices(self, image: Tensor) -> Tensor:
        tokens = self.prefix + self.fine[0] * self.fine[1]
        stream = torch.eye(tokens, dtype=image.dtype)
        with torch.no_grad():
            for number, (layer, (_, groups)) in enumerate(zip(self.layers, self.plan(), strict=True)):
                if number == 2:
                    stream = self._pooling().to(image) @ stream
                full = torch.eye(len(stream), dtype=image.dtype)
                for members, heads in zip(groups, layer(image)[0], strict=True):
                    for row, values in zip(members, heads.mean(0), strict=True):
                        full[row, members] += values
                stream = full / full.sum(1, keepdim=True) @ stream
        return stream[self.prefix :].sum(0)[self.prefix :]

    def _pooling(self) -> Tensor:
        """Means over 2 x 2 places; prefix tokens stay as they are."""
        count = self.coarse[0] * self.coarse[1]
        matrix = torch.zeros(self.prefix + count, self.prefix + 4 * count)
        matrix[: self.prefix, : self.prefix] = torch.eye(self.prefix)
        for row in range(self.fine[0]):
            for column in range(self.fine[1]):
                parent = (row // 2) * self.coarse[1] + column // 2
                matrix[self.prefix + parent, self.prefix + row * self.fine[1] + column] = 0.25
        return matrix

    def _windows(self, shift: int) -> list[list[int]]:
        """The tokens of each window, walking over the grid as the shift leaves it."""
        (rows, columns), side = self.fine, range(self.window)
        return [
            [(top + i + shift) % rows * columns + (left + j + shift) % columns for i in side for j in side]
            for top in range(0, rows, self.window)
            for left in range(0, columns, self.window)
        ]

    def _all(self, grid: tuple[int, int]) -> list[list[int]]:
        return [list(range(self.prefix + grid[0] * grid[1]))]


def planted_attention(size: tuple[int, int] = (24, 32), *, prefix: int = 0, seed: int = 0) -> Subject:
    """A `PlantedAttention` as a subject.

    >>> subject = planted_attention()
    >>> images = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    >>> subject.module.rollout(images).shape, int(subject.module.rollout(images).argmax()) > 0
    (torch.Size([1, 24, 32]), True)
    """
    return describe(PlantedAttention(size, prefix=prefix, seed=seed), name="planted-attention", task="depth")
