"""Completeness: exact for integrated gradients of a square, and known for what is not complete."""

import pytest
import torch
from known_models import Counting, Pixelwise, Squares, curved, draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.batching import Passes
from xai_assert.metrics.completeness import baseline_of, gap

WEIGHTS = draw(3, 8, 8)
IMAGES = draw(5, 3, 8, 8, seed=1)
OPTIONS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ROUNDING = 1e-4  # of sums of 192 terms in float32, over a difference that is smaller than they


def ig(**parameters):
    return xa.method("integrated_gradients", **{"steps": 2} | parameters)


def scaled(factor):
    def method(model, images, target):
        baseline = model.card.colour((0.0, 0.0, 0.0))
        return factor * WEIGHTS.square() * (images.square() - baseline.square()) / 64

    return method


def evaluation(model=None, **options):
    return xa.Evaluation(model or Squares(WEIGHTS), IMAGES, **OPTIONS | options)


@pytest.mark.parametrize(
    "baseline", ["black", "white", "blurred", "black+mean", draw(3, 8, 8, seed=5)], ids=lambda b: str(b)[:9]
)
def test_integrated_gradients_of_a_square_are_complete_from_their_own_baseline(baseline):
    # the gradient is linear on the path, so the midpoint rule is exact with any number of steps
    assert xa.completeness(evaluation(), ig(baseline=baseline)).values.max() < ROUNDING


def test_from_another_baseline_they_are_not():
    ev = evaluation(Pixelwise(WEIGHTS))
    score = xa.completeness(ev, ig(baseline="white"), baseline="black")
    white, black = ev.subject.card.colour((1, 1, 1)), ev.subject.card.colour((0, 0, 0))
    by_hand = ((WEIGHTS * (black - white)).sum() / (WEIGHTS * (IMAGES - black)).sum((1, 2, 3))).abs()
    assert score.values.tolist() == pytest.approx(by_hand.tolist(), rel=1e-3)  # float32
    assert score.value > 0.1


@pytest.mark.parametrize(("factor", "expected"), [(1, 0), (0.5, 0.5), (2, 1), (-1, 2)])
def test_a_factor_is_found(factor, expected):
    assert xa.completeness(evaluation(), scaled(factor)).values.tolist() == pytest.approx([expected] * 5, abs=ROUNDING)


def test_the_gap_on_paper():
    total, value, reference = (
        torch.tensor([6.0, 1.0, 0.0, 0.0]),
        torch.tensor([9.0, 2, 3, 0]),
        torch.tensor([1.0, 2, 3, 0]),
    )
    # |6 - 8| / 8; |1 - 0| over a hundredth of 2; 0; and 0 where there is nothing at all
    assert gap(total, value, reference).tolist() == pytest.approx([0.25, 50, 0, 0])


def test_the_baseline_is_that_of_the_method_or_black():
    def mine(model, images, target, *, baseline="mean"):
        return images

    assert baseline_of(xa.method("integrated_gradients")) == "black"
    assert baseline_of(ig(baseline="white")) == "white"
    assert baseline_of(xa.method(mine)) == "mean"
    assert baseline_of(xa.method("saliency")) == "black"
    assert "baseline" not in xa.completeness(evaluation(), ig()).provenance


def test_a_colour_needs_the_models_statistics():
    ev = xa.Evaluation(Squares(WEIGHTS), IMAGES, task="depth")
    with pytest.raises(TypeError, match="has no mean and std"):
        xa.completeness(ev, "saliency")
    assert xa.completeness(ev, ig(baseline=torch.zeros(3, 1, 1))).value < ROUNDING


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="unknown baseline 'pink'"):
        xa.completeness(evaluation(), "saliency", baseline="pink")


def test_the_assertion_passes_the_complete_and_rejects_what_was_planted():
    ev = evaluation()
    assert xa.assert_completeness(ev, ig(), max_gap=0.01).metric == "completeness"
    for wrong in (scaled(0.5), scaled(-1), "saliency", "random"):
        with pytest.raises(AssertionError, match=r"above max_gap=0\.100"):
            xa.assert_completeness(ev, wrong, max_gap=0.1)


@pytest.mark.parametrize(("baseline", "count"), [("black", 1), ("black+white", 2)])
def test_it_costs_a_pass_a_baseline(baseline, count):
    model, method = Counting(curved()), ig(baseline=baseline)
    ev = evaluation(model, batch_size=2)
    xa.completeness(ev, method)
    assert ev.passes_of(method) == ev.expected_passes(method) == Passes(5 * (1 + count), 5 * 2 * count)
    assert (model.forwards, model.backwards) == (5 * (1 + 3 * count), 5 * 2 * count)


def test_batches_and_order_change_nothing():
    whole, pairs = (xa.completeness(evaluation(curved(), batch_size=size), ig()).values for size in (5, 2))
    turned = xa.completeness(curved(), ig(), IMAGES.flip(0), **OPTIONS).values.flip(0)
    # a convolution's rounding, over the smallest difference
    assert pairs.tolist() == pytest.approx(whole.tolist(), abs=1e-3)
    assert turned.tolist() == pytest.approx(whole.tolist(), abs=1e-3)


def test_a_gate_finds_it_by_name():
    ev, named = evaluation(Squares(WEIGHTS)), registry.metrics.get("completeness")
    noise = xa.perturbation("gaussian_noise")
    ev.plan("saliency", named.cells(noise, 0.05))
    score = xa.completeness(ev, "saliency")
    assert torch.equal(named.measure(ev, "saliency", noise, 0.05).values, score.values)
    assert (score.metric, ev.passes_of("saliency")) == (named.facts.name, Passes(5, 5))
