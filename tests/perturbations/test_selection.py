"""Which pixels are relevant: exact counts, one order for both ends, ties by lot."""

import math
import warnings
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import draw

import xai_assert as xa
from xai_assert.perturbations import decided_by_lot, pixel_count, rank, warn_of_ties

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
# Few values, so that ties are many: signed zeros, denormals (2^-140; a quarter of it is still exact), neighbours of 1.
VALUES = [0.0, -0.0, 2.0**-140, -(2.0**-140), 1.0, 1.0 + 2.0**-20, -1.0, 3.0, -1e30]
sizes = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda size: size[0] * size[1] > 1)


@st.composite
def heatmaps(draw_value):
    height, width = draw_value(sizes)
    values = draw_value(st.lists(st.sampled_from(VALUES), min_size=height * width, max_size=height * width))
    if len(set(values)) == 1:  # a constant map ranks nothing and is refused before
        values[0] = 7.0
    return torch.tensor(values).reshape(1, height, width)


def order(heatmap, seed=0, ids=None):
    return rank(heatmap, seed=seed, image_ids=ids or range(len(heatmap))).order


class TestCounts:
    @QUICK
    @given(sizes, st.integers(1, 50))
    def test_k_is_exact(self, size, percent):
        """floor(p H W + 1/2) in rational numbers, unless p H W is a half where a float p decides."""
        pixels = size[0] * size[1]
        exact = Fraction(percent, 100) * pixels
        k = math.floor(exact + Fraction(1, 2))
        near = {k, k - 1} if (exact + Fraction(1, 2)).denominator == 1 else {k}
        try:
            found = pixel_count(percent / 100, size)
        except ValueError:
            assert 0 in near or k > pixels // 2
        else:
            assert found in near
            assert 1 <= found <= pixels // 2

    @pytest.mark.parametrize(
        ("fraction", "size", "k"),
        [(0.05, (192, 256), 2458), (0.05, (10, 10), 5), (0.5, (3, 4), 6), (0.25, (1, 2), 1), (0.15, (1, 10), 2)],
    )
    def test_by_hand(self, fraction, size, k):
        assert pixel_count(fraction, size) == k

    @pytest.mark.parametrize("fraction", [0, 0.0, -0.1, 0.6, 0.500001, 1, float("nan")])
    def test_a_fraction_outside(self, fraction):
        with pytest.raises(ValueError, match=f"fraction must be above 0 and at most 0.5 .* not {fraction}"):
            pixel_count(fraction, (10, 10))

    @pytest.mark.parametrize("size", [(2, 3), (1, 7), (10, 10), (33, 77), (192, 256), (480, 640)])
    def test_none_selected_names_the_smallest_usable_fraction(self, size):
        pixels = size[0] * size[1]
        with pytest.raises(ValueError, match=f"of {size[0]}x{size[1]} pixels selects none; the smallest") as error:
            pixel_count(0.4 / pixels, size)
        named = float(str(error.value).rsplit(" ", 1)[1])
        assert pixel_count(named, size) == 1
        assert named < 0.5 / pixels * 1.01  # it is the smallest, to three digits

    @pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 3), (5, 1)])
    def test_half_of_an_odd_number_would_overlap(self, size):
        with pytest.raises(ValueError, match=f"of {size[0]}x{size[1]} pixels makes R and I overlap; use a smaller one"):
            pixel_count(0.5, size)


class TestMasks:
    @QUICK
    @given(heatmaps(), st.floats(0.01, 0.5))
    def test_both_ends_have_k_pixels_and_share_none(self, heatmap, fraction):
        size = (heatmap.shape[1], heatmap.shape[2])
        try:
            k = pixel_count(fraction, size)
        except ValueError:
            return
        relevant, irrelevant = rank(heatmap, seed=0, image_ids=["a"]).masks(fraction)
        assert relevant.shape == irrelevant.shape == (1, 1, *size)
        assert int(relevant.sum()) == int(irrelevant.sum()) == k
        assert not (relevant & irrelevant).any()
        assert heatmap[relevant[:, 0]].min() >= heatmap[~relevant[:, 0]].max()
        assert heatmap[irrelevant[:, 0]].max() <= heatmap[~irrelevant[:, 0]].min()

    def test_by_hand(self):
        heatmap = torch.tensor([[[0.1, 0.9], [0.5, 0.3]], [[4.0, 3.0], [2.0, 1.0]]])
        relevant, irrelevant = rank(heatmap, seed=0, image_ids="ab").masks(0.25)
        assert relevant.flatten(1).tolist() == [[False, True, False, False], [True, False, False, False]]
        assert irrelevant.flatten(1).tolist() == [[True, False, False, False], [False, False, False, True]]


class TestOrder:
    @QUICK
    @given(heatmaps())
    def test_it_is_a_permutation_from_most_to_least(self, heatmap):
        positions = order(heatmap)
        assert torch.equal(positions.sort(1).values[0], torch.arange(heatmap.numel()))
        ranked = heatmap.flatten()[positions[0]]
        assert (ranked.diff() <= 0).all()

    @QUICK
    @given(heatmaps())
    def test_that_of_minus_h_is_the_exact_reverse(self, heatmap):
        assert torch.equal(order(-heatmap), order(heatmap).flip(1))

    @QUICK
    @given(heatmaps(), st.sampled_from([2.0, 0.25, 8.0]))
    def test_a_scale_does_not_matter(self, heatmap, scale):
        assert torch.equal(order(scale * heatmap), order(heatmap))

    @pytest.mark.parametrize("hot", [0, 17, 63])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_one_hot_pixel(self, hot, sign):
        heatmap = torch.zeros(200, 64)
        heatmap[:, hot] = sign
        heatmap = heatmap.reshape(200, 8, 8)
        positions = order(heatmap)
        assert (positions[:, 0 if sign > 0 else -1] == hot).all()
        assert torch.equal(order(-heatmap), positions.flip(1))

    def test_signed_zeros_are_equal(self):
        zeros = torch.zeros(50, 6, 6)
        zeros[:, 0, 0] = 1
        signed = torch.where(draw(50, 6, 6) > 0, zeros, -zeros)
        signed[:, 0, 0] = 1
        assert torch.equal(order(signed), order(zeros))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_the_device_does_not_matter(self):
        heatmap = draw(20, 33, 47).round()  # with zeros of both signs, which a radix sort tells apart
        assert torch.equal(order(heatmap.cuda()).cpu(), order(heatmap))
        assert torch.equal(order(-heatmap.cuda()).cpu(), order(heatmap).flip(1))

    def test_it_does_not_depend_on_the_other_images_of_the_batch(self):
        heatmap, ids = draw(6, 5, 5).round(), list("abcdef")
        chosen = [4, 1]
        assert torch.equal(order(heatmap[chosen], ids=["e", "b"]), order(heatmap, ids=ids)[chosen])

    def test_ties_turn_with_seed_and_image(self):
        heatmap = torch.zeros(2, 8, 8)
        heatmap[:, 0, 0] = 1
        first, second = order(heatmap)
        assert not torch.equal(first, second)
        assert not torch.equal(order(heatmap, seed=1)[0], first)

    def test_layouts_in_memory_and_precisions_do_not_matter(self):
        heatmap = draw(3, 5, 7).round()
        assert torch.equal(order(heatmap.mT.contiguous().mT), order(heatmap))
        assert torch.equal(order(heatmap.double()), order(heatmap))


def by_index(heatmap):
    """A planted wrong ranking: ties by position, as a stable sort leaves them."""
    return heatmap.flatten(1).argsort(dim=1, descending=True, stable=True)


class TestTiesByLot:
    """Of 64 pixels one is hot and 63 equal: these fill 15 of the first 16 places and all of the last 16, by lot."""

    images, k = 1000, 16

    def deviations(self, ranking, end):
        """How far the 63 pixels' frequencies are from equal, in (binomial) standard deviations."""
        heatmap = torch.zeros(self.images, 64)
        heatmap[:, 27] = 1
        positions = ranking(heatmap.reshape(-1, 8, 8))
        chosen = positions[:, : self.k] if end == "relevant" else positions[:, -self.k :]
        frequencies = torch.zeros(self.images, 64).scatter_(1, chosen, 1.0).mean(0)
        assert frequencies[27] == (end == "relevant")
        p = (self.k - (end == "relevant")) / 63
        return (frequencies[torch.arange(64) != 27] - p) / (p * (1 - p) / self.images) ** 0.5

    @pytest.mark.parametrize("end", ["relevant", "irrelevant"])
    def test_every_pixel_is_drawn_equally_often(self, end):
        # one of 63 pixels strays further than 5 by chance in 1 of 30000 such tests; the seed is fixed
        assert self.deviations(order, end).abs().max() < 5

    def test_the_top_left_corner_is_not_favoured(self):
        heatmap = torch.zeros(self.images, 8, 8)
        heatmap[:, 7, 7] = 1
        in_corner = (order(heatmap)[:, : self.k].unsqueeze(-1) == self.corner()).any(-1).float().sum(1)
        # hypergeometric: 15 drawn from 63, of which 16 lie in the corner
        mean, share = 15 * 16 / 63, 16 / 63
        deviation = (15 * share * (1 - share) * (63 - 15) / 62) ** 0.5
        assert abs(in_corner.mean() - mean) < 5 * deviation / self.images**0.5

    @staticmethod
    def corner():
        return torch.arange(64).reshape(8, 8)[:4, :4].flatten()

    @pytest.mark.parametrize("end", ["relevant", "irrelevant"])
    def test_ties_by_index_would_be_noticed(self, end):
        assert self.deviations(by_index, end).abs().max() > 50


DISTINCT = [9.0, 8.5, 8, 7.5, 7, 6.5, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5]
DECIDED = [
    [9.0, 6, 6, 6, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5],  # 3 of the first 4
    [6.0, 6, 6, 6, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5],  # all 4
    [1.0] + 15 * [0.0],
    15 * [1.0] + [0.0],
]
CLEAR = [
    DISTINCT,
    [9.0, 8, 6, 6, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5],  # 2 of the first 4 are half, not more
    [6.0, 6, 6, 6, 5.9, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5],  # equal, but all of them are taken
    [9.0, 8, 7, 6.5] + 8 * [3.0] + [2, 1.5, 1, 0.5],  # equal in the middle
]


class TestWarning:
    """16 pixels, k = 4: a warning exactly when more than 2 of an end come from equals that cross its border."""

    def run(self, values):
        heatmap = torch.tensor([values]).reshape(1, 4, 4)
        warn_of_ties(decided_by_lot(heatmap, rank(heatmap, seed=0, image_ids=["a"]), 0.25), 0.25, "saliency")

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("values", DECIDED)
    def test_when_ties_decide_more_than_half_of_either_end(self, values, sign):
        with pytest.warns(xa.TiedHeatmapWarning, match="saliency at 0.25: ties decide more than half .* 1 of 1 images"):
            self.run([sign * v for v in values])

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("values", CLEAR)
    def test_and_not_otherwise(self, values, sign):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.run([sign * v for v in values])

    def test_it_counts_the_images(self):
        heatmap = torch.tensor([DISTINCT, DECIDED[0], DECIDED[2]]).reshape(3, 4, 4)
        with pytest.warns(xa.TiedHeatmapWarning, match="of 2 of 3 images; these pixels were drawn by lot"):
            warn_of_ties(decided_by_lot(heatmap, rank(heatmap, seed=0, image_ids="abc"), 0.25), 0.25, "saliency")

    def test_two_pixels_are_enough(self):
        heatmap = torch.tensor([[[1.0, 0.0]]])
        warn_of_ties(decided_by_lot(heatmap, rank(heatmap, seed=0, image_ids="a"), 0.5), 0.5, "saliency")
