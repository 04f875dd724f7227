"""Deletion and insertion AUC, SRG, ROAD and sufficiency on cases worked out on paper."""

import math

import pytest
import torch
from known_models import Blind, Capturing, Counting, Pixelwise, draw

import xai_assert as xa
from xai_assert.metrics.curves import auc

# A picture of four pixels and one channel, each 1; black is 0. The depth of a pixel is its weight, so that perturbing
# pixel i moves the map by w_i there, and the RMSE after a set S is sqrt(sum over S of w_i^2 / 4).
WEIGHTS = torch.tensor([[[4.0, 3.0], [0.0, 0.0]]])
IMAGES = torch.ones(2, 1, 2, 2)
CARD = {"task": "depth", "mean": [0.0], "std": [1.0], "perturbation": "black"}
TRUE = torch.tensor([[4.0, 3.0], [1.0, 0.0]])
# the most relevant first: 2, sqrt(16 + 9) / 2 = 2.5, 2.5, 2.5; the least relevant first: 0, 0, 1.5, 2.5
MOST, LEAST = [0.0, 2.0, 2.5, 2.5, 2.5], [0.0, 0.0, 0.0, 1.5, 2.5]
DELETION, INSERTION = (2.0 + 2.5 + 2.5 + 1.25) / 4, (0.0 + 0.0 + 1.5 + 1.25) / 4


def truth(model, images, target):
    return TRUE.expand(len(images), -1, -1)


def inverse(model, images, target):
    return -truth(model, images, target)


INVERSE = xa.method(inverse, signed="as_is")


@pytest.fixture
def model():
    return Pixelwise(WEIGHTS)


def test_the_area_is_that_of_trapezia():
    assert auc(torch.tensor([[0.0, 3.0, 3.0, 0.0]])).tolist() == pytest.approx([2.0])  # 1/3 (1.5 + 3 + 1.5)


def test_the_curves_on_paper(model):
    score = xa.deletion_auc(model, truth, IMAGES, steps=4, **CARD)
    assert score.details["most"].tolist() == [MOST, MOST]
    assert score.details["least"].tolist() == [LEAST, LEAST]
    assert score.values.tolist() == [DELETION] * 2
    assert xa.insertion_auc(model, truth, IMAGES, steps=4, **CARD).values.tolist() == [INSERTION] * 2
    srg = xa.srg(model, truth, IMAGES, steps=4, **CARD)
    assert srg.values.tolist() == [DELETION - INSERTION] * 2
    assert srg.value > 0  # of the true map of an additive model


def test_the_inverse_map_has_the_same_srg_with_the_other_sign(model):
    images = draw(6, 1, 2, 2)
    options = {**CARD, "perturbation": "gaussian_noise", "steps": 3}
    true, wrong = (xa.srg(model, method, images, **options) for method in (truth, INVERSE))
    assert torch.equal(true.values, -wrong.values)
    assert wrong.value < 0 < true.value


def test_what_is_perturbed_and_in_which_order():
    model = Capturing(Pixelwise(draw(1, 3, 5)))
    images, relevance = draw(1, 1, 3, 5, seed=1), draw(1, 3, 5, seed=2)
    method = xa.method(lambda model, images, target: relevance, signed="as_is")
    xa.srg(model, method, images, steps=4, task="depth", batch_size=1)  # one job a pass
    changed = [(shown != images).flatten() for shown in model.seen[1:]]
    assert [int(c.sum()) for c in changed] == [15, 4, 8, 11, 4, 8, 11]  # j * 15 / 4, rounded
    order = relevance.flatten().argsort(descending=True)
    for found, count in zip(changed[1:4], (4, 8, 11), strict=True):
        assert set(found.nonzero().flatten().tolist()) == set(order[:count].tolist())
    for found, count in zip(changed[4:], (4, 8, 11), strict=True):
        assert set(found.nonzero().flatten().tolist()) == set(order[-count:].tolist())


def test_three_scores_cost_the_passes_of_one():
    model = Counting(Pixelwise(draw(1, 4, 4)))
    ev = xa.Evaluation(model, draw(3, 1, 4, 4), task="depth")
    for metric in (xa.deletion_auc, xa.insertion_auc, xa.srg):
        metric(ev, "edges", steps=8)
    assert model.forwards == 3 * (1 + 2 * 8 - 1)


def test_an_error_that_is_rounding_counts_as_none():
    class Whispering(Pixelwise):
        def forward(self, images):
            return 1 + 1e-7 * super().forward(images)

    score = xa.srg(Whispering(WEIGHTS), truth, IMAGES, steps=4, **CARD)
    assert score.values.tolist() == [0, 0]
    assert xa.sufficiency(Blind(), truth, IMAGES, fraction=0.25, **CARD).values.tolist() == [0, 0]


def test_road_on_paper(model):
    # one of four pixels: 2 without the first, 0 without the last; two: 2.5 and 0
    score = xa.road(model, truth, IMAGES, fractions=(0.5, 0.25), **CARD)
    assert score.values.tolist() == [(2.0 + 2.5) / 2] * 2
    assert score.provenance["fractions"] == [0.25, 0.5]
    assert xa.road(model, INVERSE, IMAGES, fractions=(0.5, 0.25), **CARD).values.tolist() == [-(2.0 + 2.5) / 2] * 2


def test_road_imputes_by_itself(model):
    images = draw(2, 3, 6, 6)
    score = xa.road(Pixelwise(draw(3, 6, 6)), "edges", images, task="depth")
    assert score.provenance["perturbation"] == "noisy_linear"


def test_sufficiency_on_paper(model):
    # the first pixel kept: the others are 0, error 1.5; the last kept: 2.5. (2.5 - 1.5) / 4
    score = xa.sufficiency(model, truth, IMAGES, fraction=0.25, **CARD)
    assert score.values.tolist() == [0.25, 0.25]
    assert score.details["kept_most_error"].tolist() == [1.5, 1.5]
    assert xa.sufficiency(model, INVERSE, IMAGES, fraction=0.25, **CARD).values.tolist() == [-0.25, -0.25]
    # both pixels that count kept: nothing is lost
    assert xa.sufficiency(model, truth, IMAGES, fraction=0.5, **CARD).values.tolist() == [1, 1]


ASSERTIONS = {
    "deletion_auc": (xa.assert_deletion_auc, {"min_auc": 1.5}),
    "insertion_auc": (xa.assert_insertion_auc, {"max_auc": 1.5}),
    "srg": (xa.assert_srg, {"min_srg": 0.5}),
    "road": (xa.assert_road, {"min_road": 0.5}),
    "sufficiency": (xa.assert_sufficiency, {"min_sufficiency": 0.2}),
}


@pytest.mark.parametrize("name", ASSERTIONS)
def test_the_truth_passes_and_the_inverse_is_rejected(name, model):
    check, bound = ASSERTIONS[name]
    more = (
        {"fractions": (0.25, 0.5)} if name == "road" else {"fraction": 0.25} if name == "sufficiency" else {"steps": 4}
    )
    assert check(model, truth, IMAGES, **bound, **more, **CARD).metric == name
    with pytest.raises(AssertionError, match=rf"(below|above) {next(iter(bound))}"):
        check(model, INVERSE, IMAGES, **bound, **more, **CARD)


@pytest.mark.parametrize("name", ["srg", "road", "sufficiency"])
def test_a_random_map_is_at_chance(name):
    """64 images: their mean is within 4 standard errors of 0, where 1 in 16,000 is not."""
    score = getattr(xa, name)(Pixelwise(draw(3, 6, 6)), "random", draw(64, 3, 6, 6, seed=1), task="depth")
    assert score.chance == 0
    assert abs(score.mean) < 4 * score.standard_error


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: xa.srg(m, truth, IMAGES, steps=1, **CARD), "steps must be a whole number of at least 2, not 1"),
        (lambda m: xa.srg(m, truth, IMAGES, steps=5, **CARD), "steps=5 is more than the 2x2 pixels"),
        (lambda m: xa.road(m, truth, IMAGES, fractions=(), **CARD), "fractions is empty"),
        (lambda m: xa.road(m, truth, IMAGES, fractions=(0.6,), **CARD), "at most 0.5 .*not 0.6"),
        (lambda m: xa.sufficiency(m, truth, IMAGES, fraction=0.7, **CARD), "at most 0.5 .*not 0.7"),
        (lambda m: xa.sufficiency(m, truth, IMAGES, fraction=math.nan, **CARD), "above 0 and at most 0.5"),
    ],
)
def test_bad_parameters_are_refused(call, text, model):
    with pytest.raises(ValueError, match=text):
        call(model)


@pytest.mark.parametrize("fractions", [[0.1, 0.1], [0.1, "a"]], ids=["twice", "text"])
def test_fractions_that_are_not_different_numbers_are_refused(fractions, model):
    with pytest.raises(ValueError, match="fractions must be numbers that differ from each other, not"):
        xa.road(model, truth, IMAGES, fractions=fractions, **CARD)


def test_one_fraction_alone_is_refused(model):
    with pytest.raises(TypeError, match=r"fractions must be a list of numbers, not 0\.1"):
        xa.road(model, truth, IMAGES, fractions=0.1, **CARD)
