"""Attention weighted by its gradient, and rolled out (Chefer et al., 2103.15679): a rollout that explains a target.

A layer counts with A = mean over the heads of max(attention x gradient of the target, 0), and R <- R + A R from the
first layer to the last. As with the plain rollout, a row vector is taken from the last layer to the first, and between
the stages of a hierarchical network carried to the finer grid by the adjoint of average pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.attributions.base import Explained, register_method
from xai_assert.attributions.gradients import checked_values
from xai_assert.attributions.rollout import capture, check_taps, chosen, shown_attention, start, to_stage
from xai_assert.errors import NotApplicableError
from xai_assert.preserve import hooks, uncompiled
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32


@register_method("gradient_rollout", gradient=True, passes=lambda **_: (0, 1), predicts=True)
def gradient_rollout(model: Subject, images: Tensor, target: Target, *, readout: str = "columns") -> Explained:
    """What speaks for the target, by way of attention, (B, H, W), bilinearly interpolated to the size of the images.

    Args:
        model: as for `attention_rollout`.
        images: (B, C, H, W).
        target: output -> (B,).
        readout: "columns", what reaches all places of the last layer; or "cls", what reaches its class token.

    Raises:
        NotApplicableError: the module shows no attention, has no class token where that is asked for, or the target
            does not depend on the attention.
    """
    height, width = images.shape[-2:]
    output = raw = None
    with shown_attention(model, height, width) as shown, torch.enable_grad():
        taps = chosen(shown, False, model.name)
        check_taps(taps, readout, model.name)
        inputs = images.detach().clone().requires_grad_(True)  # of frozen parameters there would be no graph

        def run() -> None:
            nonlocal output, raw
            output, raw = watched(model, inputs, taps)

        heads = capture(model, images, taps, lambda attention, tap: attention.detach(), run)
        assert output is not None
        assert raw is not None
        values = checked_values(target(output), len(images))
        gradients = gradients_of(values, raw, model.name)
    layers = zip(heads, gradients, taps, strict=True)
    blocks = [weighted(attention, gradient, tap) for attention, gradient, tap in layers]
    found = gained(blocks, taps, readout)[:, None]
    heatmap = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)[:, 0]
    return Explained(heatmap, output=output.detach())


def watched(model: Subject, inputs: Tensor, taps: Sequence[AttentionTap]) -> tuple[Tensor, list[Tensor]]:
    """The output, and what each layer gave as it goes on through the network: a reshaped one has no gradient."""
    seen: dict[int, Tensor] = {}

    def note(place: int, tap: AttentionTap) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, given: Any) -> Any:
            attention = tap.of(given)
            if tap.output is not None:  # shown beside the output that was already made of it
                seen[place] = attention
                return given
            # one that does not depend on the image still says which way the image went
            seen[place] = attention if attention.requires_grad else attention.detach().requires_grad_(True)
            return seen[place]

        return hook

    with uncompiled(), hooks(*(tap.module.register_forward_hook(note(i, tap)) for i, tap in enumerate(taps))):
        output = model(inputs)
    return output, [seen.get(i, output) for i in range(len(taps))]  # one that did not run is refused in a moment


def gradients_of(values: Tensor, layers: Sequence[Tensor], name: str) -> list[Tensor]:
    """Of the targets, with respect to the attention of each layer; 0 where they do not depend on it."""
    reached = [layer for layer in layers if layer.requires_grad]
    found = torch.autograd.grad(values.sum(), reached, allow_unused=True) if reached and values.requires_grad else ()
    known = {id(layer): gradient for layer, gradient in zip(reached, found, strict=False) if gradient is not None}
    if not known:
        raise NotApplicableError(
            f"gradient_rollout does not apply to {name}: its output does not depend on the attention that it shows"
        )
    return [known.get(id(layer), torch.zeros_like(layer)) for layer in layers]


def weighted(attention: Tensor, gradient: Tensor, tap: AttentionTap) -> Tensor:
    """The mean over the heads of max(attention x gradient, 0), (B, G, N, N); attention to padding counts nothing."""
    product = (attention * at_least_float32(gradient).reshape(attention.shape)).clamp(min=0).mean(2)
    return product.masked_fill((tap.tokens.to(product.device) < 0)[:, None, :], 0)


def gained(blocks: Sequence[Tensor], taps: Sequence[AttentionTap], readout: str) -> Tensor:
    """Rows of (I + A_L) ... (I + A_1) - I added up, (B, h, w) on the first layer's grid.

    What comes from the identity is kept apart: beside it the rest, gradients of a mean over a map, would be rounding.
    """
    after = taps[-1]
    own = start(blocks[-1], after, readout)
    found = torch.zeros_like(own)
    for attention, tap in reversed(list(zip(blocks, taps, strict=True))):
        own, found = to_stage(own, after, tap), to_stage(found, after, tap)
        found = found + through(own + found, attention, tap)
        after = tap
    return found[:, after.prefix :].reshape(-1, *after.grid)


def through(vector: Tensor, blocks: Tensor, tap: AttentionTap) -> Tensor:
    """The row vector (B, T) times A, which is kept as G blocks of N x N."""
    tokens = tap.tokens.to(vector.device)
    padding = tokens < 0
    rows = vector[:, tokens.clamp(min=0)].masked_fill(padding, 0)
    columns = (rows.unsqueeze(-2) @ blocks).squeeze(-2)
    return torch.zeros_like(vector).index_add_(1, tokens[~padding], columns[:, ~padding])
