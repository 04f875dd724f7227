"""Input shift: the gradient does not see it, a product with the input does, and the model is left without a trace."""

import pytest
import torch
from known_models import Attentive, Capturing, Counting, Failing, Pixelwise, Squares, curved, draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.batching import Passes

WEIGHTS = draw(3, 8, 8)
IMAGES = draw(5, 3, 8, 8, seed=1)
STATISTICS = {"mean": [0.5, 0.5, 0.5], "std": [0.229, 0.448, 0.0225]}  # a standard deviation is 1, 0.5 and 10 here
ROUNDING = 1e-5  # x + s - s in float32


def evaluation(model=None, **options):
    return xa.Evaluation(model or curved(), IMAGES, task="depth", **STATISTICS | options)


def times_input(model, images, target):
    return images * WEIGHTS / 64


@pytest.mark.parametrize("shift", [0.01, 1, 3.0])
def test_the_gradient_is_invariant(shift):
    for model in (curved(), Squares(WEIGHTS)):
        assert xa.input_shift(evaluation(model), "saliency", shift=shift).values.max() < ROUNDING * max(1, 10 * shift)


def test_a_product_with_the_input_is_not_by_as_much_as_on_paper():
    score = xa.input_shift(evaluation(Pixelwise(WEIGHTS)), times_input, shift=2)
    shift = 2 * torch.tensor([1.0, 0.5, 10.0]).reshape(3, 1, 1)
    before, after = ((WEIGHTS * x).sum(1).abs() for x in (IMAGES, IMAGES + shift))
    by_hand = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    assert score.values.tolist() == pytest.approx(by_hand.tolist(), rel=1e-4)  # float32
    assert score.value > 1


def test_integrated_gradients_from_a_fixed_colour_are_not_the_papers_result():
    steps = xa.method("integrated_gradients", steps=20)
    assert xa.input_shift(evaluation(), steps).value > 0.1


def test_integrated_gradients_from_a_baseline_that_shifts_along_are():
    def moving(model, images, target):  # the baseline is each image's own mean colour
        baseline = images.mean((2, 3), keepdim=True)
        x = ((images + baseline) / 2).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(target(model(x)).sum(), x)
        return gradient * (images - baseline)

    assert xa.input_shift(evaluation(), moving).values.max() < 10 * ROUNDING


def test_a_rollout_still_finds_its_attention():
    images = draw(3, 3, 16, 16, seed=1)
    assert xa.input_shift(Attentive(), "attention_rollout", images, task="depth").values.max() < ROUNDING


def test_a_map_that_ignores_the_image_is_invariant():
    assert xa.input_shift(evaluation(), "random").value == 0
    assert xa.input_shift(evaluation(), "edges").values.max() < ROUNDING * 10  # of differences of shifted values


def test_the_model_sees_the_images_and_the_method_sees_them_shifted():
    model, asked = Capturing(curved()), []

    def method(subject, images, target):
        asked.append(images)
        subject(images)
        return images

    xa.input_shift(evaluation(model, batch_size=5), method, shift=2)
    shift = torch.tensor([2.0, 1.0, 20.0]).reshape(3, 1, 1)
    assert torch.allclose(asked[1], IMAGES + shift, atol=4e-6)  # two roundings of 20
    assert torch.allclose(model.seen[-1], IMAGES, atol=4e-6)


def test_a_hook_that_was_there_is_part_of_the_model():
    hooked = curved()
    hooked.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 10,))
    assert xa.input_shift(evaluation(hooked), "saliency").values.max() < ROUNDING * 10


def test_the_hook_is_gone_also_after_an_error():
    model = curved()
    xa.input_shift(evaluation(model), "saliency")
    assert not model._forward_pre_hooks
    failing = Failing(curved(), 2, RuntimeError("no"))
    with pytest.raises(xa.ModelOutputError, match="no"):
        xa.input_shift(evaluation(failing, batch_size=5), "saliency")
    assert not failing._forward_pre_hooks


def test_the_assertion_passes_the_gradient_and_rejects_what_was_planted():
    ev = evaluation(Pixelwise(WEIGHTS))
    assert xa.assert_input_shift(ev, "saliency", max_change=0.01).metric == "input_shift"
    for wrong in (times_input, xa.method("integrated_gradients", steps=2)):
        with pytest.raises(AssertionError, match=r"above max_change=0\.010"):
            xa.assert_input_shift(ev, wrong, max_change=0.01)


def test_it_costs_one_explanation():
    model = Counting(curved())
    ev = evaluation(model, batch_size=2)
    method = xa.method("integrated_gradients", steps=3)
    xa.input_shift(ev, method)
    assert ev.passes_of(method) == ev.expected_passes(method) == Passes(5, 5 * 3 * 2)
    assert (model.forwards, model.backwards) == (5 + 5 * 6, 5 * 6)


def test_batches_and_order_change_nothing():
    method = xa.method("integrated_gradients", steps=3)
    whole, pairs = (xa.input_shift(evaluation(batch_size=size), method).values for size in (5, 2))
    turned = xa.input_shift(curved(), method, IMAGES.flip(0), task="depth", **STATISTICS).values.flip(0)
    assert pairs.tolist() == pytest.approx(whole.tolist(), rel=1e-4)  # a convolution's rounding
    assert turned.tolist() == pytest.approx(whole.tolist(), rel=1e-4)


def test_no_shift_is_refused():
    with pytest.raises(ValueError, match="shift must be a positive number, not 0"):
        xa.input_shift(evaluation(), "saliency", shift=0)


def test_a_gate_finds_it_by_name():
    ev, named = evaluation(curved()), registry.metrics.get("input_shift")
    noise = xa.perturbation("gaussian_noise")
    ev.plan("saliency", named.cells(noise, 0.05))
    score = xa.input_shift(ev, "saliency")
    assert torch.equal(named.measure(ev, "saliency", noise, 0.05).values, score.values)
    assert (score.metric, ev.passes_of("saliency")) == (named.facts.name, Passes(0, 5 * 2))
