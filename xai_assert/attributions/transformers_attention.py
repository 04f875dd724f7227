"""Where networks of transformers (Hugging Face) keep their attention: taps for a rollout, made of the module as it is.

Flat ones alone (ViT, DeiT, DINOv2, DPT and what has one of them as its backbone): they attend globally, behind prefix
tokens. A layer returns (output, attention) if its attention is not fused, so that is switched off while the taps are
read. Layers are known by the class of transformers: another kind of attention is not taken for one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from xai_assert.attention import AttentionTap

# by class: how many tokens without a place come first, the first of them the class token
PREFIXES: dict[str, Callable[[Any], int]] = {
    "ViTAttention": lambda config: 1,
    "ViTMSNAttention": lambda config: 1,
    "DeiTAttention": lambda config: 2,
    "Dinov2Attention": lambda config: 1,
    "Dinov2WithRegistersAttention": lambda config: 1 + config.num_register_tokens,
    "DPTSelfAttention": lambda config: 1,
    "IJepaAttention": lambda config: 0,
}


def attention_layers(module: nn.Module) -> list[Any]:
    """The attention layers of a known kind in `module`, first layer first; none if there are several kinds."""
    found = [
        m for m in module.modules() if type(m).__name__ in PREFIXES and type(m).__module__.startswith("transformers.")
    ]
    return found if len({type(m) for m in found}) == 1 else []


@contextmanager
def transformers_taps(layers: list[Any], height: int, width: int) -> Iterator[list[AttentionTap]]:
    """The taps for an input of this size in pixels; inside, no layer of them fuses its attention."""
    config = layers[0].config
    rows, columns = (config.patch_size,) * 2 if isinstance(config.patch_size, int) else config.patch_size
    grid = (height // rows, width // columns)
    prefix = PREFIXES[type(layers[0]).__name__](config)
    tokens = torch.arange(prefix + grid[0] * grid[1])[None]
    class_token = 0 if prefix else None
    configs = {id(layer.config): layer.config for layer in layers}.values()
    kept = [(one, one._attn_implementation) for one in configs]
    try:
        for one, _ in kept:
            one._attn_implementation = "eager"
        yield [AttentionTap(layer, grid, tokens, prefix, class_token=class_token, output=1) for layer in layers]
    finally:
        for one, implementation in kept:
            one._attn_implementation = implementation
