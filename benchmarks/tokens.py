"""Rollout alone, the forward pass excluded: a stand-in for a ViT whose attention is there before it is asked for."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

import xai_assert as xa
from benchmarks.bare import product_rollout
from benchmarks.cases import OURS
from benchmarks.measuring import Contender
from benchmarks.networks import IMAGENET, target
from xai_assert.attention import AttentionTap

LAYERS, HEADS, PATCH = 12, 3, 16  # ViT-Tiny's
PRODUCT = "matrix product"
TOLERANCE = 1e-4  # relative: float32 sums over twelve layers of a thousand tokens, in another order


class Standing(nn.Module):
    """Passes attention (1, 1, heads, N, N) drawn once through its taps; there is nothing else to compute."""

    def __init__(self, side: int, device: torch.device) -> None:
        super().__init__()
        count, random = side * side, torch.Generator().manual_seed(0)
        self.shown = nn.ModuleList(nn.Identity() for _ in range(LAYERS))
        self.scale = nn.Parameter(torch.ones(1, device=device), requires_grad=False)
        drawn = (torch.randn(1, 1, HEADS, count, count, generator=random) for _ in range(LAYERS))
        self.attention = [(3 * one).softmax(-1).to(device) for one in drawn]
        self.taps = [AttentionTap(shown, (side, side), torch.arange(count)[None]) for shown in self.shown]

    def forward(self, images: Tensor) -> Tensor:
        for shown, attention in zip(self.shown, self.attention, strict=True):
            shown(attention)
        return images.mean(1, keepdim=True) * self.scale

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        return self.taps


def rollouts(side: int, device: torch.device) -> tuple[nn.Module, list[Contender], float]:
    """Ours and the product of matrices on side * side tokens, and how far their maps are apart, relative."""
    module = Standing(side, device)
    subject = xa.describe(module, name="standing", task="depth", **IMAGENET)
    images = torch.zeros(1, 3, PATCH * side, PATCH * side, device=device)
    size = (PATCH * side, PATCH * side)
    ours = partial(xa.attribute, subject, images, "attention_rollout", target=target, batch_size=1)
    product = partial(product_rollout, module.attention, module.taps, size)
    with torch.no_grad():
        mine, other = ours(), product()
    apart = float((mine - other).abs().max() / other.abs().max())
    return module, [Contender(PRODUCT, product), Contender(OURS, ours)], apart
