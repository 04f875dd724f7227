"""A bound on a score: what passes, fails, or is not decided."""

import itertools

import numpy as np
import pytest
import torch

import xai_assert as xa
from xai_assert.verdicts import Bound, decide, judge, sign_flip_p


def score(values, metric="af", chance=0.0, **more):
    return xa.Score(torch.tensor(values, dtype=torch.float64), tuple(range(len(values))), metric, chance=chance, **more)


@pytest.mark.parametrize(
    ("bound", "outcome", "because"),
    [
        ({"min": 0.5}, "pass", ""),  # on the bound is met
        ({"min": 0.6}, "fail", "below min=0.600 (by 0.100)"),
        ({"max": 0.5}, "pass", ""),
        ({"max": 0.25}, "fail", "above max=0.250 (by 0.250)"),
        ({"min": 0.6, "max": 0.9}, "fail", "below min=0.600 (by 0.100)"),
    ],
)
def test_a_plain_bound(bound, outcome, because):
    verdict = judge(score([0.25, 0.75]), Bound(**bound))
    assert (verdict.outcome, verdict.because) == (outcome, because)


def test_confidence_has_three_outcomes():
    values = score([0.4, 0.6] * 10)  # mean 0.5, standard error 0.023
    low, high = values.interval(0.95)
    assert 0.4 < low < 0.5 < high < 0.6
    assert judge(values, Bound(min=low, confidence=0.95)).outcome == "pass"
    assert judge(values, Bound(min=0.49, confidence=0.95)).outcome == "undecided"
    assert judge(values, Bound(min=0.51, confidence=0.95)).outcome == "undecided"
    assert judge(values, Bound(min=high + 1e-6, confidence=0.95)).outcome == "fail"
    assert judge(values, Bound(max=high, confidence=0.95)).outcome == "pass"
    assert judge(values, Bound(max=low - 1e-6, confidence=0.95)).outcome == "fail"


@pytest.mark.parametrize("side", ["min", "max"])
@pytest.mark.parametrize("offset", [-0.01, 0.01])
def test_the_number_of_images_that_would_decide_does(side, offset):
    few = score([0.4, 0.6] * 10)
    verdict = judge(few, Bound(**{side: 0.5 + offset}, confidence=0.95))
    assert verdict.outcome == "undecided"
    needed = int(verdict.because.split("about ")[1].split()[0])
    assert 20 < needed < 1000
    # A third more, because the estimate comes from one interval of 20 images.
    enough = score([0.4, 0.6] * (2 * needed // 3))
    assert judge(enough, Bound(**{side: 0.5 + offset}, confidence=0.95)).outcome in ("pass", "fail")


def test_a_score_on_the_bound_is_never_decided():
    assert "no number of images" in judge(score([0.4, 0.6] * 10), Bound(min=0.5, confidence=0.95)).because


def test_constant_scores_are_decided():
    assert judge(score([0.5] * 10), Bound(min=0.5, confidence=0.95)).outcome == "pass"
    assert judge(score([0.5] * 10), Bound(min=0.51, confidence=0.95)).outcome == "fail"


def test_sign_flips_are_counted_exactly():
    values = [0.9, 0.5, 0.4, -0.1, 0.3, 0.2]
    total = sum(values)
    signs = itertools.product((1, -1), repeat=len(values))
    patterns = [sum(s * abs(v) for s, v in zip(row, values, strict=True)) >= total - 1e-12 for row in signs]
    assert sign_flip_p(score(values)) == pytest.approx(sum(patterns) / len(patterns), abs=1e-12)
    assert sign_flip_p(score([0.1] * 5)) == 1 / 32


def test_sign_flips_of_many_images_agree_with_the_normal_limit():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, generator=generator, dtype=torch.float64)
    values += 0.08 - values.mean()  # 1.6 standard errors above 0: p = 0.055
    p = sign_flip_p(score(values.tolist()))
    z = float(values.sum() / values.square().sum().sqrt())
    expected = 0.5 * (1 - torch.erf(torch.tensor(z / 2**0.5))).item()
    assert p == pytest.approx(expected, abs=5e-3)  # 2^16 draws: standard error 0.0009, and the limit's own error


def test_beats_random():
    assert judge(score([0.1] * 5), Bound(beats="random")).outcome == "pass"
    verdict = judge(score([0.1, -0.1, 0.2, -0.2, 0.1]), Bound(beats="random"))
    assert verdict.outcome == "fail"
    assert verdict.because.startswith("does not beat random (p=0.")
    strict = judge(score([0.1] * 5), Bound(beats="random", confidence=0.99))
    assert strict.outcome == "fail"  # five images cannot give p < 1/32


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "an assertion needs a bound: give min=, max= or beats='random'"),
        ({"label": "_af"}, TypeError, "give min_af=, max_af= or beats='random'"),
        ({"min": float("nan")}, ValueError, "min must be a finite number, not nan"),
        ({"min": "high"}, ValueError, "min must be a finite number, not 'high'"),
        ({"min": 0.6, "max": 0.5}, ValueError, "min=0.6 is above max=0.5"),
        ({"min": 0.6, "confidence": 95}, ValueError, "confidence must be at least 0.5 and below 1, not 95"),
        ({"beats": "edgs"}, ValueError, "unknown method 'edgs'; did you mean 'edges'?"),
        ({"beats": 3}, ValueError, "beats must be 'random', 'edges' or another registered method's name, not 3"),
        ({"min": 0, "early": True}, ValueError, "early decides by an interval: it needs confidence="),
        (
            {"min": 0, "early": True, "confidence": 0.95, "beats": "random"},
            ValueError,
            "does not go with beats=, a test that holds only for a number of images fixed before",
        ),
        ({"min": 0, "early": 1}, ValueError, "early must be true or false, not 1"),
    ],
)
def test_impossible_bounds(arguments, error, text):
    with pytest.raises(error) as caught:
        Bound(**arguments)
    assert text in str(caught.value)


def test_too_few_images_for_what_is_asked():
    with pytest.raises(ValueError, match="needs at least 10 images, the score of af has 9"):
        judge(score([0.1] * 9), Bound(min=0, confidence=0.95))
    with pytest.raises(ValueError, match="beats='random' needs at least 5 images, the score of af has 4"):
        judge(score([0.1] * 4), Bound(beats="random"))


class TestBeats:
    """Of a metric whose chance is not known, and against other methods: paired on the same images."""

    def control(self, values, ids=None):
        asked = []

        def measure(method):
            asked.append(str(method))
            ids_of = range(len(values)) if ids is None else ids
            return xa.Score(torch.tensor(values, dtype=torch.float64), tuple(ids_of), "fe")

        return measure, asked

    def test_where_chance_is_known_nothing_is_measured(self):
        control, asked = self.control([0.0] * 6)
        verdict = judge(score([0.25] * 6), Bound(beats="random"), control)
        assert (verdict.outcome, verdict.contest.p, asked) == ("pass", 1 / 64, [])

    def test_elsewhere_random_is_the_mean_of_eight_maps(self):
        values = iter([0.5] * 4 + [0.25] * 4)
        asked = []

        def control(method):
            asked.append(str(method))
            return score([next(values)] * 6, "fe", None)

        verdict = judge(score([0.5] * 6, "fe", None), Bound(beats="random"), control)
        assert asked == [f"random(draw={draw})" for draw in range(8)]
        assert (verdict.contest.value, verdict.contest.difference) == (0.375, 0.125)
        assert (verdict.outcome, verdict.contest.p) == ("pass", 1 / 64)

    def test_images_are_paired_by_their_ids(self):
        own = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        control, asked = self.control([value - 0.05 for value in reversed(own)], ids=range(5, -1, -1))
        verdict = judge(score(own, "fe", None), Bound(beats="edges"), control)
        assert asked == ["edges"]
        assert (verdict.outcome, verdict.contest.p) == ("pass", 1 / 64)  # better on every image, by as much
        control, _ = self.control(own[:5])
        with pytest.raises(ValueError, match="beats='edges': the control was not measured on 5"):
            judge(score(own, "fe", None), Bound(beats="edges"), control)

    def test_lower_may_be_better(self):
        control, _ = self.control([0.5] * 6)
        lower = score([0.25] * 6, "deletion", None, higher_is_better=False)
        assert judge(lower, Bound(beats="edges"), control).outcome == "pass"
        higher = score([0.75] * 6, "deletion", None, higher_is_better=False)
        verdict = judge(higher, Bound(beats="edges"), control)
        assert verdict.because == "does not beat edges (p=1.000 > 0.05; edges 0.500, difference -0.250)"

    def test_nothing_beats_itself(self):
        control, _ = self.control([0.1, 0.2, 0.3, 0.4, 0.5])
        verdict = judge(score([0.1, 0.2, 0.3, 0.4, 0.5], "fe", None), Bound(beats="saliency"), control)
        assert (verdict.outcome, verdict.contest.p) == ("fail", 1.0)

    def test_a_score_alone_has_no_control(self):
        with pytest.raises(ValueError, match="compares fe with another method's on the same images"):
            judge(score([0.1] * 9, "fe", None), Bound(beats="random"))


class TestEarly:
    BOUND = Bound(min=0.3, confidence=0.95, early=True)

    def values(self, mean, count=200, spread=0.2):
        noise = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
        return score((mean + 2 * spread * noise).tolist(), range=(-1.0, 1.0), provenance={"images": 300})

    @pytest.mark.parametrize(("mean", "outcome"), [(0.6, "pass"), (0.0, "fail")])
    def test_what_is_clear_is_decided_by_a_part(self, mean, outcome):
        verdict, found = judge(self.values(mean), self.BOUND), decide(self.values(mean), self.BOUND)
        assert (verdict.outcome, found.outcome) == (outcome, outcome)
        assert found.count < 50
        assert f"decided after {found.count} of 300 images (95% confidence sequence [" in verdict.because
        assert outcome == "pass" or verdict.because.startswith("below min=0.300, decided")

    def test_images_measured_beside_change_nothing(self):
        whole = self.values(0.6)
        found = decide(whole, self.BOUND)
        part = score(whole.values[: found.count].tolist(), range=(-1.0, 1.0))
        assert decide(part, self.BOUND) == found
        fewer = score(whole.values[: found.count - 1].tolist(), range=(-1.0, 1.0))
        assert decide(fewer, self.BOUND).outcome == "undecided"

    def test_what_is_near_the_bound_is_said_not_to_be_decided(self):
        verdict = judge(self.values(0.3), self.BOUND)
        assert verdict.outcome == "undecided"
        assert "not decided against min=0.300 after all 200 images" in verdict.because

    def test_two_bounds_are_both_to_be_met(self):
        assert judge(self.values(0.6), Bound(0.3, 0.9, 0.95, early=True)).outcome == "pass"
        verdict = judge(self.values(0.6), Bound(-0.5, 0.2, 0.95, early=True))
        assert verdict.because.startswith("above max=0.200, decided after")

    def test_a_metric_without_a_range_is_refused(self):
        with pytest.raises(ValueError, match="early needs a metric with a known range, such as af; of mine it is"):
            judge(score([0.1] * 20, "mine"), self.BOUND)


def test_an_interval_is_wider_by_root_two_on_half_of_the_images():
    """Width goes with 1 / sqrt(n): over 20 random halves the mean ratio is 1.41.

    One ratio of 100 images varies by about the 7 % of a standard deviation found on 50; the mean of 20 halves of one
    sample hardly does, for they are the same images. .15 leaves that, and the skew of BCa, room.
    """
    for seed in range(3):
        random = np.random.default_rng(seed)
        whole = score((2 * random.beta(6, 3, 100) - 1).tolist())
        low, high = whole.interval(0.95)
        ratios = []
        for _ in range(20):
            half = score(whole.values[random.permutation(100)[:50]].tolist())
            ends = half.interval(0.95)
            ratios.append((ends[1] - ends[0]) / (high - low))
        assert np.mean(ratios) == pytest.approx(2**0.5, abs=0.15)


def test_a_verdict_with_confidence_seldom_depends_on_the_images_drawn():
    """A true mean 4 standard errors above the bound: the interval clears it but for 1 sample in about 50."""
    outcomes = []
    for seed in range(20):
        values = np.random.default_rng(seed).beta(6, 3, 60)  # mean .667, standard error .0192
        outcomes.append(judge(score(values.tolist()), Bound(min=0.667 - 4 * 0.0192, confidence=0.95)).outcome)
    assert outcomes.count("pass") >= 18  # P(3 or more of 20 at 1/50) = .007
    assert "fail" not in outcomes
