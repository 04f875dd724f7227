"""A bound on a score: what passes, fails, or is not decided."""

import itertools

import pytest
import torch

import xai_assert as xa
from xai_assert.verdicts import Bound, judge, sign_flip_p


def score(values, metric="af"):
    return xa.Score(torch.tensor(values, dtype=torch.float64), tuple(range(len(values))), metric)


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
        ({"beats": "edges"}, ValueError, "beats must be 'random', not 'edges'"),
    ],
)
def test_impossible_bounds(arguments, error, text):
    with pytest.raises(error) as caught:
        Bound(**arguments)
    assert text in str(caught.value)


def test_too_few_images_for_what_is_asked():
    with pytest.raises(ValueError, match="needs at least 10 images, the score of af has 9"):
        judge(score([0.1] * 9), Bound(min=0, confidence=0.95))
    with pytest.raises(ValueError, match="beats='random' needs at least 5 images, the score has 4"):
        judge(score([0.1] * 4), Bound(beats="random"))
    with pytest.raises(ValueError, match=r"beats='random' is for af, .* not for fe"):
        judge(score([0.1] * 9, "fe"), Bound(beats="random"))
