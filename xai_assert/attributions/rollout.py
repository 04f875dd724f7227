"""Attention rollout (Abnar & Zuidema, 2005.00928) in its stage-wise, row-vector form.

The relevance of a token is its column sum in M = A'_L ... A'_1, the attention that it receives; with A' = (A + I) /
rowsum(A + I). As a row vector that starts with ones and is multiplied from the last layer to the first it costs
O(L N^2), not O(L N^3). Between the stages of a hierarchical network the vector is carried to the finer grid by the
adjoint of average pooling. (Row sums of M are constant: a transposed rollout is a flat map.)

A decoder whose queries attend to the encoder (its taps have a `source`) is rolled out first: each token sends half of
its relevance to the encoder's tokens that it attends to; half goes up the query stream, where a parent takes what its
children have. What reaches a layer of the encoder from several sides is added.
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
def attention_rollout(
    model: Subject, images: Tensor, target: Target, *, fusion: str = "mean", include_decoder: bool = False
) -> Tensor:
    """Attention received by each place, (B, H, W), bilinearly interpolated to the size of the images.

    Args:
        model: its module says where its attention is (`ExposesAttention`).
        images: (B, C, H, W).
        target: not used: a rollout explains the attention, not an output.
        fusion: of the heads, "mean" or "min".
        include_decoder: start at the decoder's last tokens, not at the encoder's.

    Raises:
        NotApplicableError: the module shows no attention, or none of a decoder where that is asked for.
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
    taps = chosen(module.attention_taps(height, width), include_decoder, model.name)
    check_tokens(taps, model.name)
    heatmap = roll_out(capture(model, images, taps), taps, fusion)
    return F.interpolate(heatmap[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def chosen(taps: list[AttentionTap], include_decoder: bool, name: str) -> list[AttentionTap]:
    """The taps of the encoder, or all."""
    if not include_decoder:
        return [tap for tap in taps if tap.source is None]
    if all(tap.source is None for tap in taps):
        raise NotApplicableError(f"attention_rollout: include_decoder=True, but {name} shows no decoder; leave it out")
    for i, tap in enumerate(taps):
        read = taps[tap.source] if tap.source is not None and 0 <= tap.source < i else tap
        if tap.source is not None and (read.source is not None or (read.grid, read.prefix) != (tap.grid, tap.prefix)):
            raise NotApplicableError(
                f"attention_rollout: source={tap.source} of layer {i} of {name} must be the index of an earlier layer "
                f"of the encoder with the same tokens ({tap.prefix} prefix tokens and a grid of {tap.grid})"
            )
    return taps


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
    """Roll the attention of all layers out, last to first: the map (B, h, w) on the first layer's grid."""
    after = taps[-1]
    places = attentions[-1].new_ones(len(attentions[-1]), after.grid[0] * after.grid[1])
    vector = F.pad(places, (after.prefix, 0))  # a prefix token starts with nothing: relevance reaches it by attention
    given: dict[int, Tensor] = {}  # what a decoder sent to the output of a layer, by its index
    for i, (attention, tap) in reversed(list(enumerate(zip(attentions, taps, strict=True)))):
        vector = to_stage(vector, after, tap) + given.pop(i, 0)
        blocks = fuse(attention, tap, fusion)
        own = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
        if tap.source is None:
            vector = spread(vector, (blocks + own) / (blocks + own).sum(-1, keepdim=True), tap)
        else:
            total = blocks.sum(-1, keepdim=True)  # 0 where "min" fused heads that share nothing
            vector = vector / 2
            sent = spread(vector, torch.where(total > 0, blocks / total, own), tap)
            given[tap.source] = given.get(tap.source, 0) + sent
        after = tap
    return vector[:, after.prefix :].reshape(-1, *after.grid)


def fuse(attention: Tensor, tap: AttentionTap, fusion: str) -> Tensor:
    """One layer's attention with its heads fused, (B, G, N, N)."""
    padding = tap.tokens.to(attention.device) < 0
    if padding.any():  # attention to padding is dropped and the rest renormalised, as if it had been masked
        attention = attention.masked_fill(padding[:, None, None, :], 0)
        attention = attention / attention.sum(-1, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
    return attention.mean(2) if fusion == "mean" else attention.amin(2)


def spread(vector: Tensor, blocks: Tensor, tap: AttentionTap) -> Tensor:
    """Multiply the row vector (B, T) with a matrix kept as G blocks of N x N."""
    tokens = tap.tokens.to(vector.device)
    padding = tokens < 0
    rows = vector[:, tokens.clamp(min=0)].masked_fill(padding, 0)
    columns = (rows.unsqueeze(-2) @ blocks).squeeze(-2)
    return torch.zeros_like(vector).index_add_(1, tokens[~padding], columns[:, ~padding])


def to_stage(vector: Tensor, after: AttentionTap, tap: AttentionTap) -> Tensor:
    """Carry the relevance of the tokens of one layer to those of the layer before it."""
    if (tap.grid, tap.prefix) == (after.grid, after.prefix):
        return vector
    # prefix tokens go through all stages that have them
    before = F.pad(vector[:, : after.prefix], (0, tap.prefix - after.prefix))
    carry = to_finer_grid if after.source is None else to_coarser_grid
    return torch.cat([before, carry(vector[:, after.prefix :], after.grid, tap.grid)], 1)


def to_finer_grid(vector: Tensor, coarse: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """Each parent shares equally among its existing children: the adjoint of average pooling."""
    parent = parents(coarse, fine).to(vector.device)
    return (vector / torch.bincount(parent, minlength=vector.shape[1]))[:, parent]


def to_coarser_grid(vector: Tensor, fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Each parent takes what its children have: they were made of it alone."""
    parent = parents(coarse, fine).to(vector.device)
    return vector.new_zeros(len(vector), coarse[0] * coarse[1]).index_add_(1, parent, vector)


def parents(coarse: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """The place on the coarse grid of each place on the fine one."""
    steps = [-(-f // c) for f, c in zip(fine, coarse, strict=True)]
    if any(-(-f // s) != c for f, s, c in zip(fine, steps, coarse, strict=True)):
        raise NotApplicableError(f"attention_rollout: a grid of {coarse} cannot have been pooled from one of {fine}")
    rows, columns = torch.arange(fine[0]) // steps[0], torch.arange(fine[1]) // steps[1]
    return (rows[:, None] * coarse[1] + columns).flatten()
