"""PixelFormer, the deep monocular depth network (Agarwal & Arora, WACV 2023; arXiv 2210.09071), and a small one.

Submodule names are those of the official checkpoints, so that these load strictly; the numbers are the published ones.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what a submodule returns is Any)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.errors import UnknownNameError
from xai_assert.models.swin import Swin, WindowAttention, cut, join, window_tokens

STRIDE = 32
POOLED = (1, 2, 3, 6)


@dataclass(frozen=True)
class PixelformerSize:
    """What sets the networks apart: the encoder's first four, then the decoder's (from 1/4 to 1/32)."""

    dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int = 7
    widths: tuple[int, int, int, int] = (128, 256, 512, 1024)
    decoder_heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    decoder_window: int = 7
    bins: int = 256
    groups: int = 256  # of the pyramid's GroupNorm


SIZES = {
    "tiny07": PixelformerSize(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "base07": PixelformerSize(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large07": PixelformerSize(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    # of our own: its forward at 192x256 costs no more than that of METER-XXS
    "nano": PixelformerSize(16, (1, 1, 2, 1), (1, 2, 4, 8), 4, (16, 32, 64, 128), (1, 2, 4, 8), 4, bins=32, groups=8),
}


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ConvNorm(nn.Module):
    """A convolution without bias, its norm under the published name, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm_name: str, norm: nn.Module) -> None:
        super().__init__()
        self.norm_name = norm_name
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.add_module(norm_name, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(self.norm_name)(self.conv(x)))


class Pyramid(nn.Module):
    """The decoder's first query: the last feature map beside its means over 1, 4, 9 and 36 parts of the picture."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()

        def branch(parts: int) -> nn.Sequential:
            norm = nn.GroupNorm(groups, outputs)
            return nn.Sequential(nn.AdaptiveAvgPool2d(parts), ConvNorm(inputs, outputs, 1, "gn", norm))

        self.psp_modules: Any = nn.ModuleList([branch(parts) for parts in POOLED])
        merged = inputs + len(POOLED) * outputs
        self.bottleneck = ConvNorm(merged, outputs, 3, "bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        means = [F.interpolate(branch(x), x.shape[-2:], mode="bilinear") for branch in self.psp_modules]
        return self.bottleneck(torch.cat([x, *means], 1))


class CrossAttention(WindowAttention):
    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(dim, heads, window)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, query: Tensor, encoded: Tensor) -> Tensor:
        key, value = self.kv(encoded).chunk(2, -1)
        return self.mix(self.q(query), key, value)


class SkipAttentionBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.normv = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, query: Tensor, encoded: Tensor) -> Tensor:
        """(B, H, W, dim) each."""
        windows = self.attn(cut(self.norm1(query), self.window), cut(self.normv(encoded), self.window))
        query = query + join(windows, (query.shape[1], query.shape[2]), self.window)
        return query + self.mlp(self.norm2(query))


class SkipAttention(nn.Module):
    """A query of the decoder asks the encoder's feature map of the same size: both (B, C, h, w)."""

    def __init__(self, encoder: int, query: int, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.proj_e = conv3x3(encoder, dim) if encoder != dim else nn.Identity()
        self.proj_q = conv3x3(query, dim) if query != dim else nn.Identity()
        self.proj = conv3x3(dim, dim)  # in every published checkpoint, and used by none
        self.sam_block = SkipAttentionBlock(dim, heads, window)
        self.norm_sam = nn.LayerNorm(dim)

    def forward(self, encoded: Tensor, query: Tensor) -> Tensor:
        encoded, query = self.proj_e(encoded), self.proj_q(query)
        attended = self.sam_block(query.permute(0, 2, 3, 1), encoded.permute(0, 2, 3, 1))
        return self.norm_sam(attended).permute(0, 3, 1, 2) + encoded + query


class BinCentres(nn.Module):
    """The centres (B, bins, 1, 1) of bins that divide the depths from `min_depth` to `max_depth`, image by image."""

    def __init__(self, dim: int, bins: int, min_depth: float, max_depth: float) -> None:
        super().__init__()
        self.min_depth, self.max_depth = min_depth, max_depth
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, bins)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.fc2(F.gelu(self.fc1(x.mean((2, 3))))).softmax(1)
        upper = self.min_depth + (self.max_depth - self.min_depth) * shares.cumsum(1)
        lower = F.pad(upper[:, :-1], (1, 0), value=self.min_depth)
        return (0.5 * (lower + upper))[..., None, None]


class DepthHead(nn.Module):
    def __init__(self, dim: int, bins: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(dim, bins)

    def forward(self, x: Tensor, centres: Tensor) -> Tensor:
        """The expected depth of each pixel, at four times the size of `x`."""
        depth = (self.conv1(x).softmax(1) * centres).sum(1, keepdim=True)
        return F.interpolate(depth, scale_factor=4, mode="bilinear")


class Trunk(nn.Module):
    """Encoder and decoder: images (B, 3, H, W) to features at 1/4 of their size. A head makes something of them."""

    def __init__(self, size: str) -> None:
        super().__init__()
        if size not in SIZES:
            raise UnknownNameError("PixelFormer size", size, SIZES)
        s = SIZES[size]
        self.backbone = Swin(s.dim, s.depths, s.heads, s.window)
        queries = [width // 2 for width in s.widths]  # what PixelShuffle leaves of the next width
        plan = zip(self.backbone.dims, queries, s.widths, s.decoder_heads, strict=True)
        for i, (encoder, query, width, heads) in enumerate(plan, 1):
            self.add_module(f"sam{i}", SkipAttention(encoder, query, width, heads, s.decoder_window))
        self.decoder = Pyramid(self.backbone.dims[3], queries[3], s.groups)

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's first query (B, C, H/32, W/32), and its last (B, C', H/4, W/4)."""
        stage_grids(*images.shape[-2:])
        features = self.backbone(images)
        first = query = self.decoder(features[3])
        for i in (4, 3, 2, 1):
            query = self.get_submodule(f"sam{i}")(features[i - 1], query)
            if i > 1:
                query = F.pixel_shuffle(query, 2)
        return first, query

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        """The encoder's layers, then the decoder's; see `xai_assert.attention.ExposesAttention`."""
        grids = stage_grids(height, width)
        taps = self.backbone.attention_taps(grids)
        last = [sum(len(stage.blocks) for stage in self.backbone.layers[: i + 1]) - 1 for i in range(len(grids))]
        for i in (4, 3, 2, 1):
            block: Any = self.get_submodule(f"sam{i}.sam_block")
            tokens = window_tokens(grids[i - 1], block.window)
            taps.append(AttentionTap(block.attn.attend, grids[i - 1], tokens, source=last[i - 1]))
        return taps


class Pixelformer(Trunk):
    """PixelFormer: images (B, 3, H, W) to depth (B, 1, H, W) in metres, between `min_depth` and `max_depth`.

    Example:
        >>> Pixelformer("nano").eval()(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 1, 64, 96])

    Raises:
        ValueError: a side of the image is no multiple of 32.
    """

    def __init__(self, size: str = "nano", *, min_depth: float = 0.1, max_depth: float = 10.0) -> None:
        super().__init__(size)
        s = SIZES[size]
        self.disp_head1 = DepthHead(s.widths[0], s.bins)
        self.bcp = BinCentres(s.widths[3] // 2, s.bins, min_depth, max_depth)

    def forward(self, images: Tensor) -> Tensor:
        first, last = self.decode(images)
        return self.disp_head1(last, self.bcp(first))


def stage_grids(height: int, width: int) -> list[tuple[int, int]]:
    """The token grids at 1/4, 1/8, 1/16 and 1/32."""
    if height % STRIDE or width % STRIDE or not (height and width):
        near = "x".join(str(max(STRIDE, round(side / STRIDE) * STRIDE)) for side in (height, width))
        raise ValueError(
            f"PixelFormer halves its token grid down to 1/{STRIDE}, so the sides of its images must be multiples of "
            f"{STRIDE}, not {height}x{width}. Resize or crop them, for example to {near}."
        )
    return [(height // step, width // step) for step in (4, 8, 16, 32)]
