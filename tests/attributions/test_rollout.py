"""Attention rollout, against the product of the full matrices, built here from the definition."""

import pytest
import torch
import torch.nn.functional as F
from known_models import Attentive, ReturnsTuple, draw
from torch import Tensor, nn
from untouched import untouched

import xai_assert as xa
from xai_assert.attention import AttentionTap, patch_positions
from xai_assert.attributions import rollout
from xai_assert.attributions.rollout import fuse
from xai_assert.models.meter import stage_grids
from xai_assert.subject import as_subject

# Products of float32 matrices of up to 128 x 128 with rows that sum to 1, in two orders of multiplication.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def capture(subject, images, taps):
    """The attention of all heads."""
    return rollout.capture(subject, images, taps, lambda attention, tap: attention)


def roll_out(attentions, taps, fusion):
    return rollout.roll_out([fuse(*layer, fusion) for layer in zip(attentions, taps, strict=True)], taps)


def full_matrix(attention: Tensor, tap: AttentionTap, fusion: str) -> Tensor:
    """A' = (A + I) / rowsum(A + I) of one image, (T, T), with the groups' attention (G, heads, N, N) at its place."""
    size = tap.prefix + tap.grid[0] * tap.grid[1]
    heads = torch.zeros(attention.shape[1], size, size)
    for group, tokens in zip(attention, tap.tokens, strict=True):
        real = tokens >= 0
        kept = group[:, real][:, :, real]
        heads[:, tokens[real, None], tokens[real]] = kept / kept.sum(-1, keepdim=True)
    mixed = (heads.mean(0) if fusion == "mean" else heads.min(0).values) + torch.eye(size)
    return mixed / mixed.sum(1, keepdim=True)


def pooling_matrix(fine: AttentionTap, coarse: AttentionTap) -> Tensor:
    """Average pooling from one stage's tokens to the next's, (T coarse, T fine); prefix tokens pass."""
    count = fine.grid[0] * fine.grid[1]
    pooled = F.avg_pool2d(torch.eye(count).reshape(count, 1, *fine.grid), 2, ceil_mode=True)
    assert pooled.shape[2:] == coarse.grid
    return torch.block_diag(torch.eye(coarse.prefix, fine.prefix), pooled.flatten(1).T)


def dense_product(attentions: list[Tensor], taps: list[AttentionTap], fusion: str) -> Tensor:
    """M = A'_L ... A'_1 of every image, with the pooling of a hierarchical network where the grid changes."""
    products = []
    for image in range(len(attentions[0])):
        product, before = None, None
        for attention, tap in zip(attentions, taps, strict=True):
            layer = full_matrix(attention[image], tap, fusion)
            if before is not None and before.grid != tap.grid:
                layer = layer @ pooling_matrix(before, tap)
            product, before = layer if product is None else layer @ product, tap
        products.append(product)
    return torch.stack(products)


def dense_rollout(attentions: list[Tensor], taps: list[AttentionTap], fusion: str) -> Tensor:
    """Column sums over the last stage's places, on the first stage's places."""
    columns = dense_product(attentions, taps, fusion)[:, taps[-1].prefix :].sum(1)
    return columns[:, taps[0].prefix :].reshape(-1, *taps[0].grid)


def meter_case(meter):
    return meter, draw(2, 3, 64, 128)


def attentive_case(**options):
    return lambda _: (as_subject(Attentive(**options)), draw(2, 3, 20, 28))


@pytest.fixture(
    params=[meter_case, attentive_case(), attentive_case(prefix=3), attentive_case(window=(2, 3))],
    ids=["meter", "global", "prefix", "padded"],
)
def case(request, meter):
    """A subject with attention, images that are not square, its taps and its attention."""
    subject, images = request.param(meter)
    taps = subject.module.attention_taps(*images.shape[-2:])
    return subject, images, taps, capture(subject, images, taps)


@pytest.mark.parametrize("fusion", ["mean", "min"])
class TestDenseReference:
    def test_the_map_is_the_column_sums_of_the_full_product(self, case, fusion):
        subject, images, taps, attentions = case
        grid = dense_rollout(attentions, taps, fusion)
        expected = F.interpolate(grid[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        found = xa.attribute(subject, images, xa.method("attention_rollout", fusion=fusion), task="depth")
        torch.testing.assert_close(found, expected, **CLOSE)

    def test_a_transposed_rollout_would_be_flat(self, case, fusion):
        _, _, taps, attentions = case
        product = dense_product(attentions, taps, fusion)
        if not taps[0].prefix:
            torch.testing.assert_close(product.sum(2), torch.ones_like(product.sum(2)), **CLOSE)
        found = roll_out(attentions, taps, fusion)
        assert found.std() > 100 * CLOSE["rtol"] * found.mean()

    def test_transposed_attention_is_told_apart(self, case, fusion):
        _, _, taps, attentions = case
        wrong = roll_out([a.transpose(-1, -2) / a.sum(-2)[..., None] for a in attentions], taps, fusion)
        expected = dense_rollout(attentions, taps, fusion)
        assert (wrong - expected).abs().max() > 100 * CLOSE["rtol"] * expected.max()

    def test_layers_in_the_wrong_order_are_told_apart(self, fusion):
        tokens = torch.arange(12)[None]
        taps = [AttentionTap(nn.Identity(), (3, 4), tokens)] * 2
        attentions = [(4 * draw(1, 1, 2, 12, 12, seed=s)).softmax(-1) for s in (0, 1)]
        expected = dense_rollout(attentions, taps, fusion)
        torch.testing.assert_close(roll_out(attentions, taps, fusion), expected, **CLOSE)
        assert (roll_out(attentions[::-1], taps, fusion) - expected).abs().max() > 0.01

    def test_mass_is_conserved(self, case, fusion):
        """Rows sum to 1, so that the relevance of all tokens together stays the number of the last stage's places."""
        _, _, taps, attentions = case
        found = roll_out(attentions, taps, fusion).sum((1, 2))
        places = taps[-1].grid[0] * taps[-1].grid[1]
        if taps[0].prefix:  # whose share is dropped at the end
            assert 0 < found.min() < found.max() < places
        else:
            torch.testing.assert_close(found, torch.full_like(found, places), **CLOSE)


def test_a_transformer_of_1024_tokens_against_the_full_product():
    tap = AttentionTap(nn.Identity(), (32, 32), torch.arange(1024)[None])
    attentions = [(3 * draw(1, 1, 3, 1024, 1024, seed=layer)).softmax(-1) for layer in range(4)]
    expected = dense_rollout(attentions, [tap] * 4, "mean")
    torch.testing.assert_close(roll_out(attentions, [tap] * 4, "mean"), expected, **CLOSE)
    assert expected.std() > 0.001 * expected.mean()


def test_what_is_kept_of_a_layer_has_no_heads(meter):
    taps = meter.module.attention_taps(64, 128)
    blocks = rollout.capture(meter, draw(2, 3, 64, 128), taps, lambda attention, tap: fuse(attention, tap, "mean"))
    for block, tap in zip(blocks, taps, strict=True):
        assert block.untyped_storage().nbytes() == 4 * 2 * tap.tokens.numel() * tap.tokens.shape[1]


class TestKnownAnswers:
    """One layer, worked out by hand; A' = (A + I) / 2 where the rows of A sum to 1."""

    def one_layer(self, *heads: Tensor, fusion: str = "mean", prefix: int = 0) -> list[float]:
        attention = torch.stack(heads)[None, None]
        size = attention.shape[-1]
        tap = AttentionTap(nn.Identity(), (1, size - prefix), torch.arange(size)[None], prefix)
        return roll_out([attention], [tap], fusion).flatten().tolist()

    def test_all_look_at_one(self):
        at_two = torch.eye(4)[[2, 2, 2, 2]]
        assert self.one_layer(at_two) == [0.5, 0.5, 2.5, 0.5]  # received by 2: 4/2 from all + 1/2 from itself

    def test_heads_that_disagree(self):
        at_two, at_three = torch.eye(4)[[2] * 4], torch.eye(4)[[3] * 4]
        assert self.one_layer(at_two, at_three) == [0.5, 0.5, 1.5, 1.5]
        assert self.one_layer(at_two, at_three, fusion="min") == [1, 1, 1, 1]  # they share nothing: A' = I

    def test_min_is_normalised_again(self):
        one, other = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
        # A + I = [[1.25, .25], [.5, 1.5]]; rows divided by 1.5 and 2; columns added
        assert self.one_layer(one, other, fusion="min") == pytest.approx([1.25 / 1.5 + 0.25, 0.25 / 1.5 + 0.75])

    def test_a_prefix_token_asks_for_nothing_and_is_dropped(self):
        to_itself, at_one = torch.eye(3), torch.eye(3)[[1, 1, 1]]
        assert self.one_layer(to_itself, prefix=1) == [1, 1]
        assert self.one_layer(at_one, prefix=1) == [1.5, 0.5]  # the prefix token's own row does not count

    def test_relevance_reaches_a_place_through_a_prefix_token(self):
        """The last layer's places look at the prefix token, which looked at place 1 in the layer before."""
        first, last = torch.eye(3)[[1, 1, 2]], torch.eye(3)[[0, 0, 0]]
        tap = AttentionTap(nn.Identity(), (1, 2), torch.arange(3)[None], 1)
        found = roll_out([first[None, None, None], last[None, None, None]], [tap, tap], "mean")
        # last: prefix gets 1/2 of each of 2 places = 1, places keep .5; first: half of the prefix's 1 goes to place 1
        assert found.flatten().tolist() == [0.5 + 0.5, 0.5]

    def test_a_parent_shares_equally_among_its_existing_children(self):
        """Stages of 3 and 2 tokens in a row: parent 0 has two children, parent 1 one."""
        still = [torch.eye(n)[None, None, None] for n in (3, 2)]
        taps = [AttentionTap(nn.Identity(), (1, n), torch.arange(n)[None]) for n in (3, 2)]
        assert roll_out(still, taps, "mean").flatten().tolist() == [0.5, 0.5, 1.0]

    def test_attention_to_padding_is_dropped_and_the_rest_renormalised(self):
        """A window of 2 with one real token: whatever it gave to the padding, it keeps its relevance."""
        attention = torch.full((1, 2, 1, 2, 2), 0.5)
        tap = AttentionTap(nn.Identity(), (1, 3), torch.tensor([[0, 1], [2, -1]]))
        assert roll_out([attention], [tap], "mean").flatten().tolist() == [1, 1, 1]

    def test_a_prefix_that_a_later_stage_adds_or_drops(self):
        def tap(prefix):
            return AttentionTap(nn.Identity(), (1, 2), torch.arange(prefix + 2)[None], prefix)

        at_prefix = torch.eye(3)[[0, 0, 0]][None, None, None]
        still = torch.eye(2)[None, None, None]
        # what the places gave to a token that the stage before did not have is gone
        assert roll_out([still, at_prefix], [tap(0), tap(1)], "mean").flatten().tolist() == [0.5, 0.5]
        assert roll_out([at_prefix, still], [tap(1), tap(0)], "mean").flatten().tolist() == [0.5, 0.5]


class TestPositions:
    @pytest.mark.parametrize("grid", [(4, 6), (2, 2), (8, 4)])
    def test_position_p_of_a_patch_goes_back_to_its_pixel(self, grid):
        tokens = patch_positions(grid, 2)
        assert tokens.shape == (4, grid[0] * grid[1] // 4)
        for ph in range(2):
            for pw in range(2):
                for h in range(grid[0] // 2):
                    for w in range(grid[1] // 2):
                        pixel = (2 * h + ph) * grid[1] + 2 * w + pw
                        assert tokens[2 * ph + pw, h * (grid[1] // 2) + w] == pixel

    def test_meters_transformer_sees_those_pixels(self, meter):
        """The tokens that the network's own code attends between, compared with what its taps say."""
        block, seen = meter.module.encoder.mvit[0], {}
        handles = [
            block.conv2.register_forward_hook(lambda m, i, out: seen.update(pixels=out)),
            block.transformer.register_forward_pre_hook(lambda m, inputs: seen.update(tokens=inputs[0])),
        ]
        with torch.no_grad():
            meter(draw(1, 3, 64, 128))
        for handle in handles:
            handle.remove()
        (tap, *_) = meter.module.attention_taps(64, 128)
        pixels = seen["pixels"].flatten(2).transpose(1, 2)  # (B, h * w, dim)
        assert torch.equal(pixels[:, tap.tokens], seen["tokens"])

    def test_meters_grids(self):
        assert stage_grids(64, 128) == [(8, 16), (4, 8), (2, 4)]
        assert stage_grids(192, 636) == [(24, 80), (12, 40), (6, 20)]


class Broken(nn.Module):
    """An `Attentive` whose taps are what a test makes of them."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.pair, self.change = Attentive(), ReturnsTuple(), change

    def forward(self, images):
        self.pair(images)
        return self.inner(images)

    def attention_taps(self, height, width):
        return self.change(self, self.inner.attention_taps(height, width))


def replaced(tap, **changes):
    return AttentionTap(**{**vars(tap), **changes})


class TestNotApplicable:
    def test_a_network_without_attention_gets_the_remedy(self):
        with pytest.raises(xa.NotApplicableError, match="does not apply to Conv2d: Conv2d shows no attention") as error:
            xa.attribute(nn.Conv2d(3, 1, 1), draw(1, 3, 8, 8), "attention_rollout", task="depth")
        assert "Give the module a method attention_taps(height, width)" in str(error.value)
        assert isinstance(error.value, ValueError)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda net, taps: [], "its attention_taps returned no layer"),
            (lambda net, taps: [replaced(taps[0], module=nn.Softmax(-1))], "layer 0 of Broken gave nothing"),
            (lambda net, taps: [replaced(taps[0], module=net.inner.embed)], r"layer 0 .* gave \[\(2, 8, 5, 7\)\], not"),
            (lambda net, taps: [replaced(taps[0], module=net.pair)], r"layer 0 of Broken gave \['tuple'\], not once"),
            (lambda net, taps: [taps[0], replaced(taps[1], module=net.inner.fine.attend)], r"layer 1 .* gave \[\(2, 1"),
            (lambda net, taps: [replaced(taps[0], tokens=taps[0].tokens.clamp(max=3))], "must hold each of 0..34 once"),
            (lambda net, taps: [replaced(taps[0], tokens=taps[0].tokens[:, :30])], "must hold each of 0..34 once"),
            (lambda net, taps: [replaced(taps[0], prefix=1)], r"each of 0..35 once \(1 prefix tokens and a grid"),
            (lambda net, taps: taps[::-1], r"a grid of \(5, 7\) cannot have been pooled from one of \(3, 4\)"),
        ],
        ids=["none", "not run", "no attention", "tuple", "another layer's", "twice", "missing", "prefix", "order"],
    )
    def test_wrong_taps_are_refused_not_rolled_out(self, change, text):
        model, images = Broken(change), draw(2, 3, 20, 28)
        with untouched(model, images), pytest.raises(xa.NotApplicableError, match=text):
            xa.attribute(model, images, "attention_rollout", task="depth")

    def test_a_module_that_two_layers_share_is_refused(self):
        """Its last output would stand for both layers."""
        model = Attentive()
        model.coarse.attend = model.fine.attend
        with pytest.raises(xa.NotApplicableError, match="and each layer needs a module of its own"):
            xa.attribute(model, draw(2, 3, 20, 28), "attention_rollout", task="depth")

    @pytest.mark.parametrize("fusion", ["max", None, 3])
    def test_an_unknown_fusion(self, fusion):
        with pytest.raises(ValueError, match=f"fusion must be 'mean' or 'min', not {fusion!r}"):
            xa.attribute(Attentive(), draw(1, 3, 8, 8), xa.method("attention_rollout", fusion=fusion), task="depth")


class TestHooks:
    def test_they_are_removed_after_an_exception(self):
        class Fails(Attentive):
            def _attend(self, layer, *rest):
                if layer is self.coarse:
                    raise RuntimeError("in the middle of the model")
                return super()._attend(layer, *rest)

        model, images = Fails(), draw(1, 3, 8, 8)
        with untouched(model, images), pytest.raises(xa.ModelOutputError, match="in the middle"):
            xa.attribute(model, images, "attention_rollout", target=lambda out: out.flatten(1).mean(1))

    def test_also_where_a_later_tap_is_no_module(self):
        model = Broken(lambda net, taps: [taps[0], replaced(taps[1], module="attend")])
        with untouched(model), pytest.raises(AttributeError):
            xa.attribute(model, draw(1, 3, 8, 8), "attention_rollout", task="depth")

    def test_it_is_one_forward_pass_without_gradient(self):
        assert xa.method("attention_rollout").passes() == (1, 0)
        model = Attentive()
        seen = []
        model.register_forward_hook(lambda m, i, out: seen.append(out.requires_grad))
        xa.attribute(model, draw(2, 3, 8, 8), "attention_rollout", target=lambda out: out)
        assert seen == [False]
