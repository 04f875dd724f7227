"""Max-sensitivity: zero for what is constant in the image, by hand for what is linear in it, and captum's numbers."""

import pytest
import torch
from known_models import Capturing, Counting, Pixelwise, Squares, curved, draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.batching import Passes
from xai_assert.metrics.sensitivity import relative_change

WEIGHTS = draw(3, 8, 8)
IMAGES = draw(5, 3, 8, 8, seed=1)


def times_input(model, images, target):
    """w x / HW, the gradient of a Pixelwise model times its input."""
    return images * WEIGHTS / 64


def jumpy(model, images, target):
    """A map that is drawn anew whenever a value of the image moves."""
    seeds = (1e6 * images.flatten(1).sum(1)).long().tolist()
    return torch.stack([draw(*images.shape[1:], seed=abs(seed)) for seed in seeds])


def evaluation(model=None, **options):
    return xa.Evaluation(model or Pixelwise(WEIGHTS), IMAGES, task="depth", **options)


def test_the_gradient_of_a_linear_model_does_not_move():
    assert xa.max_sensitivity(evaluation(), "saliency").values.tolist() == [0.0] * 5


def test_what_is_linear_in_the_image_moves_as_far_as_the_image():
    model = Capturing(Squares(WEIGHTS))  # its gradient is 2 w^2 x / HW
    score = xa.max_sensitivity(evaluation(model, batch_size=5), "saliency", radius=0.2, samples=4)
    moves = [WEIGHTS.square() * (seen - IMAGES) for seen in model.seen[-4:]]
    by_hand = torch.stack([m.flatten(1).norm(dim=1) for m in moves]).amax(0)
    by_hand = by_hand / (WEIGHTS.square() * IMAGES).flatten(1).norm(dim=1)
    assert score.values.tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)  # float32
    assert 0.01 < score.value < 0.2


def test_changes_stay_inside_the_ball_and_fill_it():
    model = Capturing(Pixelwise(WEIGHTS))
    ev = evaluation(model, mean=[0.5] * 3, std=[0.229, 0.448, 0.0225], batch_size=5)
    xa.max_sensitivity(ev, "saliency", radius=0.3, samples=6)
    changes = torch.stack(model.seen[-6:]) - IMAGES
    # one ImageNet standard deviation is 1, 0.5 and 10 in this input
    reached = changes.abs().amax((0, 1, 3, 4)) / torch.tensor([0.3, 0.15, 3.0])
    assert (reached <= 1 + 1e-4).all()  # float32
    assert (reached > 0.98).all()  # of 1920 uniform draws
    assert len({round(float(c.sum()), 4) for c in changes.flatten(0, 1)}) == 30  # each its own


def test_relative_change_on_paper():
    before = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[1e30, 0.0]]])
    after = torch.tensor([[[3.0, 9.0]], [[0.0, 2.0]], [[1e30, 0.0]]])
    assert relative_change(before, after).tolist() == [1.0, 2.0, 0.0]


def test_it_is_captums_given_the_same_perturbations():
    metrics = pytest.importorskip("captum.metrics")
    model = Capturing(curved())
    score = xa.max_sensitivity(evaluation(model, batch_size=5), "saliency", samples=6)
    shown = torch.stack(model.seen[-6:], 1).flatten(0, 1)

    def explain(inputs):
        images = inputs[0] if isinstance(inputs, tuple) else inputs
        return (xa.attribute(model.inner, images, "saliency", task="depth"),)

    theirs = metrics.sensitivity_max(explain, IMAGES, lambda inputs, radius: shown, n_perturb_samples=6)
    assert score.values.tolist() == pytest.approx(theirs.tolist(), rel=1e-3)  # differences of float32
    assert score.value > 0.01


def test_a_map_that_ignores_the_image_is_stable():
    assert xa.max_sensitivity(evaluation(), "random").value == 0


def test_the_assertion_passes_the_stable_and_rejects_what_was_planted():
    ev = evaluation()
    assert xa.assert_max_sensitivity(ev, times_input, max_sensitivity=0.3).metric == "max_sensitivity"
    with pytest.raises(AssertionError, match=r"above max_sensitivity=0\.300"):
        xa.assert_max_sensitivity(ev, jumpy, max_sensitivity=0.3)


def test_it_costs_an_explanation_a_sample():
    model = Counting(curved())
    ev = evaluation(model, batch_size=2)
    method = xa.method("integrated_gradients", steps=3, baseline=torch.zeros(3, 1, 1))
    xa.max_sensitivity(ev, method, samples=4)
    assert ev.passes_of(method) == ev.expected_passes(method) == Passes(5, 5 * 3 * (1 + 4))
    assert (model.forwards, model.backwards) == (5 + 5 * 15, 5 * 15)


def test_batches_and_order_change_nothing():
    ids = [f"{i}.png" for i in range(5)]
    whole = xa.max_sensitivity(evaluation(curved(), image_ids=ids, batch_size=5), "saliency")
    pairs = xa.max_sensitivity(evaluation(curved(), image_ids=ids, batch_size=2), "saliency")
    turned = xa.max_sensitivity(curved(), "saliency", IMAGES.flip(0), image_ids=ids[::-1], task="depth")
    assert pairs.values.tolist() == pytest.approx(whole.values.tolist(), rel=1e-4)  # a convolution's rounding
    assert turned.values.flip(0).tolist() == pytest.approx(whole.values.tolist(), rel=1e-4)


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="radius must be a positive number, not 0"):
        xa.max_sensitivity(evaluation(), "saliency", radius=0)
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1, not 0"):
        xa.max_sensitivity(evaluation(), "saliency", samples=0)


def test_a_gate_finds_it_by_name():
    ev, named = evaluation(curved()), registry.metrics.get("max_sensitivity")
    noise = xa.perturbation("gaussian_noise")
    ev.plan("saliency", named.cells(noise, 0.05))
    score = xa.max_sensitivity(ev, "saliency")
    assert torch.equal(named.measure(ev, "saliency", noise, 0.05).values, score.values)
    assert (score.metric, ev.passes_of("saliency")) == (named.facts.name, Passes(0, 5 * 11))
