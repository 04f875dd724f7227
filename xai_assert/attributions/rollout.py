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

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap, ExposesAttention
from xai_assert.attributions.base import register_method
from xai_assert.attributions.transformers_attention import attention_layers, transformers_taps
from xai_assert.batching import without_gradient
from xai_assert.errors import NotApplicableError
from xai_assert.preserve import hooks, uncompiled
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32

Keep = Callable[[Tensor, AttentionTap], Tensor]


class Seen(NamedTuple):
    """What a layer gave: its shape, or its type, and what was kept of it if it is attention."""

    shape: tuple[int, ...] | str
    kept: Tensor | None


@register_method("attention_rollout", passes=lambda **_: (1, 0))
def attention_rollout(
    model: Subject,
    images: Tensor,
    target: Target,
    *,
    fusion: str = "mean",
    head: int | None = None,
    readout: str = "columns",
    include_decoder: bool = False,
) -> Tensor:
    """Attention received by each place, (B, H, W), bilinearly interpolated to the size of the images.

    Args:
        model: its module says where its attention is (`ExposesAttention`), or is a network of timm's (ViT, DeiT, BEiT,
            EVA, DINOv2, Swin) or of transformers' (ViT, DeiT, DINOv2, DPT), plain, fine-tuned or inside of another
            module that gives it the images as they are.
        images: (B, C, H, W).
        target: not used: a rollout explains the attention, not an output.
        fusion: of the heads, "mean" or "min".
        head: roll out this one of each layer alone, counted from 0; a layer with fewer heads takes it modulo theirs.
        readout: "columns", what all places receive from each other; or "cls", what the class token receives from each.
        include_decoder: start at the decoder's last tokens, not at the encoder's.

    Raises:
        NotApplicableError: the module shows no attention, or has no decoder or class token where that is asked for.
    """
    if fusion not in ("mean", "min"):
        raise ValueError(f"attention_rollout: fusion must be 'mean' or 'min', not {fusion!r}")
    if head is not None and (isinstance(head, bool) or not isinstance(head, int) or head < 0):
        raise ValueError(f"attention_rollout: head must be a whole number of at least 0, or None, not {head!r}")

    def keep(attention: Tensor, tap: AttentionTap) -> Tensor:
        heads = attention if head is None else attention[:, :, [head % attention.shape[2]]]
        return fuse(heads, tap, fusion)

    height, width = images.shape[-2:]
    with shown_attention(model, height, width) as shown:
        taps = chosen(shown, include_decoder, model.name)
        check_taps(taps, readout, model.name)
        blocks = capture(model, images, taps, keep)
    heatmap = roll_out(blocks, taps, readout)
    return F.interpolate(heatmap[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


@contextmanager
def shown_attention(model: Subject, height: int, width: int) -> Iterator[list[AttentionTap]]:
    """The taps that the module shows itself, or those of a network of timm's or of transformers' in it."""
    module = model.module
    if isinstance(module, ExposesAttention):
        yield module.attention_taps(height, width)
        return
    layers = attention_layers(module)
    if layers:
        with transformers_taps(layers, height, width) as taps:
            yield taps
        return
    from xai_assert.attributions import timm_attention  # late, because timm takes its time to import

    network = timm_attention.timm_network(module)
    if network is None:
        raise NotApplicableError(
            f"attention rollout does not apply to {model.name}: {type(module).__name__} shows no attention. Give the "
            "module a method attention_taps(height, width) (see xai_assert.attention), or use another method"
        )
    with timm_attention.timm_taps(network, height, width) as taps:
        yield taps


def check_taps(taps: Sequence[AttentionTap], readout: str, name: str) -> None:
    """Refuse taps that do not hold together, or do not have what is to be read out."""
    if readout not in ("columns", "cls"):
        raise ValueError(f"attention rollout: readout must be 'columns' or 'cls', not {readout!r}")
    check_tokens(taps, name)
    if readout == "cls" and taps[-1].class_token is None:
        raise NotApplicableError(
            f"attention rollout: readout='cls', but {name} shows no class token; leave it out: 'columns' needs none"
        )


def chosen(taps: list[AttentionTap], include_decoder: bool, name: str) -> list[AttentionTap]:
    """The taps of the encoder, or all."""
    if not include_decoder:
        return [tap for tap in taps if tap.source is None]
    if all(tap.source is None for tap in taps):
        raise NotApplicableError(f"attention rollout: include_decoder=True, but {name} shows no decoder; leave it out")
    for i, tap in enumerate(taps):
        read = taps[tap.source] if tap.source is not None and 0 <= tap.source < i else tap
        if tap.source is not None and (read.source is not None or (read.grid, read.prefix) != (tap.grid, tap.prefix)):
            raise NotApplicableError(
                f"attention rollout: source={tap.source} of layer {i} of {name} must be the index of an earlier layer "
                f"of the encoder with the same tokens ({tap.prefix} prefix tokens and a grid of {tap.grid})"
            )
    return taps


def check_tokens(taps: Sequence[AttentionTap], name: str) -> None:
    """Refuse taps in which a token of the stage is missing or stands twice: the map would be wrong without a word."""
    if not taps:
        raise NotApplicableError(f"attention rollout does not apply to {name}: its attention_taps returned no layer")
    for i, tap in enumerate(taps):
        count = tap.prefix + tap.grid[0] * tap.grid[1]
        real = tap.tokens[tap.tokens >= 0].long()
        if not torch.equal(real.sort().values, torch.arange(count, device=real.device)):
            raise NotApplicableError(
                f"attention rollout: tokens of layer {i} of {name} must hold each of 0..{count - 1} once "
                f"({tap.prefix} prefix tokens and a grid of {tap.grid}), and -1 for padding"
            )


def capture(
    model: Subject,
    images: Tensor,
    taps: Sequence[AttentionTap],
    keep: Keep,
    run: Callable[[], object] | None = None,
) -> list[Tensor]:
    """What `keep` leaves of the attention (B, G, heads, N, N) of every tap, in one pass: `run`, or a plain one.

    It is asked as each layer is done, so that only one layer's heads are alive at a time.
    """
    seen: list[list[Seen]] = [[] for _ in taps]
    with uncompiled(), ExitStack() as stack:
        for tap, outputs in zip(taps, seen, strict=True):
            stack.enter_context(hooks(tap.module.register_forward_hook(keeping(outputs, tap, len(images), keep))))
        _ = run() if run else without_gradient(model, images)
    found = []
    for i, (tap, outputs) in enumerate(zip(taps, seen, strict=True)):
        if len(outputs) != 1 or outputs[0].kept is None:
            groups, size = tap.tokens.shape
            raise NotApplicableError(
                f"attention rollout: layer {i} of {model.name} gave {[o.shape for o in outputs] or 'nothing'}, not "
                "once (B, G, heads, N, N) or (B * G, heads, N, N) with B, G, N = "
                f"{len(images)}, {groups}, {size}; a fused attention must be switched off to be seen, and each layer "
                "needs a module of its own"
            )
        found.append(outputs[0].kept)
    return found


def keeping(outputs: list[Seen], tap: AttentionTap, count: int, keep: Keep) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook that notes what `keep` leaves of the module's output, if that is attention as the tap says."""
    groups, size = tap.tokens.shape

    def hook(module: nn.Module, inputs: Any, given: Any) -> None:
        output = tap.of(given)
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == count * groups:  # groups in the batch
            output = output.reshape(count, groups, *output.shape[1:])
        fits = isinstance(output, Tensor) and output.ndim == 5
        fits = fits and tuple(output.shape) == (count, groups, output.shape[2], size, size)
        outputs.append(Seen(shape, keep(at_least_float32(output), tap) if fits else None))

    return hook


def fuse(attention: Tensor, tap: AttentionTap, fusion: str) -> Tensor:
    """One layer's attention with its heads fused, (B, G, N, N)."""
    padding = tap.tokens.to(attention.device) < 0
    if padding.any():  # attention to padding is dropped and the rest renormalised, as if it had been masked
        attention = attention.masked_fill(padding[:, None, None, :], 0)
        attention = attention / attention.sum(-1, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
    return attention.mean(2) if fusion == "mean" else attention.amin(2)


def start(like: Tensor, tap: AttentionTap, readout: str) -> Tensor:
    """The row vector (B, T) that a rollout begins with, at the last layer."""
    vector = like.new_zeros(len(like), tap.prefix + tap.grid[0] * tap.grid[1])
    if readout == "cls":
        vector[:, tap.class_token] = 1
    else:
        vector[:, tap.prefix :] = 1  # a prefix token starts with nothing: relevance reaches it by attention
    return vector


def roll_out(blocks: Sequence[Tensor], taps: Sequence[AttentionTap], readout: str = "columns") -> Tensor:
    """Roll the fused attention (B, G, N, N) of all layers out, last to first: the map (B, h, w) on the first's grid."""
    after = taps[-1]
    vector = start(blocks[-1], after, readout)
    given: dict[int, Tensor] = {}  # what a decoder sent to the output of a layer, by its index
    for i, (attention, tap) in reversed(list(enumerate(zip(blocks, taps, strict=True)))):
        vector = to_stage(vector, after, tap) + given.pop(i, 0)
        if tap.source is None:
            vector = spread(vector, attention, tap, own=1.0)
        else:
            vector = vector / 2
            given[tap.source] = given.get(tap.source, 0) + spread(vector, attention, tap, own=0.0)
        after = tap
    return vector[:, after.prefix :].reshape(-1, *after.grid)


def spread(vector: Tensor, blocks: Tensor, tap: AttentionTap, *, own: float) -> Tensor:
    """The row vector (B, T) times (A + own I) / rowsum(A + own I), where A is kept as G blocks of N x N.

    The rows are normalised in the vector, so that no other matrix is made. A row of A that is 0 everywhere ("min"
    fuses heads that share nothing) keeps what it has.
    """
    tokens = tap.tokens.to(vector.device)
    padding = tokens < 0
    rows = vector[:, tokens.clamp(min=0)].masked_fill(padding, 0)  # (B, G, N)
    total = blocks.sum(-1) + own
    share = rows / total.where(total > 0, torch.ones_like(total))
    columns = (share.unsqueeze(-2) @ blocks).squeeze(-2) + torch.where(total > 0, own * share, rows)
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
        raise NotApplicableError(f"attention rollout: a grid of {coarse} cannot have been pooled from one of {fine}")
    rows, columns = torch.arange(fine[0]) // steps[0], torch.arange(fine[1]) // steps[1]
    return (rows[:, None] * coarse[1] + columns).flatten()
