"""Where timm's networks keep their attention: taps for a rollout, made of the module as it stands.

Flat ones (ViT, DeiT, DINOv2, BEiT, EVA, ViT with relative positions) attend globally, behind prefix tokens. Swin (v1
and v2) attends in windows: timm shifts the grid first and pads it to whole windows then. Fused attention shows nothing,
so it is off while the taps are read. Layers are known by their type: another kind of attention is not taken for one of
these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention, AttentionRope
from timm.models import beit, eva, swin_transformer, swin_transformer_v2, vision_transformer_relpos
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.errors import NotApplicableError

FLAT = (VisionTransformer, beit.Beit, eva.Eva, vision_transformer_relpos.VisionTransformerRelPos)
WINDOWED = (swin_transformer.SwinTransformer, swin_transformer_v2.SwinTransformerV2)
LAYERS = (
    Attention,
    AttentionRope,
    beit.Attention,
    eva.EvaAttention,
    vision_transformer_relpos.RelPosAttention,
    swin_transformer.WindowAttention,
    swin_transformer_v2.WindowAttention,
)


def timm_network(module: nn.Module) -> nn.Module | None:
    """The one network of a known family in `module`: itself, or what a wrapper holds."""
    found = [m for m in module.modules() if isinstance(m, FLAT + WINDOWED)]
    return found[0] if len(found) == 1 else None


@contextmanager
def timm_taps(network: nn.Module, height: int, width: int) -> Iterator[list[AttentionTap]]:
    """The taps for an input of this size in pixels; inside, no layer of them fuses its attention.

    Raises:
        NotApplicableError: a block attends in a way of its own.
    """
    grid = patch_grid(network, height, width)
    layers: list[tuple[Any, AttentionTap]] = (
        flat(network, grid) if isinstance(network, FLAT) else windowed(network, grid)
    )
    fused = [(layer, layer.fused_attn) for layer, _ in layers if "fused_attn" in vars(layer)]
    try:
        for layer, _ in fused:
            layer.fused_attn = False
        yield [tap for _, tap in layers]
    finally:
        for layer, flag in fused:
            layer.fused_attn = flag


def patch_grid(network: Any, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches, for an input of this size."""
    rows, columns = network.patch_embed.dynamic_feat_size((height, width))
    return int(rows), int(columns)


def flat(network: Any, grid: tuple[int, int]) -> list[tuple[Any, AttentionTap]]:
    prefix = network.num_prefix_tokens
    tokens = torch.arange(prefix + grid[0] * grid[1])[None]
    class_token = 0 if prefix and network.cls_token is not None else None
    layers = [known(getattr(block, "attn", block), network) for block in network.blocks]
    return [(layer, AttentionTap(layer.attn_drop, grid, tokens, prefix, class_token=class_token)) for layer in layers]


def windowed(network: Any, grid: tuple[int, int]) -> list[tuple[Any, AttentionTap]]:
    taps = []
    for stage in network.layers:
        if not isinstance(stage.downsample, nn.Identity):  # it comes first, and pads an odd side
            grid = (-(-grid[0] // 2), -(-grid[1] // 2))
        for block in stage.blocks:
            layer = known(block.attn, network)
            taps.append(
                (layer, AttentionTap(layer.attn_drop, grid, window_tokens(grid, block.window_size, block.shift_size)))
            )
    return taps


def known(layer: nn.Module, network: nn.Module) -> Any:
    if type(layer) not in LAYERS:
        raise NotApplicableError(
            f"attention rollout does not apply to this {type(network).__name__}: its layers are "
            f"{type(layer).__name__}, whose attention is not one matrix after a softmax; use another method"
        )
    return layer


def window_tokens(grid: tuple[int, int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """The tokens (G, N) of each window, as `AttentionTap` wants them: -1 is padding.

    >>> window_tokens((2, 3), (2, 2), (0, 1)).tolist()
    [[1, 2, 4, 5], [0, -1, 3, -1]]
    """
    place = torch.arange(grid[0] * grid[1]).reshape(grid).roll((-shift[0], -shift[1]), (0, 1))
    place = F.pad(place, (0, -grid[1] % window[1], 0, -grid[0] % window[0]), value=-1)
    windows = place.unfold(0, window[0], window[0]).unfold(1, window[1], window[1])
    return windows.reshape(-1, window[0] * window[1])
