"""Swin, the encoder of PixelFormer: attention inside windows that every second block shifts (Liu et al., 2103.14030).

Parts come from timm where names and numbers are those of the dense-prediction Swin. Its own blocks are not: timm's
shrink the window of a small grid and keep the index of offsets out of the state dict, the published network pads the
grid to whole windows and shifts even where there is a single one.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what a submodule returns is Any)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.models.swin_transformer import PatchMerging, get_relative_position_index
from torch import Tensor, nn

from xai_assert.attention import AttentionTap

FAR = -100.0  # what the published network adds between tokens that only the cyclic shift made neighbours


def cut(x: Tensor, window: int, shift: int = 0, fill: float = 0) -> Tensor:
    """(B, H, W, C) to windows (B, G, window^2, C): padded with `fill` to whole windows, shifted cyclically."""
    batch, height, width, channels = x.shape
    if width % window or height % window:
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window), value=fill)
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    x = x.reshape(batch, x.shape[1] // window, window, x.shape[2] // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window * window, channels)


def join(x: Tensor, grid: tuple[int, int], window: int, shift: int = 0) -> Tensor:
    """The inverse of `cut`: windows (B, G, window^2, C) to (B, H, W, C) with (H, W) = `grid`."""
    height, width = grid
    rows, columns = -(-height // window), -(-width // window)
    x = x.reshape(len(x), rows, columns, window, window, -1).transpose(2, 3)
    x = x.reshape(len(x), rows * window, columns * window, -1)
    if shift:
        x = x.roll((shift, shift), (1, 2))
    return x[:, :height, :width]


def window_tokens(grid: tuple[int, int], window: int, shift: int = 0) -> Tensor:
    """The tokens (G, window^2) of each window, as `AttentionTap` wants them: -1 is padding.

    >>> window_tokens((2, 3), 2).tolist()
    [[0, 1, 3, 4], [2, -1, 5, -1]]
    """
    place = torch.arange(grid[0] * grid[1]).reshape(1, *grid, 1)
    return cut(place, window, shift, fill=-1)[0, ..., 0]


def apart(grid: tuple[int, int], window: int, shift: int, like: Tensor) -> Tensor:
    """What is added to the attention of shifted windows, (G, 1, N, N): `FAR` between the two sides of the picture.

    The bands lie on the padded grid after its shift: what came round the edge is the last of them.
    """
    bands = []
    for side in grid:
        band = torch.zeros(side + -side % window, device=like.device, dtype=like.dtype)
        band[-window:] = 1
        band[-shift:] = 2
        bands.append(band)
    region = cut((3 * bands[0][:, None] + bands[1])[None, ..., None], window)[0]  # (G, N, 1)
    return (FAR * (region != region.mT)).to(like.dtype)[:, None]


class WindowAttention(nn.Module):
    """What attention inside windows has in common: the bias of each offset, the softmax, the projection."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", get_relative_position_index(window, window))
        self.attend = nn.Softmax(dim=-1)  # a module, so that a rollout can read its output: (B, G, heads, N, N)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, G, N, dim) each; `mask` (G, 1, N, N) is added before the softmax."""
        query, key, value = (x.reshape(*x.shape[:3], self.heads, -1).transpose(2, 3) for x in (query, key, value))
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        logits = (query * query.shape[-1] ** -0.5) @ key.mT + bias
        attention = self.attend(logits if mask is None else logits + mask)
        return self.proj((attention @ value).transpose(2, 3).flatten(3))


class SelfAttention(WindowAttention):
    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(dim, heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.mix(query, key, value, mask)


class SwinBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim). The padding comes after the norm, and is attended to like the rest."""
        grid = (x.shape[1], x.shape[2])
        mask = apart(grid, self.window, self.shift, x) if self.shift else None
        windows = self.attn(cut(self.norm1(x), self.window, self.shift), mask)
        x = x + join(windows, grid, self.window, self.shift)
        return x + self.mlp(self.norm2(x))

    def tap(self, grid: tuple[int, int]) -> AttentionTap:
        return AttentionTap(self.attn.attend, grid, window_tokens(grid, self.window, self.shift))


class Stage(nn.Module):
    """Blocks of one resolution; `downsample`, but for the last stage, leads to the next."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, last: bool) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList([SwinBlock(dim, heads, window, i % 2 * (window // 2)) for i in range(depth)])
        self.downsample: Any = None if last else PatchMerging(dim)


class PatchEmbedding(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Images (B, 3, H, W) to a feature map (B, C, h, w) at 1/4, 1/8, 1/16 and 1/32, each through a norm of its own."""

    def __init__(self, dim: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int) -> None:
        super().__init__()
        self.dims = [dim * 2**i for i in range(len(depths))]
        self.patch_embed = PatchEmbedding(dim, 4)
        last = len(depths) - 1
        plan = enumerate(zip(self.dims, depths, heads, strict=True))
        self.layers: Any = nn.ModuleList([Stage(d, depth, h, window, i == last) for i, (d, depth, h) in plan])
        for i, d in enumerate(self.dims):
            self.add_module(f"norm{i}", nn.LayerNorm(d))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)
        features = []
        for i, stage in enumerate(self.layers):
            for block in stage.blocks:
                x = block(x)
            features.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:  # it takes what the norm has not touched
                x = stage.downsample(x)
        return features

    def attention_taps(self, grids: Sequence[tuple[int, int]]) -> list[AttentionTap]:
        """Of every block, where each stage has one of these token grids."""
        return [block.tap(grid) for stage, grid in zip(self.layers, grids, strict=True) for block in stage.blocks]
