"""Attention rollout (Abnar & Zuidema, 2005.00928) in its stage-wise, row-vector form.

The relevance of a token is its column sum in M = A'_L ... A'_1, the attention that it receives; with A' = (A + I) /
rowsum(A + I). As a row vector that starts with ones and is multiplied from the last layer to the first it costs
O(L N^2), not O(L N^3). Between the stages of a hierarchical network the vector is carried to the finer grid by the
adjoint of average pooling. (Row sums of M are constant: a transposed rollout is a flat map.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap, ExposesAttention
from xai_assert.attributions.base import register_method
from xai_assert.errors import NotApplicableError
from xai_assert.preserve import hooks
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32


@register_method("attention_rollout", passes=lambda **_: (1, 0))
def attention_rollout(model: Subject, images: Tensor, target: Target, *, fusion: str = "mean") -> Tensor:
    """Attention received by each place, (B, H, W), bilinearly interpolated to the size of the images.

    Args:
        model: its module says where its attention is (`ExposesAttention`).
        images: (B, C, H, W).
        target: not used: a rollout explains the attention, not an output.
        fusion: of the heads, "mean" or "min".

    Raises:
        NotApplicableError: the module shows no attention.
    """
    if fusion not in ("mean", "min"):
        raise ValueError(f"attention_rollout: fusion must be 'mean' or 'min', not {fusion!r}")
    module = model.module
    if not isinstance(module, ExposesAttention):
        raise NotApplicableError(
            f"attention_rollout does not apply to {model.name}: {type(module).__name__} shows no attention. Give the "
            "module a method attention_taps(height, width) (see xai_assert.attention), or use another method"
        )
    height, width = images.shape[-2:]
    taps = module.attention_taps(height, width)
    check_tokens(taps, model.name)
    heatmap = roll_out(capture(model, images, taps), taps, fusion)
    return F.interpolate(heatmap[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def check_tokens(taps: Sequence[AttentionTap], name: str) -> None:
    """Refuse taps in which a token of the stage is missing or stands twice: the map would be wrong without a word."""
    if not taps:
        raise NotApplicableError(f"attention_rollout does not apply to {name}: its attention_taps returned no layer")
    for i, tap in enumerate(taps):
        count = tap.prefix + tap.grid[0] * tap.grid[1]
        real = tap.tokens[tap.tokens >= 0].long()
        if not torch.equal(real.sort().values, torch.arange(count, device=real.device)):
            raise NotApplicableError(
                f"attention_rollout: tokens of layer {i} of {name} must hold each of 0..{count - 1} once "
                f"({tap.prefix} prefix tokens and a grid of {tap.grid}), and -1 for padding"
            )


def capture(model: Subject, images: Tensor, taps: Sequence[AttentionTap]) -> list[Tensor]:
    """The attention (B, G, heads, N, N) of every tap, in one forward pass."""
    seen: list[list[Any]] = [[] for _ in taps]
    with ExitStack() as stack, torch.no_grad():
        for tap, outputs in zip(taps, seen, strict=True):
            stack.enter_context(hooks(tap.module.register_forward_hook(keeping(outputs))))
        model(images)
    for i, (tap, outputs) in enumerate(zip(taps, seen, strict=True)):
        groups, size = tap.tokens.shape
        got = [tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__ for out in outputs]
        if len(got) != 1 or len(got[0]) != 5 or got[0] != (len(images), groups, got[0][2], size, size):
            raise NotApplicableError(
                f"attention_rollout: layer {i} of {model.name} gave {got or 'nothing'}, not once (B, G, heads, N, N) "
                f"with B, G, N = {len(images)}, {groups}, {size}; a fused attention must be switched off to be seen, "
                "and each layer needs a module of its own"
            )
    return [at_least_float32(outputs[0]) for outputs in seen]


def keeping(outputs: list[Any]) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook that appends the module's output."""
    return lambda module, inputs, output: outputs.append(output)


def roll_out(attentions: Sequence[Tensor], taps: Sequence[AttentionTap], fusion: str) -> Tensor:
    """Roll the attention of all layers out, last to first: the map (B, h, w) on the finest grid."""
    grid, prefix = taps[-1].grid, taps[-1].prefix
    places = attentions[-1].new_ones(len(attentions[-1]), grid[0] * grid[1])
    vector = F.pad(places, (prefix, 0))  # a prefix token starts with nothing: relevance reaches it through attention
    for attention, tap in zip(reversed(attentions), reversed(taps), strict=True):
        if (tap.grid, tap.prefix) != (grid, prefix):  # prefix tokens go through all stages that have them
            before = F.pad(vector[:, :prefix], (0, tap.prefix - prefix))
            vector = torch.cat([before, to_finer_grid(vector[:, prefix:], grid, tap.grid)], 1)
            grid, prefix = tap.grid, tap.prefix
        vector = through_layer(vector, attention, tap.tokens.to(vector.device), fusion)
    return vector[:, prefix:].reshape(-1, *grid)


def through_layer(vector: Tensor, attention: Tensor, tokens: Tensor, fusion: str) -> Tensor:
    """Multiply the row vector (B, T) with one layer's A', kept as G blocks of N x N."""
    padding = tokens < 0
    if padding.any():  # attention to padding is dropped and the rest renormalised, as if it had been masked
        attention = attention.masked_fill(padding[:, None, None, :], 0)
        attention = attention / attention.sum(-1, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
    fused = attention.mean(2) if fusion == "mean" else attention.amin(2)
    mixed = fused + torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
    mixed = mixed / mixed.sum(-1, keepdim=True)
    rows = vector[:, tokens.clamp(min=0)].masked_fill(padding, 0)
    columns = (rows.unsqueeze(-2) @ mixed).squeeze(-2)
    return torch.zeros_like(vector).index_add_(1, tokens[~padding], columns[:, ~padding])


def to_finer_grid(vector: Tensor, coarse: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """Each parent shares equally among its existing children: the adjoint of average pooling."""
    steps = [-(-f // c) for f, c in zip(fine, coarse, strict=True)]
    if any(-(-f // s) != c for f, s, c in zip(fine, steps, coarse, strict=True)):
        raise NotApplicableError(f"attention_rollout: a grid of {coarse} cannot have been pooled from one of {fine}")
    rows = torch.arange(fine[0], device=vector.device) // steps[0]
    columns = torch.arange(fine[1], device=vector.device) // steps[1]
    parent = (rows[:, None] * coarse[1] + columns).flatten()
    return (vector / torch.bincount(parent, minlength=vector.shape[1]))[:, parent]
