"""What each work cannot do without: its passes of the network, and nothing else. And the plain loops beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.networks import Setup
from xai_assert.attention import AttentionTap
from xai_assert.preserve import hooks

PERTURBATIONS = ("black", "mean", "gaussian_noise")  # of the paper's table, here
FRACTION = 0.05
Explain = Callable[[Setup], Tensor]  # -> heatmap (B, H, W)


def gradient(setup: Setup, images: Tensor | None = None) -> Tensor:
    """One gradient pass of the batch."""
    inputs = (setup.images if images is None else images).detach().clone().requires_grad_(True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(setup.scalar(inputs).sum(), inputs)
    return found


@torch.no_grad()
def forward(setup: Setup, images: Tensor | None = None) -> Tensor:
    """One forward pass of the batch."""
    found: Tensor = setup.module(setup.images if images is None else images)
    return found


def passes(setup: Setup, forwards: int, gradients: int) -> Callable[[], None]:
    """So many passes of the batch, one after another."""

    def run() -> None:
        for _ in range(forwards):
            forward(setup)
        for _ in range(gradients):
            gradient(setup)

    return run


def saliency_heatmap(setup: Setup) -> Tensor:
    """The largest |gradient| over the channels."""
    return gradient(setup).abs().amax(1)


def fields(setup: Setup) -> dict[str, Tensor]:
    """The whole pictures perturbed, by perturbation."""
    card, images = setup.subject.card, setup.images
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    return {
        "black": card.colour((0.0, 0.0, 0.0)).to(images).expand_as(images),
        "mean": card.colour((0.485, 0.456, 0.406)).to(images).expand_as(images),
        "gaussian_noise": images + 0.8 * card.strength(3).to(images) * noise,
    }


def plain_cell(setup: Setup, explain: Explain, perturbation: str) -> Tensor:
    """AF of each image, as one writes it down: explain, predict, perturb either end, predict, compare."""
    heatmap, clean, field = explain(setup), forward(setup), fields(setup)[perturbation]
    ranked = heatmap.flatten(1).argsort(1, descending=True)
    count = int(FRACTION * ranked.shape[1] + 0.5)
    errors = []
    for end in (ranked[:, :count], ranked[:, -count:]):
        mask = torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, end, True).reshape(heatmap.shape)[:, None]
        change = forward(setup, torch.where(mask, field, setup.images)) - clean
        errors.append(change.flatten(1).square().mean(1).sqrt())
    relevant, irrelevant = errors
    return (relevant - irrelevant) / (relevant + irrelevant).clamp(min=1e-12)


def plain_table(setup: Setup, explainers: Sequence[Explain]) -> list[Tensor]:
    """Each cell on its own: what was known for the last one is found out anew."""
    return [plain_cell(setup, explain, name) for explain in explainers for name in PERTURBATIONS]


def encoder_taps(setup: Setup) -> list[AttentionTap]:
    """Where the network shows the attention of its encoder."""
    taps: list[AttentionTap] = setup.module.attention_taps(*setup.images.shape[-2:])  # type: ignore[operator]
    return [tap for tap in taps if tap.source is None]


def one_matrix(taps: Sequence[AttentionTap]) -> bool:
    """Whether all layers have one grid of tokens that all attend to each other, as in a ViT."""
    return all(tap.grid == taps[0].grid and len(tap.tokens) == 1 for tap in taps)


def product_heatmap(setup: Setup) -> Tensor:
    """Attention rollout as a product of matrices, (B, H, W), on the attention of one forward pass."""
    taps, seen = encoder_taps(setup), []
    with ExitStack() as stack:
        for tap in taps:
            keep = tap.module.register_forward_hook(lambda module, inputs, output: seen.append(output))
            stack.enter_context(hooks(keep))
        forward(setup)
    height, width = setup.images.shape[-2:]
    return product_rollout(seen, taps, (height, width))


def product_rollout(attention: Sequence[Tensor], taps: Sequence[AttentionTap], size: tuple[int, int]) -> Tensor:
    """Column sums of A'_L ... A'_1, A' = (A + I) / rowsum, for layers of `one_matrix`: O(L N^3)."""
    grid, prefix = taps[0].grid, taps[0].prefix
    product: Tensor | None = None
    for layer in attention:
        fused = layer[:, 0].mean(1)
        mixed = fused + torch.eye(fused.shape[-1], device=fused.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        product = mixed if product is None else mixed @ product
    assert product is not None
    received = product[:, prefix:].sum(1)[:, prefix:].reshape(-1, 1, *grid)
    return F.interpolate(received, size, mode="bilinear", align_corners=False)[:, 0]
