"""Attention rollout through windows, shifts, padding, patch merging and the decoder, against full matrices.

The reference multiplies forwards, from the finest tokens to the map's starting point, and finds the tokens of each
window by walking over the shifted, padded grid; the library goes backwards with a vector and never builds N x N.
"""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from known_models import Attentive, draw, seeded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from untouched import untouched

import xai_assert as xa
from xai_assert.attention import AttentionTap
from xai_assert.attributions import rollout as rolling
from xai_assert.attributions.rollout import fuse
from xai_assert.models import pixelformer
from xai_assert.models.pixelformer import Pixelformer, PixelformerSize
from xai_assert.models.swin import window_tokens

# Products of float32 matrices of up to 1024 x 1024 with rows that sum to 1, in two orders of multiplication.
CLOSE = {"rtol": 2e-5, "atol": 1e-6}
# Two blocks in each stage, so that each has a shifted one; no window divides the grids.
ODD = PixelformerSize(8, (2, 2, 2, 2), (1, 2, 2, 4), 3, (8, 16, 32, 64), (2, 2, 4, 4), 5, bins=8, groups=4)


def capture(subject, images, taps):
    """The attention of all heads."""
    return rolling.capture(subject, images, taps, lambda attention, tap: attention)


def roll_out(attentions, taps, fusion):
    return rolling.roll_out([fuse(*layer, fusion) for layer in zip(attentions, taps, strict=True)], taps)


def sharpened(network):
    """Random attention is nearly flat, and a flat one hides mistakes: larger queries and biases."""
    for name, parameter in network.named_parameters():
        if "qkv" in name or ".q." in name or "bias_table" in name:
            parameter.data.mul_(2)
    return network.eval()


@pytest.fixture(
    params=[("nano", (64, 96)), ("nano", (128, 128)), ("odd", (64, 96))],
    ids=["padded", "not padded", "odd"],
    scope="module",
)
def case(request):
    """A subject, images, the taps and the attention."""
    size, pixels = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pixelformer.SIZES, "odd", ODD)
        network = sharpened(seeded(Pixelformer(size)))
    subject = xa.describe(network, name=size, task="depth")
    images = draw(2, 3, *pixels)
    taps = network.attention_taps(*pixels)
    return subject, images, taps, capture(subject, images, taps)


def full_attention(attention, grid, window, shift):
    """The heads' attention (heads, T, T) between the tokens of a grid, without padding, rows renormalised."""
    height, width = grid
    rows, columns = (-(-side // window) * window for side in grid)
    full = torch.zeros(attention.shape[1], height * width, height * width)
    group = 0
    for row in range(0, rows, window):
        for column in range(0, columns, window):
            members = []  # (position in the window, token)
            for i in range(window):
                for j in range(window):
                    y, x = (row + i + shift) % rows, (column + j + shift) % columns
                    if y < height and x < width:
                        members.append((window * i + j, width * y + x))
            if members:
                place, token = (torch.tensor(m) for m in zip(*members, strict=True))
                kept = attention[group][:, place][:, :, place]
                full[:, token[:, None], token] = kept / kept.sum(-1, keepdim=True)
            group += 1
    return full


def fused(heads, fusion):
    return heads.mean(0) if fusion == "mean" else heads.min(0).values


def rows_to_one(matrix):
    return matrix / matrix.sum(1, keepdim=True)


def pooling(grid):
    """Means over 2x2 tokens, (T / 4, T)."""
    count = grid[0] * grid[1]
    return F.avg_pool2d(torch.eye(count).reshape(count, 1, *grid), 2).flatten(1).T


def dense_rollout(subject, attentions, grids, fusion, include_decoder):
    """The full matrices (T, T) of each image, by the network's own structure."""
    network = subject.module
    maps = []
    for image in range(len(attentions[0])):
        layers = iter(attention[image] for attention in attentions)
        encoded, stream = [], torch.eye(grids[0][0] * grids[0][1])
        for stage, grid in zip(network.backbone.layers, grids, strict=True):
            if encoded:
                stream = pooling(grids[len(encoded) - 1]) @ stream
            for block in stage.blocks:
                attention = fused(full_attention(next(layers), grid, block.window, block.shift), fusion)
                stream = rows_to_one(attention + torch.eye(len(attention))) @ stream
            encoded.append(stream)
        if include_decoder:
            for i in (3, 2, 1, 0):
                window = network.get_submodule(f"sam{i + 1}").sam_block.window
                attention = rows_to_one(fused(full_attention(next(layers), grids[i], window, 0), fusion))
                stream = 0.5 * attention @ encoded[i] + 0.5 * stream
                if i:  # PixelShuffle: four children are made of one parent
                    child_of = (pooling(grids[i - 1]) > 0).float().T
                    stream = child_of @ stream
        maps.append(stream.sum(0).reshape(grids[0]))
    return torch.stack(maps)


def rollout(subject, images, fusion, include_decoder):
    return xa.attribute(
        subject, images, xa.method("attention_rollout", fusion=fusion, include_decoder=include_decoder), task="depth"
    )


def encoder_of(taps, attentions):
    chosen = [(tap, attention) for tap, attention in zip(taps, attentions, strict=True) if tap.source is None]
    return [tap for tap, _ in chosen], [attention for _, attention in chosen]


@pytest.mark.parametrize("include_decoder", [False, True])
@pytest.mark.parametrize("fusion", ["mean", "min"])
class TestDenseReference:
    def test_the_map_is_that_of_the_full_matrices(self, case, fusion, include_decoder):
        subject, images, _, attentions = case
        grids = [(images.shape[2] // step, images.shape[3] // step) for step in (4, 8, 16, 32)]
        grid = dense_rollout(subject, attentions, grids, fusion, include_decoder)
        expected = F.interpolate(grid[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        with untouched(subject, images):
            found = rollout(subject, images, fusion, include_decoder)
        torch.testing.assert_close(found, expected, **CLOSE)
        assert grid.std() > 1000 * CLOSE["rtol"] * grid.mean()

    def test_mass_is_conserved(self, case, fusion, include_decoder):
        _, images, taps, attentions = case
        if not include_decoder:
            taps, attentions = encoder_of(taps, attentions)
        total = roll_out(attentions, taps, fusion).sum((1, 2))
        step = 4 if include_decoder else 32  # where the relevance of 1 a token starts
        expected = torch.full((2,), images.shape[2] * images.shape[3] / step**2)
        torch.testing.assert_close(total, expected, **CLOSE)

    def test_a_shift_that_is_not_undone_is_told_apart(self, case, fusion, include_decoder):
        _, _, taps, attentions = case
        if not include_decoder:
            taps, attentions = encoder_of(taps, attentions)
        right = roll_out(attentions, taps, fusion)
        wrong = [dataclasses.replace(t, tokens=window_tokens(t.grid, math.isqrt(t.tokens.shape[1]))) for t in taps]
        changed = roll_out(attentions, wrong, fusion)
        assert (changed - right).abs().max() > 100 * CLOSE["rtol"] * right.max()


def test_the_decoder_changes_the_map(case):
    subject, images, _, _ = case
    without, with_it = (rollout(subject, images, "mean", include) for include in (False, True))
    per_image = [h / h.mean((1, 2), keepdim=True) for h in (without, with_it)]
    assert (per_image[0] - per_image[1]).abs().max() > 0.01


def test_the_taps_tokens_are_those_that_the_network_cuts(case):
    """What enters a block's attention, compared with what its taps say of the map before the windows."""
    subject, images, taps, _ = case
    blocks = [block for stage in subject.module.backbone.layers for block in stage.blocks]
    blocks += [subject.module.get_submodule(f"sam{i}").sam_block for i in (4, 3, 2, 1)]
    seen = {}
    handles = []
    for block in blocks:
        handles.append(block.norm1.register_forward_hook(lambda m, i, out, b=block: seen.update({(b, "map"): out})))
        handles.append(block.attn.register_forward_pre_hook(lambda m, i, b=block: seen.update({(b, "in"): i[0]})))
    with torch.no_grad():
        subject(images)
    for handle in handles:
        handle.remove()
    assert [tap.module for tap in taps] == [block.attn.attend for block in blocks]
    for block, tap in zip(blocks, taps, strict=True):
        tokens = seen[block, "map"].flatten(1, 2)
        padding = tap.tokens < 0
        expected = tokens[:, tap.tokens.clamp(min=0)].masked_fill(padding[..., None], 0)
        assert torch.equal(seen[block, "in"], expected)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return output


def test_memory_is_linear_in_the_number_of_tokens():
    network = seeded(Pixelformer("nano")).eval()
    largest = []
    for side in (128, 256):  # windows of 4 divide all grids: no padding blurs the count
        subject, taps = xa.describe(network, name="nano", task="depth"), network.attention_taps(side, side)
        attentions = capture(subject, draw(1, 3, side, side), taps)
        with Largest() as mode:
            roll_out(attentions, taps, "mean")
        largest.append(mode.elements)
    assert largest[1] == 4 * largest[0]


def test_at_the_size_of_nyu_nothing_larger_is_made_than_by_the_network_itself():
    subject = xa.describe(seeded(Pixelformer("nano")).eval(), name="nano", task="depth")
    image = draw(1, 3, 480, 640)
    with torch.no_grad(), Largest() as bare:
        subject(image)
    with Largest() as whole:
        heatmap = xa.heatmap(subject, image, xa.method("attention_rollout", include_decoder=True))
    assert heatmap.shape == (1, 480, 640)
    tokens = 120 * 160
    assert whole.elements == bare.elements < tokens**2 / 50


class TestKnownAnswers:
    """One encoder layer and one decoder layer of two tokens, worked out by hand."""

    def rolled(self, cross, fusion="mean", heads=1):
        taps = [AttentionTap(torch.nn.Identity(), (1, 2), torch.arange(2)[None], source=s) for s in (None, 0)]
        encoder = torch.eye(2).expand(1, 1, heads, 2, 2)
        return roll_out([encoder, torch.tensor(cross)[None, None]], taps, fusion).flatten().tolist()

    def test_half_goes_to_the_encoder_and_half_up_the_stream(self):
        # both queries look at token 0: it gets 2 * 1/2, and each token keeps its own 1/2
        assert self.rolled([[[1.0, 0.0], [1.0, 0.0]]]) == [1.5, 0.5]

    def test_half_also_of_what_all_heads_share(self):
        # min over heads: [.25, .25] in both rows, which is half of [.5, .5] when the row is made to sum to 1
        cross = [[[0.25, 0.75]] * 2, [[0.75, 0.25]] * 2]
        assert self.rolled(cross, "min", heads=2) == [1.0, 1.0]

    def test_heads_that_share_nothing_leave_each_token_its_own(self):
        cross = [[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2]
        assert self.rolled(cross, "min", heads=2) == [1.0, 1.0]

    def test_a_finer_decoder_gives_a_parent_what_its_children_have(self):
        """Encoder of 4 and 2 tokens; a decoder on 2, then one on 4 whose queries all look at token 3."""
        grids, sources = [(1, 4), (1, 2), (1, 2), (1, 4)], [None, None, 1, 0]
        taps = [
            AttentionTap(torch.nn.Identity(), g, torch.arange(g[1])[None], source=s)
            for g, s in zip(grids, sources, strict=True)
        ]
        still = [torch.eye(g[1])[None, None, None] for g in grids]
        still[3] = torch.eye(4)[[3, 3, 3, 3]][None, None, None]
        # fine: 2 go to token 3 of the encoder, 1/2 stays with each, 1 with each parent; on the coarse grid the halves
        # meet again: 1 a token, which its two children share
        assert roll_out(still, taps, "mean").flatten().tolist() == [0.5, 0.5, 0.5, 2.5]


class TestRefused:
    def test_a_network_without_a_decoder(self):
        method = xa.method("attention_rollout", include_decoder=True)
        with pytest.raises(xa.NotApplicableError, match="include_decoder=True, but Attentive shows no decoder; leave"):
            xa.attribute(Attentive(), draw(1, 3, 8, 8), method, task="depth")

    @pytest.mark.parametrize("source", [1, -1, 7, 5, 6])
    def test_a_source_that_is_no_layer_of_the_encoder_with_these_tokens(self, source):
        network = Pixelformer("nano")
        right = network.attention_taps(64, 64)
        wrong = dataclasses.replace(right[6], source=source)
        network.attention_taps = lambda *_: [*right[:6], wrong]
        method = xa.method("attention_rollout", include_decoder=True)
        said = rf"source={source} of layer 6 of Pixelformer must be the index of an earlier layer of the encoder with"
        with pytest.raises(xa.NotApplicableError, match=said):
            xa.attribute(network, draw(1, 3, 64, 64), method, task="depth")


@pytest.fixture(scope="module")
def nano64():
    module = seeded(Pixelformer("nano")).double().eval()
    return xa.describe(module, name="nano", task="depth", mean=[0.0] * 3, std=[1.0] * 3)


class TestOtherMethods:
    """The small network is explained by what explains METER."""

    def test_saliency_is_the_gradient(self, nano64):
        images = draw(2, 3, 64, 96).double()
        with untouched(nano64, images):
            found = xa.attribute(nano64, images, "saliency")
        copy = images.clone().requires_grad_()
        nano64.module(copy).mean((1, 2, 3)).sum().backward()
        torch.testing.assert_close(found.double(), copy.grad, rtol=1e-5, atol=1e-12)
        assert xa.heatmap(nano64, images, "saliency").std() > 0

    def test_integrated_gradients_add_up(self, nano64):
        """Midpoint rule over 100 steps, from a picture near by, where the path is smooth."""
        images = draw(1, 3, 64, 64).double()
        near = images + 0.1 * draw(1, 3, 64, 64, seed=1).double()
        method = xa.method("integrated_gradients", steps=100, baseline=near)
        with torch.no_grad():
            moved = (nano64(images) - nano64(near)).mean()
        found = xa.attribute(nano64, images, method).double().sum()
        assert found == pytest.approx(float(moved), rel=0.01)

    @pytest.mark.parametrize("include_decoder", [False, True])
    def test_fidelity_of_the_rollout(self, nano64, include_decoder):
        method = xa.method("attention_rollout", include_decoder=include_decoder)
        images = draw(2, 3, 64, 64).double()
        score = xa.attribution_fidelity(nano64, method, images, perturbation="gaussian_noise", fraction=0.1)
        assert score.values.shape == (2,)
        assert (score.relevant_error > 0).all()
