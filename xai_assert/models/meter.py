"""METER, the light monocular depth network (Papa, Russo, Amerini; arXiv 2403.08368), in its sizes S, XS and XXS.

Submodule names are those of the official checkpoints, so that these load strictly; the numbers are the published ones.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what a submodule returns is Any)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap, patch_positions
from xai_assert.errors import UnknownNameError

PATCH = 2
HEADS, HEAD_WIDTH = 4, 8


@dataclass(frozen=True)
class MeterSize:
    """What sets the three networks apart; `channels` runs from the stem to the encoder's last 1x1 convolution."""

    dims: tuple[int, int, int]
    channels: tuple[int, ...]
    expansion: int
    decoder: int


SIZES = {
    "s": MeterSize((144, 192, 240), (16, 32, 64, 64, 96, 96, 128, 128, 160, 160, 320), 4, 128),
    "xs": MeterSize((96, 120, 144), (16, 32, 48, 48, 64, 64, 80, 80, 96, 96, 192), 4, 128),
    "xxs": MeterSize((64, 80, 96), (16, 16, 24, 24, 48, 48, 64, 64, 80, 80, 160), 2, 64),
}
MLP_RATIOS = (2, 4, 4)


class SeparableConv(nn.Module):
    """A full 3x3 convolution, then a 1x1. The published "depthwise" convolution has groups=1: the name is theirs."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.pointwise = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def norm_relu(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


class MV2Block(nn.Module):
    """MobileNetV2's inverted residual, with ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv1x1(inputs, hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv1x1(hidden, outputs),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.attend = nn.Softmax(dim=-1)  # a module, so that a rollout can read its output: (B, P, heads, N, N)
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, N, dim): the N patches attend to each other, apart for each of the P positions inside a patch."""
        batch, positions, count, _ = x.shape
        qkv = self.to_qkv(x).reshape(batch, positions, count, 3, HEADS, HEAD_WIDTH)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
        attention = self.attend(query @ key.transpose(-1, -2) * HEAD_WIDTH**-0.5)
        return self.to_out((attention @ value).transpose(2, 3).flatten(3))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # Identity stands where the published network has a dropout that it never uses: the numbers 0 and 3 are theirs.
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class Transformer(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        attention, mlp = PreNorm(dim, Attention(dim)), PreNorm(dim, FeedForward(dim, hidden))
        self.layers: Any = nn.ModuleList([nn.ModuleList([attention, mlp])])

    def forward(self, x: Tensor) -> Tensor:
        for attention, mlp in self.layers:
            x = mlp(attention(x))
        return x


class MobileViTBlock(nn.Module):
    def __init__(self, channels: int, dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.conv1 = norm_relu(SeparableConv(channels, channels), channels)
        self.conv2 = norm_relu(conv1x1(channels, dim), dim)
        self.transformer = Transformer(dim, mlp_ratio * dim)
        self.conv3 = norm_relu(conv1x1(dim, channels), channels)
        self.conv4 = norm_relu(SeparableConv(2 * channels, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        batch, dim, height, width = y.shape
        rows, columns = height // PATCH, width // PATCH
        y = y.reshape(batch, dim, rows, PATCH, columns, PATCH).permute(0, 3, 5, 2, 4, 1)
        y = self.transformer(y.reshape(batch, PATCH * PATCH, rows * columns, dim))
        y = y.reshape(batch, PATCH, PATCH, rows, columns, dim).permute(0, 5, 3, 1, 4, 2)
        y = self.conv3(y.reshape(batch, dim, height, width))
        return self.conv4(torch.cat([y, x], dim=1))


class Encoder(nn.Module):
    def __init__(self, size: MeterSize) -> None:
        super().__init__()
        c = size.channels
        self.conv1 = norm_relu(SeparableConv(3, c[0], stride=2), c[0])
        plan = [(c[0], c[1], 1), (c[1], c[2], 2), (c[2], c[3], 1), (c[2], c[3], 1)]
        plan += [(c[3], c[4], 2), (c[5], c[6], 2), (c[7], c[8], 2)]
        self.mv2 = nn.ModuleList([MV2Block(i, o, stride, size.expansion) for i, o, stride in plan])
        blocks = zip((c[5], c[7], c[9]), size.dims, MLP_RATIOS, strict=True)
        self.mvit: Any = nn.ModuleList([MobileViTBlock(*block) for block in blocks])
        self.conv2 = norm_relu(conv1x1(c[9], c[10]), c[10])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The deepest feature (1/32) and the skips: the stride-2 blocks' outputs at 1/16, 1/8 and 1/4."""
        skip4 = self.mv2[1](self.mv2[0](self.conv1(x)))
        skip8 = self.mv2[4](self.mv2[3](self.mv2[2](skip4)))
        skip16 = self.mv2[5](self.mvit[0](skip8))
        x = self.mvit[2](self.mv2[6](self.mvit[1](skip16)))
        return self.conv2(x), [skip16, skip8, skip4]


class UpBlock(nn.Module):
    def __init__(self, inputs: int, skip: int) -> None:
        super().__init__()
        half = inputs // 2
        self.conv2d_transpose = nn.ConvTranspose2d(inputs, half, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.end_up_layer = nn.Sequential(SeparableConv(half + skip, half), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.conv2d_transpose(x)
        rows, columns = x.shape[2] - skip.shape[2], x.shape[3] - skip.shape[3]
        if rows or columns:  # the published network pads one column on the left first (KITTI: 160 against 159)
            skip = F.pad(skip, (min(columns, 1), columns - min(columns, 1), min(rows, 1), rows - min(rows, 1)))
        return self.end_up_layer(torch.cat([x, skip], dim=1))


class Decoder(nn.Module):
    def __init__(self, size: MeterSize) -> None:
        super().__init__()
        c, width = size.channels, size.decoder
        self.conv2d_in = conv1x1(c[10], width)
        self.ups_block_1 = UpBlock(width, c[6])
        self.ups_block_2 = UpBlock(width // 2, c[4])
        self.ups_block_3 = UpBlock(width // 4, c[2])
        self.conv2d_out = nn.Conv2d(width // 8, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.conv2d_in(x)
        for block, skip in zip((self.ups_block_1, self.ups_block_2, self.ups_block_3), skips, strict=True):
            x = block(x, skip)
        return self.conv2d_out(x)


class Meter(nn.Module):
    """METER: images (B, 3, H, W) to depth (B, 1, ceil(H/32)*8, ceil(W/32)*8), in the unit it was trained in.

    Example:
        >>> Meter("xxs").eval()(torch.zeros(1, 3, 64, 128)).shape
        torch.Size([1, 1, 16, 32])

    Raises:
        ValueError: the image's size does not divide into 2x2 patches at 1/8, 1/16 and 1/32.
    """

    def __init__(self, size: str = "xxs") -> None:
        super().__init__()
        if size not in SIZES:
            raise UnknownNameError("METER size", size, SIZES)
        self.encoder = Encoder(SIZES[size])
        self.decoder = Decoder(SIZES[size])

    def forward(self, images: Tensor) -> Tensor:
        stage_grids(*images.shape[-2:])
        return self.decoder(*self.encoder(images))

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        """One layer at 1/8, 1/16 and 1/32; see `xai_assert.attention.ExposesAttention`."""
        layers = [block.transformer.layers[0][0].fn.attend for block in self.encoder.mvit]
        grids = stage_grids(height, width)
        return [AttentionTap(a, grid, patch_positions(grid, PATCH)) for a, grid in zip(layers, grids, strict=True)]


def stage_grids(height: int, width: int) -> list[tuple[int, int]]:
    """The token grids at 1/8, 1/16 and 1/32 (every stride-2 convolution rounds up)."""
    grids = [(-(-height // step), -(-width // step)) for step in (8, 16, 32)]
    if any(side % PATCH for grid in grids for side in grid):
        sizes = ", ".join(f"{h}x{w}" for h, w in grids)
        raise ValueError(
            f"METER cuts its feature maps at 1/8, 1/16 and 1/32 into {PATCH}x{PATCH} patches; images of "
            f"{height}x{width} give maps of {sizes}. Resize them, for example to 192x256 (NYU) or 192x636 (KITTI)."
        )
    return grids
