"""Attention rollout of timm's networks, against matrix products in float64.

The reference takes the attention from where the network itself computes it: with fused attention on, from the queries,
keys and masks that it gives to torch's own function. Rollout has it off, and reads hooks.
"""

import pytest
import torch
import torch.nn.functional as F
from known_models import draw
from timm_zoo import FLAT, SWIN, ZOO, build, images
from torch import nn
from torch.overrides import TorchFunctionMode
from untouched import untouched

import xai_assert as xa
from xai_assert.attributions.timm_attention import LAYERS, timm_taps

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64, products of matrices with rows that sum to 1, in another order


def target(output):
    return output[:, 0]


def rollout(module, x, **parameters):
    return xa.attribute(module, x, xa.method("attention_rollout", **parameters), target=target)


class Asked(TorchFunctionMode):
    """Notes the attention of every call of torch's fused function, (B, heads, N, N)."""

    def __init__(self):
        super().__init__()
        self.attention = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            query, key, _ = args
            logits = query @ key.mT * kwargs.get("scale", query.shape[-1] ** -0.5)
            mask = kwargs.get("attn_mask")
            self.attention.append((logits if mask is None else logits + mask).softmax(-1))
        return function(*args, **kwargs)


def attention_of(network, x):
    """The attention of each layer, from its fused form; Swin v2 has none, and only its softmax to ask."""
    layers = [m for m in network.modules() if isinstance(m, LAYERS)]
    if not hasattr(layers[0], "fused_attn"):
        seen = []
        handles = [m.softmax.register_forward_hook(lambda m, i, out: seen.append(out)) for m in layers]
        with torch.no_grad():
            network(x)
        for handle in handles:
            handle.remove()
        return seen
    kept = [m.fused_attn for m in layers]
    for m in layers:
        m.fused_attn = True
    with torch.no_grad(), Asked() as asked:
        network(x)
    for m, flag in zip(layers, kept, strict=True):
        m.fused_attn = flag
    assert len(asked.attention) == len(layers)
    return asked.attention


def mixed(heads, fusion):
    """A' of one image, from heads (heads, T, T)."""
    attention = heads.mean(0) if fusion == "mean" else heads.min(0).values
    attention = attention + torch.eye(len(attention)).to(attention)
    return attention / attention.sum(1, keepdim=True)


def product(matrices):
    stream = torch.eye(matrices[0].shape[1]).to(matrices[0])
    for matrix in matrices:
        stream = matrix @ stream
    return stream


def enlarged(grids, x):
    return F.interpolate(grids[:, None], x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def patch_of(network):
    return network.patch_embed.patch_size[0]


@pytest.fixture(params=FLAT, scope="module")
def case(request):
    """A network in float64, images, and the attention of each layer."""
    network, x = build(request.param).double(), images(request.param).double()
    return network, x, attention_of(network, x)


class TestFlat:
    def dense(self, case, fusion, i):
        _, _, attention = case
        return product([mixed(layer[i], fusion) for layer in attention])

    @pytest.mark.parametrize("fusion", ["mean", "min"])
    def test_columns(self, case, fusion):
        network, x, _ = case
        side, prefix = x.shape[-1] // patch_of(network), network.num_prefix_tokens
        maps = [self.dense(case, fusion, i)[prefix:].sum(0)[prefix:].reshape(side, side) for i in range(len(x))]
        with untouched(network, x):
            found = rollout(network, x, fusion=fusion)
        torch.testing.assert_close(found, enlarged(torch.stack(maps), x), **CLOSE)
        assert found.std() > 1e-4 * found.mean()

    def test_the_class_token(self, case):
        network, x, _ = case
        prefix = network.num_prefix_tokens
        if not prefix:
            with pytest.raises(
                xa.NotApplicableError, match=r"readout='cls', but .* shows no class token; leave it out"
            ):
                rollout(network, x, readout="cls")
            return
        side = x.shape[-1] // patch_of(network)
        maps = [self.dense(case, "mean", i)[0][prefix:].reshape(side, side) for i in range(len(x))]
        torch.testing.assert_close(rollout(network, x, readout="cls"), enlarged(torch.stack(maps), x), **CLOSE)

    def test_a_transposed_rollout_would_be_flat(self, case):
        """Row sums of M are constant, columns are not: the map is not made of rows."""
        whole = self.dense(case, "mean", 0)
        torch.testing.assert_close(whole.sum(1), torch.ones(len(whole)).to(whole), **CLOSE)
        assert whole.sum(0).std() > 1e-4


class TestPrefix:
    @pytest.mark.parametrize(
        ("name", "prefix"),
        [
            ("vit_tiny_patch16_224", 1),
            ("deit_tiny_distilled_patch16_224", 2),
            ("vit_small_patch14_reg4_dinov2", 5),
            ("vit_relpos_small_patch16_224", 0),
        ],
    )
    def test_tokens_without_a_place(self, name, prefix):
        with timm_taps(build(name), ZOO[name][0], ZOO[name][0]) as taps:
            assert {tap.prefix for tap in taps} == {prefix}

    def test_registers_without_a_class_token(self):
        network = build("vit_tiny_patch16_224", class_token=False, reg_tokens=2, global_pool="avg")
        assert rollout(network, images("vit_tiny_patch16_224")).shape == (2, 64, 64)
        with pytest.raises(xa.NotApplicableError, match="shows no class token"):
            rollout(network, images("vit_tiny_patch16_224"), readout="cls")


class TestOtherSizes:
    def test_dynamic(self):
        """A grid that is not square, and not the one that the network was made for."""
        network, x = build("vit_tiny_patch16_224", dynamic_img_size=True).double(), draw(1, 3, 48, 96).double()
        dense = product([mixed(layer[0], "mean") for layer in attention_of(network, x)])
        expected = enlarged(dense[1:].sum(0)[1:].reshape(1, 3, 6), x)
        torch.testing.assert_close(rollout(network, x), expected, **CLOSE)

    def test_padded_to_whole_patches(self):
        network = build("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True)
        with timm_taps(network, 50, 40) as taps:
            assert taps[0].grid == (4, 3)
        assert rollout(network, draw(1, 3, 50, 40)).shape == (1, 50, 40)


def merge(grid):
    """Means over 2x2 places, of a grid whose odd sides have smaller ones at the end, (T / 4, T)."""
    rows, columns = -(-grid[0] // 2), -(-grid[1] // 2)
    matrix = torch.zeros(rows * columns, grid[0] * grid[1], dtype=torch.float64)
    for y in range(grid[0]):
        for x in range(grid[1]):
            matrix[y // 2 * columns + x // 2, y * grid[1] + x] = 1
    return matrix / matrix.sum(1, keepdim=True)


def whole(attention, grid, window, shift):
    """The heads' attention (heads, T, T) from windows (G, heads, N, N), walking over the grid: shifted, then padded."""
    rows, columns = ((side + w - 1) // w * w for side, w in zip(grid, window, strict=True))
    full = torch.zeros(attention.shape[1], grid[0] * grid[1], grid[0] * grid[1]).to(attention)
    corners = [(top, left) for top in range(0, rows, window[0]) for left in range(0, columns, window[1])]
    for heads, (top, left) in zip(attention, corners, strict=True):
        members = []  # (position in the window, token)
        for place in range(window[0] * window[1]):
            y, x = top + place // window[1], left + place % window[1]
            if y < grid[0] and x < grid[1]:
                members.append((place, (y + shift[0]) % grid[0] * grid[1] + (x + shift[1]) % grid[1]))
        if members:
            place, token = (torch.tensor(m) for m in zip(*members, strict=True))
            kept = heads[:, place][:, :, place]
            full[:, token[:, None], token] = kept / kept.sum(-1, keepdim=True)
    return full


@pytest.fixture(
    params=[(name, size) for name in SWIN for size in ((64, 64), (48, 80))] + [(SWIN[0], (52, 72))],
    ids=lambda p: f"{p[0][:6]}-{p[1][0]}x{p[1][1]}",
    scope="module",
)
def windows(request):
    """Whole windows, windows that pad the grid, and (13 x 18 patches) a grid that patch merging pads."""
    name, size = request.param
    network = build(name, img_size=size).double()
    return network, draw(2, 3, *size).double()


class TestSwin:
    def dense(self, network, x, i, shifted=True):
        layers, grid, matrices = iter(attention_of(network, x)), (x.shape[2] // 4, x.shape[3] // 4), []
        first = grid
        for number, stage in enumerate(network.layers):
            if number:
                matrices.append(merge(grid))
                grid = (-(-grid[0] // 2), -(-grid[1] // 2))
            for block in stage.blocks:
                layer = next(layers)
                groups = layer.reshape(len(x), len(layer) // len(x), *layer.shape[1:])[i]
                shift = block.shift_size if shifted else (0, 0)
                matrices.append(mixed(whole(groups, grid, block.window_size, shift), "mean"))
        return product(matrices).sum(0).reshape(first)

    def test_the_map_is_that_of_the_full_matrices(self, windows):
        network, x = windows
        grids = torch.stack([self.dense(network, x, i) for i in range(len(x))])
        with untouched(network, x):
            found = rollout(network, x)
        torch.testing.assert_close(found, enlarged(grids, x), **CLOSE)

    def test_a_shift_that_is_not_undone_is_told_apart(self, windows):
        network, x = windows
        assert any(sum(block.shift_size) for stage in network.layers for block in stage.blocks)
        wrong = enlarged(self.dense(network, x, 0, shifted=False)[None], x[:1])
        assert (rollout(network, x)[:1] - wrong).abs().max() > 1e-3

    def test_the_tokens_are_those_that_the_network_cuts(self, windows):
        """What enters a layer, beside what its tap says of the map before the windows."""
        network, x = windows
        seen = {}
        blocks = [block for stage in network.layers for block in stage.blocks]
        for block in blocks:
            block._attn_map = block.register_forward_pre_hook(lambda m, i: seen.update({(m, "map"): i[0]}))
            block._attn_in = block.attn.register_forward_pre_hook(lambda m, i: seen.update({(m, "in"): i[0]}))
        with timm_taps(network, *x.shape[-2:]) as taps, torch.no_grad():
            network(x)
        for block, tap in zip(blocks, taps, strict=True):
            block._attn_map.remove(), block._attn_in.remove()
            before = seen[block, "map"]
            before = block.norm1(before) if type(network).__name__ == "SwinTransformer" else before  # v2 norms behind
            expected = before.flatten(1, 2)[:, tap.tokens.clamp(min=0)].masked_fill((tap.tokens < 0)[..., None], 0)
            assert torch.equal(seen[block.attn, "in"], expected.flatten(0, 1))

    def test_it_has_no_class_token(self, windows):
        network, x = windows
        with pytest.raises(xa.NotApplicableError, match="shows no class token; leave it out: 'columns' needs none"):
            rollout(network, x, readout="cls")


class TestFusedAttention:
    """It is off while the rollout looks, and then as it was."""

    def flags(self, network):
        return [m.fused_attn for m in network.modules() if hasattr(m, "fused_attn")]

    @pytest.mark.parametrize("name", FLAT + SWIN[:1])
    def test_it_is_restored(self, name):
        network = build(name)
        layers = [m for m in network.modules() if hasattr(m, "fused_attn")]
        for number, m in enumerate(layers):
            m.fused_attn = number % 2 == 0
        before = self.flags(network)
        assert set(before) == {True, False}
        rollout(network, images(name))
        assert self.flags(network) == before
        with timm_taps(network, ZOO[name][0], ZOO[name][0]):
            assert set(self.flags(network)) == {False}

    def test_also_after_an_exception(self):
        network = build("vit_tiny_patch16_224")
        before = self.flags(network)
        assert all(before)
        network.head = nn.Linear(7, 2)
        with untouched(network), pytest.raises(xa.ModelOutputError, match="failed on images"):
            rollout(network, images("vit_tiny_patch16_224"))
        assert self.flags(network) == before


class TestOfTheUsers:
    def test_fine_tuned_in_a_module_of_their_own(self):
        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = build("vit_tiny_patch16_224")
                self.backbone.reset_classifier(0)
                self.depth = nn.Linear(48, 1)

            def forward(self, x):
                tokens = self.backbone.forward_features(x)[:, 1:]
                return self.depth(tokens).reshape(len(x), 1, 4, 4)

        mine, x = Mine().eval(), images("vit_tiny_patch16_224")
        found = xa.attribute(xa.describe(mine, name="mine", task="depth"), x, "attention_rollout")
        torch.testing.assert_close(found, rollout(mine.backbone, x), rtol=0, atol=0)

    def test_of_two_it_is_not_known_which(self):
        two = nn.Sequential(build("vit_tiny_patch16_224"), build("vit_tiny_patch16_224"))
        with pytest.raises(xa.NotApplicableError, match="Sequential shows no attention"):
            rollout(two, images("vit_tiny_patch16_224"))

    def test_images_of_another_size_inside(self):
        """The tokens do not fit the images: no map of another grid is made."""
        inner = build("vit_tiny_patch16_224", dynamic_img_size=True)
        with pytest.raises(xa.NotApplicableError, match=r"layer 0 of Sequential gave .*once \(B, G, heads, N, N\) or"):
            rollout(nn.Sequential(nn.AvgPool2d(2), inner), images("vit_tiny_patch16_224"))


class TestRefused:
    @pytest.mark.parametrize("name", [n for n in ZOO if n not in FLAT + SWIN])
    def test_networks_without_attention_that_is_known(self, name):
        said = "attention rollout does not apply to .* shows no attention. Give .* or use another method"
        with pytest.raises(xa.NotApplicableError, match=said):
            rollout(build(name), images(name))

    def test_attention_that_is_a_difference(self):
        network = build("vit_tiny_patch16_224", attn_layer="diff", num_heads=2)
        with pytest.raises(
            xa.NotApplicableError, match="its layers are DiffAttention, whose attention is not one matr"
        ):
            rollout(network, images("vit_tiny_patch16_224"))

    def test_an_unknown_readout(self):
        with pytest.raises(ValueError, match="readout must be 'columns' or 'cls', not 'rows'"):
            rollout(build("vit_tiny_patch16_224"), images("vit_tiny_patch16_224"), readout="rows")
