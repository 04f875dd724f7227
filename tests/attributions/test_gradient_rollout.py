"""Gradient-weighted attention: a case on paper, the product of explicit matrices, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from known_models import Attentive, draw, seeded
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.attention import AttentionTap
from xai_assert.attributions.gradient_rollout import gained, gradients_of, watched, weighted
from xai_assert.subject import describe


class OneLayer(nn.Module):
    """Depth (B, 1, 2, 2) = A x of the four patches' brightness x, with fixed attention A: all is known."""

    def __init__(self):
        super().__init__()
        self.shown = nn.Identity()
        self.attention = nn.Parameter(draw(4, 4).softmax(-1))

    def forward(self, images):
        x = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
        attention = self.shown(self.attention.expand(len(images), 1, 1, 4, 4))
        return (attention[:, 0, 0] @ x[:, :, None]).reshape(-1, 1, 2, 2)

    def attention_taps(self, height, width):
        return [AttentionTap(self.shown, (2, 2), torch.arange(4)[None])]


def subject(module):
    return describe(module, name="net", task="depth", unit="m")


def test_one_layer_on_paper():
    """The gradient of mean(A x) with respect to A_ij is x_j / 4: the map is the sum over i of max(A_ij x_j, 0) / 4."""
    net, images = subject(OneLayer()), draw(3, 3, 8, 8)
    x = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
    assert (x < 0).any(), "some patches speak against the target"
    expected = (net.module.attention.detach().sum(0) * x.clamp(min=0) / 4).reshape(3, 1, 2, 2)
    expected = F.interpolate(expected, (8, 8), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(xa.heatmap(net, images, "gradient_rollout"), expected)


def test_it_follows_the_target():
    """Against the target what spoke for it is 0, and the other way round; the plain rollout stays as it is."""
    net, images = subject(OneLayer()), draw(3, 3, 8, 8)
    targets = [lambda output: output.mean((1, 2, 3)), lambda output: -output.mean((1, 2, 3))]
    least = [xa.heatmap(net, images, "gradient_rollout", target=target)[:, ::7, ::7] for target in targets]
    assert torch.equal(torch.minimum(*least), torch.zeros(3, 2, 2)), "no corner, which is one patch, is in both"
    plain = [xa.heatmap(net, images, "attention_rollout", target=target) for target in targets]
    assert torch.equal(*plain)


def dense(net, images, taps):
    """Column sums of (I + A_L) ... (I + A_1) - I over the last layer's places, from full matrices in float64."""
    with torch.enable_grad():
        output, layers = watched(net, images.clone().requires_grad_(True), taps)
        found = torch.autograd.grad(output.mean((1, 2, 3)).sum(), layers)
    maps = []
    for image in range(len(images)):
        product, before = None, None
        for layer, gradient, tap in zip(layers, found, taps, strict=True):
            count = tap.prefix + tap.grid[0] * tap.grid[1]
            matrix = torch.eye(count, dtype=torch.float64)
            mixed = (layer * gradient).detach().double().clamp(min=0).mean(2)[image]
            for group, tokens in zip(mixed, tap.tokens, strict=True):
                real = tokens >= 0
                matrix[tokens[real, None], tokens[real]] += group[real][:, real]
            if before is not None and before.grid != tap.grid:
                matrix = matrix @ pooling(before, tap)
            product, before = matrix if product is None else matrix @ product, tap
        bare = torch.eye(len(product), dtype=torch.float64) if taps[0].grid == taps[-1].grid else pooling(taps[0], tap)
        maps.append((product - bare)[taps[-1].prefix :].sum(0)[taps[0].prefix :].reshape(taps[0].grid))
    return torch.stack(maps)


def pooling(fine, coarse):
    count = fine.grid[0] * fine.grid[1]
    pooled = F.avg_pool2d(torch.eye(count, dtype=torch.float64).reshape(count, 1, *fine.grid), 2, ceil_mode=True)
    return torch.block_diag(torch.eye(coarse.prefix, fine.prefix, dtype=torch.float64), pooled.flatten(1).T)


@pytest.mark.parametrize("options", [{}, {"prefix": 2}, {"window": (2, 3)}], ids=["global", "prefix", "padded"])
def test_it_is_the_product_of_the_full_matrices(options):
    net, images = subject(seeded(Attentive(**options))), draw(2, 3, 20, 28)
    taps = net.module.attention_taps(20, 28)
    expected = dense(net, images, taps)
    with torch.enable_grad():
        output, layers = watched(net, images.clone().requires_grad_(True), taps)
        gradients = gradients_of(output.mean((1, 2, 3)), layers, "net")
    blocks = [weighted(a.detach(), g, tap) for a, g, tap in zip(layers, gradients, taps, strict=True)]
    # products in float32, of numbers far below 1
    torch.testing.assert_close(gained(blocks, taps, "columns").double(), expected, rtol=1e-4, atol=1e-12)


def test_its_pass_is_the_clean_one_and_nothing_is_left():
    net, images = subject(seeded(Attentive())), draw(2, 3, 20, 28)
    ev = xa.Evaluation(net, images)
    ev.attribution_fidelity("gradient_rollout", perturbation="gaussian_noise")
    assert (ev.passes.gradient, ev.passes.forward) == (2, 4), "one gradient pass an image, and two perturbed ones"
    net.module.train()
    with untouched(net, images):
        xa.attribute(net, images, "gradient_rollout")


def test_half_precision_and_frozen_parameters():
    net, images = subject(seeded(Attentive()).requires_grad_(False)), draw(2, 3, 20, 28)
    full = xa.heatmap(net, images, "gradient_rollout")
    net.module.to(torch.bfloat16)
    half = xa.heatmap(net, images.to(torch.bfloat16), "gradient_rollout")
    # bfloat16 keeps 3 digits
    assert F.cosine_similarity(full.flatten(1), half.flatten(1)).min() > 0.95


def test_what_is_refused():
    class Apart(OneLayer):
        """Shows an attention that its output does not come from."""

        def forward(self, images):
            super().forward(images)
            return images.mean(1, keepdim=True)

    images = draw(2, 3, 8, 8)
    with pytest.raises(xa.NotApplicableError, match="its output does not depend on the attention that it shows"):
        xa.attribute(subject(Apart()), images, "gradient_rollout")
    with pytest.raises(xa.NotApplicableError, match="Conv2d shows no attention"):
        xa.attribute(subject(nn.Conv2d(3, 1, 1)), images, "gradient_rollout")
    with pytest.raises(xa.NotApplicableError, match="shows no class token"):
        xa.attribute(subject(OneLayer()), images, "gradient_rollout(readout='cls')")
    with pytest.raises(ValueError, match="readout must be 'columns' or 'cls', not 'rows'"):
        xa.attribute(subject(OneLayer()), images, "gradient_rollout(readout='rows')")
