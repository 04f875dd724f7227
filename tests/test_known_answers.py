"""Models whose AF and FE are worked out on paper, and wrong explanations that both must reject.

The pixelwise model f(x)_i = sum_c w_ci x_ci with the same weight a_i in all three channels. If pixel i changes by d_ci,
the map changes by a_i sum_c d_ci at i and nowhere else. For a perturbation that changes every pixel alike (sum_c d_ci =
D for all i), the RMSE over N pixels after the set S is perturbed is

    |D| sqrt(sum_{i in S} a_i^2 / N),

and |D| / sqrt(N) cancels in AF and in FE. The saliency is |a_i| / N in every channel.
"""

import contextlib

import numpy as np
import pytest
import torch
from known_models import Blind, Corner, Pixelwise, SignedSum, Squares, Whisper, draw

import xai_assert as xa
from xai_assert import randomness

SIDE = 10
STATISTICS = {"task": "depth", "mean": [0.0] * 3, "std": [1.0] * 3}  # the network takes pictures in [0, 1] as they are
S = torch.tensor([0.229, 0.224, 0.225])


def ramp():
    """a = +-1 .. +-100 in a random order, so that the right answers are sums of squares: (10, 10)."""
    order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(0))
    signs = draw(SIDE * SIDE, seed=1).sign()
    return ((order + 1) * signs).reshape(SIDE, SIDE)


def pixelwise():
    return Pixelwise(ramp().expand(3, -1, -1))


def plain(count=4):
    """Pictures of one grey level each: a filler changes every pixel of them alike; (B, 3, 10, 10)."""
    return torch.linspace(0.1, 0.9, count)[:, None, None, None].expand(count, 3, SIDE, SIDE).clone()


def fixed(relevance, name="fixed"):
    """A method that returns this map (H, W), or these maps (B, H, W), whatever it explains."""

    def function(model, images, target):
        return relevance.expand(len(images), *relevance.shape[-2:])

    return xa.method(function, signed="as_is")


def af(rel, irr):
    return (rel - irr) / (rel + irr)


class TestPixelwise:
    # At 5 % of 100 pixels, R holds the weights 96..100 and I the weights 1..5:
    # 96^2 + ... + 100^2 = 48030 and 1 + 4 + 9 + 16 + 25 = 55.
    AF5 = af(48030**0.5, 55**0.5)

    def test_paper(self):
        assert pytest.approx(0.93454, abs=5e-6) == self.AF5

    @pytest.mark.parametrize("perturbation", ["black", "mean", "fgsm"])
    def test_af(self, perturbation):
        # black: D = -3 v for a picture of level v. mean: D = sum_c (m_c - v). fgsm: d_ci = 3 s_c sign(a_i), so the
        # change is |a_i| times a constant, and only squares count.
        score = xa.attribution_fidelity(pixelwise(), "saliency", plain(), perturbation=perturbation, **STATISTICS)
        # The predictions are sums of about 1e2 and the errors about 1: float32 leaves 1e-5 of the error.
        assert score.values.tolist() == pytest.approx([self.AF5] * 4, abs=1e-4)
        assert (score.asr, score.unresponsive) == (1, 0)

    @pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
    def test_af_at_other_fractions(self, fraction):
        k = round(100 * fraction)
        squares = np.arange(1, 101) ** 2
        expected = af(squares[-k:].sum() ** 0.5, squares[:k].sum() ** 0.5)
        score = xa.attribution_fidelity(
            pixelwise(), "saliency", plain(), perturbation="mean", fraction=fraction, **STATISTICS
        )
        assert score.values.tolist() == pytest.approx([expected] * 4, abs=1e-4)

    def test_errors_in_the_unit(self):
        model, images = pixelwise(), plain()
        score = xa.attribution_fidelity(model, "saliency", images, perturbation="black", unit="m", **STATISTICS)
        change = 3 * images[:, 0, 0, 0].double()  # |D|; N = 100
        assert score.relevant_error.tolist() == pytest.approx((change * (48030 / 100) ** 0.5).tolist(), rel=1e-4)
        assert score.irrelevant_error.tolist() == pytest.approx((change * (55 / 100) ** 0.5).tolist(), rel=1e-4)
        assert score.unit_of_error == "m"

    def test_fgsm_error_and_marks(self):
        score = xa.attribution_fidelity(pixelwise(), "saliency", plain(), perturbation="fgsm", **STATISTICS)
        # epsilon 3: |a_i| * 3 * sum_c s_c at each pixel
        assert score.relevant_error.tolist() == pytest.approx([3 * S.sum().item() * (480.30) ** 0.5] * 4, rel=1e-4)
        assert score.change == pytest.approx((3, 3), rel=1e-5)  # in ImageNet standard deviations
        assert score.circular
        assert score.sign_agreement == 1  # the attack follows the gradient that is judged
        assert "circular (signs agree 100%)" in score.marks

    @pytest.mark.parametrize(("method", "circular"), [("saliency", True), ("random", False), ("edges", False)])
    def test_only_gradient_maps_are_judged_by_themselves(self, method, circular):
        images = draw(4, 3, SIDE, SIDE)
        for perturbation, attack in (("fgsm", True), ("gaussian_noise", False)):
            score = xa.attribution_fidelity(pixelwise(), method, images, perturbation=perturbation, **STATISTICS)
            assert score.circular == (circular and attack)
            assert any("circular" in mark for mark in score.marks) == (circular and attack)
            assert (score.sign_agreement is not None) == (circular and attack)

    def test_fgsm_against_ground_truth_goes_away_from_it(self):
        # d loss / d x_ci = 2 (f_i - t_i) a_i / N: where the truth lies above the prediction, against the gradient
        model, images = pixelwise(), plain()
        truth = model(images)[:, 0].detach() + torch.where(torch.arange(SIDE) < 3, 1.0, -1.0)  # 30 % of the columns
        ev = xa.Evaluation(model, images, ground_truth=truth, **STATISTICS)
        score = ev.attribution_fidelity("saliency", perturbation="fgsm")
        assert score.sign_agreement == pytest.approx(0.7, abs=1e-7)  # in float32
        assert score.values.tolist() == pytest.approx([self.AF5] * 4, abs=1e-4)  # the change is +-|a_i| all the same

    def test_fgsm_leaves_pixels_without_gradient_and_counts_them(self):
        weights = ramp().expand(3, -1, -1).clone()
        weights[:, ramp().abs() <= 3] = 0  # of I = {1, .., 5}, three without any gradient
        weights[0, ramp().abs() >= 99] = 0  # of R, two without one in the first channel
        score = xa.attribution_fidelity(Pixelwise(weights), "saliency", plain(), perturbation="fgsm", **STATISTICS)
        assert score.details["relevant_unchanged"].tolist() == [0] * 4
        assert score.details["irrelevant_unchanged"].tolist() == [3] * 4
        assert score.change == pytest.approx((3 * 13 / 15, 3 * 2 / 5), rel=1e-5)  # of 5 pixels in 3 channels
        assert "unequal change (2.60 / 1.20)" in score.marks

    def test_af_under_noise_by_its_own_field(self):
        # the change at i is a_i sum_c 0.8 s_c z_ci, with z drawn for (seed, image, purpose)
        images, a = plain(), ramp()
        score = xa.attribution_fidelity(pixelwise(), "saliency", images, seed=7, image_ids=list("abcd"), **STATISTICS)
        z = randomness.normal((3, SIDE, SIDE), seed=7, image_ids=list("abcd"), purpose="gaussian_noise")
        change = (a * (0.8 * S[:, None, None] * z).sum(1)).square().flatten(1)
        order = a.abs().flatten().argsort(descending=True)
        expected = af(change[:, order[:5]].sum(1).sqrt(), change[:, order[-5:]].sum(1).sqrt())
        assert score.values.tolist() == pytest.approx(expected.tolist(), abs=1e-4)

    def test_af_under_noise_is_on_average_that_of_an_equal_change(self):
        images = plain(200)
        score = xa.attribution_fidelity(pixelwise(), "saliency", images, fraction=0.5, batch_size=32, **STATISTICS)
        squares = np.arange(1, 101) ** 2
        expected = af(squares[50:].sum() ** 0.5, squares[:50].sum() ** 0.5)
        # rel and irr each scatter by about 1 / sqrt(2 * 50) = 10 %: AF is off by at most the square of it
        assert abs(score.mean - expected) < 0.01 + 3 * score.standard_error
        assert score.standard_error < 0.01

    def test_fe_single(self):
        # Ten groups of ten: group j from below holds 10j + 1 .. 10j + 10, which sum to 100 j + 55, and the squares to
        # sum (10 j + m)^2 = 1000 j^2 + 1100 j + 385.
        j = np.arange(10)
        expected = np.corrcoef(100 * j + 55, np.sqrt(1000 * j**2 + 1100 * j + 385))[0, 1]
        for perturbation in ("black", "mean", "fgsm"):
            score = xa.faithfulness_estimate(
                pixelwise(), "saliency", plain(), perturbation=perturbation, groups=10, **STATISTICS
            )
            assert score.values.tolist() == pytest.approx([expected] * 4, abs=1e-5)
        assert expected > 0.99

    def test_fe_of_groups_of_unequal_size(self):
        # 100 pixels in 16 groups: four of 7 and twelve of 6, the most relevant first
        parts = np.array_split(np.arange(100, 0, -1), 16)
        expected = np.corrcoef([p.sum() for p in parts], [np.sqrt((p**2).sum()) for p in parts])[0, 1]
        score = xa.faithfulness_estimate(pixelwise(), "saliency", plain(), perturbation="mean", **STATISTICS)
        assert score.values.tolist() == pytest.approx([expected] * 4, abs=1e-5)
        of_means = np.corrcoef([p.mean() for p in parts], [np.sqrt((p**2).sum()) for p in parts])[0, 1]
        assert abs(of_means - expected) > 1e-4  # which the tolerance tells apart

    def test_fe_cumulative(self):
        j = np.arange(10)[::-1]  # the most relevant group first
        sums, squares = np.cumsum(100 * j + 55), np.cumsum(1000 * j**2 + 1100 * j + 385)
        expected = np.corrcoef(sums, np.sqrt(squares))[0, 1]
        score = xa.faithfulness_estimate(
            pixelwise(), "saliency", plain(), perturbation="mean", groups=10, mode="cumulative", **STATISTICS
        )
        assert score.values.tolist() == pytest.approx([expected] * 4, abs=1e-5)

    def test_integrated_gradients_rank_like_the_saliency_here(self):
        # w (x - b) with the same x - b everywhere: |a_i| up to a factor
        for method in ("saliency", xa.method("integrated_gradients", steps=1)):
            score = xa.attribution_fidelity(pixelwise(), method, plain(), perturbation="mean", **STATISTICS)
            assert score.values.tolist() == pytest.approx([self.AF5] * 4, abs=1e-4)

    def test_ground_truth_is_masked_where_unknown(self):
        # Known pixels: the left half, where f = t + 1 on the clean image; 0 and NaN elsewhere.
        model, images, a = pixelwise(), plain(), ramp()
        truth = model(images)[:, 0].detach() - 1
        truth[:, :, 5:7], truth[:, :, 7:] = 0, torch.nan
        ev = xa.Evaluation(model, images, ground_truth=truth, **STATISTICS)
        score = ev.attribution_fidelity("saliency", perturbation="black", fraction=0.1, reference="ground_truth")
        # at a perturbed known pixel the error becomes 1 - 3 v a_i, elsewhere it stays 1; 50 pixels are known
        order = a.abs().flatten().argsort(descending=True)
        ends = []
        for part in (order[:10], order[-10:]):
            chosen = torch.zeros(100, dtype=torch.bool).scatter_(0, part, True).reshape(SIDE, SIDE)
            error = torch.where(chosen, 1 - 3 * images[:, 0] * a, 1.0)[:, :, :5]
            ends.append(error.square().flatten(1).mean(1).sqrt())
        assert score.clean_error.tolist() == pytest.approx([1.0] * 4, rel=1e-4)
        assert score.relevant_error.tolist() == pytest.approx(ends[0].tolist(), rel=1e-4)
        assert score.irrelevant_error.tolist() == pytest.approx(ends[1].tolist(), rel=1e-4)
        assert score.values.tolist() == pytest.approx(af(*ends).tolist(), abs=1e-4)
        assert ev.attribution_fidelity("saliency", perturbation="black", fraction=0.1).mean > 0.8  # the other scale


class TestSignedSum:
    """The documented counter-example: a model that sums signed terms over the picture. |w| says truly how much each
    pixel moves the output, but pixels that are perturbed together cancel, so fidelity cannot judge such an output.
    """

    WEIGHTS = torch.stack([torch.arange(8.0, 0, -1), -torch.arange(8.0, 0, -1)], 1).reshape(4, 4)  # +-8 .. +-1 in pairs
    IMAGES = torch.tensor([0.25, 0.5])[:, None, None, None].expand(2, 3, 4, 4)  # so that all sums are exact

    def measure(self, method, **options):
        model = SignedSum(self.WEIGHTS.expand(3, -1, -1))
        options = {"perturbation": "black", "fraction": 1 / 8} | STATISTICS | options  # two pixels
        return xa.attribution_fidelity(model, method, self.IMAGES, **options)

    def test_the_true_map_cancels(self):
        score = self.measure("saliency")  # R = {8, -8} and I = {1, -1} move the sum by nothing
        assert (score.values.tolist(), score.unresponsive) == ([0, 0], 2)

    def test_and_a_false_one_is_perfect(self):
        # R = {+1, +2} moves the sum by 3, I = {8, -8} by nothing
        false = torch.where((self.WEIGHTS == 1) | (self.WEIGHTS == 2), 100.0 - self.WEIGHTS, -self.WEIGHTS.abs())
        assert self.measure(fixed(false)).values.tolist() == [1, 1]

    def test_one_pixel_alone_is_judged_rightly(self):
        with pytest.warns(xa.TiedHeatmapWarning):  # 8 and -8 are as relevant as each other
            score = self.measure("saliency", fraction=1 / 16)
        assert score.values.tolist() == [(8 - 1) / (8 + 1)] * 2

    def test_fe_cannot_see_it_either(self):
        score = xa.faithfulness_estimate(
            SignedSum(self.WEIGHTS.expand(3, -1, -1)),
            "saliency",
            self.IMAGES,
            perturbation="black",
            groups=8,  # each of them a pair
            **STATISTICS,
        )
        assert (score.values.tolist(), score.degenerate) == ([0, 0], 2)


class TestCorner:
    """A model that sees the top-left quarter only."""

    IMAGES = draw(3, 3, 12, 12)
    INSIDE = torch.zeros(12, 12).index_put_((torch.arange(6)[:, None], torch.arange(6)), torch.tensor(1.0))

    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "black", "mean", "fgsm"])
    def test_the_right_map_scores_one_and_its_inverse_minus_one(self, perturbation):
        right = self.INSIDE + draw(12, 12, seed=3).sigmoid() / 2
        for method, expected in ((fixed(right), 1), (fixed(-right), -1)):
            score = xa.attribution_fidelity(Corner(), method, self.IMAGES, perturbation=perturbation, **STATISTICS)
            assert score.values.tolist() == [expected] * 3
            assert score.asr == (expected + 1) / 2

    def test_its_saliency_is_right(self):
        # constant inside the corner and 0 outside: lots decide within, never between
        with pytest.warns(xa.TiedHeatmapWarning):
            score = xa.attribution_fidelity(Corner(), "saliency", self.IMAGES, task="depth")
        assert score.values.tolist() == [1, 1, 1]

    def test_a_map_of_what_it_does_not_see(self):
        # both ends lie in the other three quarters
        elsewhere = torch.where(self.INSIDE > 0, 0.0, draw(12, 12, seed=4))
        for perturbation in ("gaussian_noise", "black", "fgsm"):
            score = xa.attribution_fidelity(
                Corner(), fixed(elsewhere), self.IMAGES, perturbation=perturbation, **STATISTICS
            )
            assert (score.values.tolist(), score.unresponsive) == ([0, 0, 0], 3)
            assert score.relevant_error.tolist() == [0, 0, 0]

    def test_that_map_against_the_ground_truth(self):
        elsewhere = torch.where(self.INSIDE > 0, 0.0, draw(12, 12, seed=4))
        ev = xa.Evaluation(Corner(), self.IMAGES, ground_truth=draw(3, 6, 6, seed=5), task="depth")
        score = ev.attribution_fidelity(fixed(elsewhere), reference="ground_truth")
        assert (score.values.tolist(), score.unresponsive, score.asr) == ([0, 0, 0], 3, 0)
        assert (score.relevant_error == score.clean_error).all()
        assert score.clean_error.min() > 0


class TestBlind:
    @pytest.mark.parametrize("method", ["saliency", "integrated_gradients"])
    def test_gradient_methods_say_why(self, method):
        with pytest.raises(ValueError, match="the target does not depend on the images: no gradient reaches them"):
            xa.attribution_fidelity(Blind(), method, plain(), **STATISTICS)

    def test_controls_find_it_unresponsive(self):
        for method in ("random", fixed(ramp())):
            score = xa.attribution_fidelity(Blind(), method, plain(), task="depth")
            assert (score.values.tolist(), score.unresponsive, score.asr) == ([0] * 4, 4, 0)
            assert score.marks == ["unresponsive 4/4"]

    def test_a_map_of_zeros_ranks_nothing(self):
        class Zero(Blind):
            def forward(self, images):
                return super().forward(images) + 0 * images[:, :1]

        with pytest.raises(xa.DegenerateHeatmapError, match="the heatmap of saliency is constant for 4 of 4 images"):
            xa.attribution_fidelity(Zero(), "saliency", plain(), task="depth")


class TestWhisper:
    """A model whose answer to a perturbation is lost in rounding: never -1 or 1 out of that."""

    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "black", "fgsm"])
    @pytest.mark.parametrize("reference", ["prediction", "ground_truth"])
    def test_rounding_is_no_answer(self, perturbation, reference):
        ev = xa.Evaluation(Whisper(), plain(), ground_truth=2 + draw(4, SIDE, SIDE).sigmoid(), **STATISTICS)
        score = ev.attribution_fidelity(fixed(ramp()), perturbation=perturbation, reference=reference)
        ends = score.details["relevant_error"], score.details["irrelevant_error"]
        assert min(end.min() for end in ends) > 0  # it did answer, by less than the floor
        assert (score.values.tolist(), score.unresponsive, score.asr) == ([0] * 4, 4, 0)

    @pytest.mark.parametrize("upcast", [False, True], ids=["half", "half to float"])
    def test_rounding_of_half_precision(self, upcast):
        # 1 + a_i sum_c x_ci / 10^4: bfloat16 keeps steps of 1/128, so few of the 5 pixels move, and by one step
        class Half(Pixelwise):
            def forward(self, images):
                output = 1 + super().forward(images) / 10_000
                return output.float() if upcast else output

        model, images = Half(ramp().expand(3, -1, -1)).bfloat16(), plain().bfloat16()
        score = xa.attribution_fidelity(model, fixed(ramp()), images, task="depth")
        largest = model(images).abs().flatten(1).amax(1)
        assert score.details["floor"].tolist() == pytest.approx((0.01 * largest.float()).tolist())
        assert score.details["relevant_error"].max() > 0
        assert (score.values.tolist(), score.unresponsive) == ([0] * 4, 4)


MODELS = {"additive": Pixelwise(draw(3, 16, 16)), "quadratic": Squares(draw(3, 16, 16, seed=6))}
PICTURES = draw(12, 3, 16, 16, seed=2)


def gradients(model):
    """The true map of each picture, (B, 16, 16)."""
    return xa.heatmap(model, PICTURES, "saliency", task="depth")


def mapped(maps):
    """A method that returns its map of each picture, whatever it explains; for one batch of all pictures."""
    return xa.method(lambda model, images, target: maps, signed="as_is")


class TestSymmetries:
    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "black", "fgsm"])
    @pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
    def test_af_turns_round_with_the_map_and_knows_no_scale(self, perturbation, tied):
        maps = draw(12, 16, 16, seed=9)
        maps = maps.round() if tied else maps  # -3 .. 3: both ends are cut inside a level
        ev = xa.Evaluation(MODELS["quadratic"], PICTURES, batch_size=12, **STATISTICS)
        with pytest.warns(xa.TiedHeatmapWarning) if tied else contextlib.nullcontext():
            values, opposite, double, quarter = (
                ev.attribution_fidelity(mapped(m), perturbation=perturbation, fraction=0.2).values
                for m in (maps, -maps, 2 * maps, maps / 4)
            )
        assert torch.equal(values, -opposite)
        assert torch.equal(values, double)
        assert torch.equal(values, quarter)
        assert values.abs().min() > 0

    def test_a_random_map_scores_zero(self):
        for model in MODELS.values():
            score = xa.attribution_fidelity(model, "random", draw(64, 3, 16, 16, seed=3), task="depth")
            assert abs(score.mean) < 3 * score.standard_error
            assert score.standard_error < 0.1  # so that 3 of them are not everything
            faith = xa.faithfulness_estimate(model, "random", draw(64, 3, 16, 16, seed=3), task="depth")
            assert abs(faith.mean) < 3 * faith.standard_error

    def test_a_random_map_looks_faithful_when_groups_accumulate(self):
        # both the summed relevance and the error can only grow with the pixels removed: design.md's .85
        score = xa.faithfulness_estimate(MODELS["additive"], "random", PICTURES, mode="cumulative", task="depth")
        assert score.mean > 0.7
        assert score.values.min() > 0.5


WRONG = {
    "inverse": lambda maps: -maps,
    "shifted": lambda maps: maps.roll((8, 8), (1, 2)),
    "transposed": lambda maps: maps.transpose(1, 2),
}


class TestPlanted:
    """A gate at AF .3 or FE .5 passes the true map, and rejects a wrong one."""

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "fgsm"])
    def test_the_true_map_passes(self, name, perturbation):
        ev = xa.Evaluation(MODELS[name], PICTURES, task="depth", batch_size=12)
        score = ev.attribution_fidelity("saliency", perturbation=perturbation)
        assert score.interval()[0] > 0.3
        assert score.asr == 1
        assert ev.faithfulness_estimate("saliency", perturbation=perturbation).interval()[0] > 0.5

    @pytest.mark.parametrize("wrong", WRONG)
    @pytest.mark.parametrize("name", MODELS)
    def test_a_wrong_map_is_rejected(self, name, wrong):
        method = mapped(WRONG[wrong](gradients(MODELS[name])))
        ev = xa.Evaluation(MODELS[name], PICTURES, task="depth", batch_size=12)
        assert ev.attribution_fidelity(method).interval()[1] < 0.3
        assert ev.faithfulness_estimate(method).interval()[1] < 0.5

    def test_the_inverse_is_as_bad_as_the_truth_is_good(self):
        model = MODELS["quadratic"]
        ev = xa.Evaluation(model, PICTURES, task="depth", batch_size=12)
        true, inverse = ev.attribution_fidelity("saliency"), ev.attribution_fidelity(mapped(-gradients(model)))
        assert torch.equal(true.values, -inverse.values)
