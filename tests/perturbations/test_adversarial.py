"""PGD: small steps along the sign of the gradient, from a random start, never further than epsilon."""

import itertools

import pytest
import torch
from known_models import Pixelwise, Squares, draw

import xai_assert as xa
from xai_assert.attributions.gradients import input_gradient
from xai_assert.subject import IMAGENET_STD
from xai_assert.tasks import depth_mean

IMAGES = draw(2, 3, 4, 5)
WEIGHTS = draw(3, 4, 5, seed=1)
RAW = xa.Card(name="raw", mean=(0.0,) * 3, std=(1.0,) * 3)
UNIT = torch.tensor(IMAGENET_STD)[:, None, None]


def attacked(images=IMAGES, model=None, *, seed=0, ids=(0, 1), card=RAW, seen=None, **parameters):
    subject = xa.describe(model or Pixelwise(WEIGHTS), name="net", task="depth")

    def gradient(at=None):
        at = images if at is None else at
        if seen is not None:
            seen.append(at.clone())
        return input_gradient(subject, at, depth_mean)

    made = xa.perturbation("pgd", **parameters).on(images, card=card, image_ids=ids, seed=seed, gradient=gradient)
    return made.field


@pytest.mark.parametrize("epsilon", [0.5, 3.0])
def test_on_a_linear_model_it_reaches_the_corner_of_the_box(epsilon):
    found = attacked(epsilon=epsilon)
    torch.testing.assert_close(found, IMAGES + epsilon * UNIT * WEIGHTS.sign(), rtol=1e-6, atol=1e-6)


def test_in_the_default_steps_it_crosses_the_whole_box():
    """Ten steps of a quarter of epsilon are 2.5 epsilon, and the box is 2 wide: any start will do."""
    for seed in range(5):
        torch.testing.assert_close(attacked(seed=seed), attacked(), rtol=1e-6, atol=1e-6)


def test_it_starts_anywhere_in_the_box_and_stays_there():
    seen = []
    attacked(draw(2, 3, 40, 50), Squares(draw(3, 40, 50)), seen=seen, epsilon=1.0, steps=4)
    away = [(at - draw(2, 3, 40, 50)) / UNIT for at in seen]
    assert len(away) == 4
    assert all(step.abs().max() <= 1 + 1e-5 for step in away)
    start = away[0]
    # 12000 uniform numbers in [-1, 1]: mean 0, variance 1/3, within 5 standard errors
    assert abs(start.mean()) < 5 / (3 * start.numel()) ** 0.5
    assert start.var() == pytest.approx(1 / 3, rel=5 / start.numel() ** 0.5)


def test_a_step_is_as_long_as_asked():
    seen = []
    attacked(seen=seen, epsilon=3.0, steps=3, step=0.001)
    for before, after in itertools.pairwise(seen):
        inside = ((after - IMAGES) / UNIT).abs() < 2.99
        expected = (0.001 * UNIT * WEIGHTS.sign()).expand_as(before)
        torch.testing.assert_close((after - before)[inside], expected[inside], rtol=0, atol=1e-6)  # float32 near 3


def test_it_follows_the_gradient_where_it_is_not_that_of_the_image():
    """sum (w x)^2 grows away from 0: what starts beyond 0 is driven on to the far side, where FGSM would turn back."""
    images = torch.full((1, 3, 8, 8), 0.01)
    found = attacked(images, Squares(torch.ones(3, 8, 8)), ids=(0,), epsilon=1.0)
    sides = ((found - images) / UNIT).sign()
    assert ((found - images) / UNIT).abs().min() > 0.999
    assert 0.3 < (sides > 0).float().mean() < 0.8


def test_a_larger_loss_than_one_step_of_fgsm_where_the_gradient_turns():
    model = Squares(torch.ones(3, 4, 5))
    stronger = depth_mean(model(attacked(model=model, epsilon=3.0, steps=20)))
    assert (stronger > depth_mean(model(IMAGES))).all()


def test_the_start_turns_with_seed_and_image_only():
    def first(**options):
        seen = []
        attacked(seen=seen, **options)
        return seen[0]

    assert torch.equal(first(), first(steps=3))
    assert not torch.equal(first(seed=1), first())
    assert not torch.equal(first(ids=(2, 3)), first())
    assert torch.equal(first(images=IMAGES[[1]], ids=(1,))[0], first()[1])


def test_clipped_at_every_step():
    seen = []
    found = attacked(IMAGES.sigmoid(), seen=seen, clip=True)
    for at in [*seen, found]:
        assert 0 <= at.min() <= at.max() <= 1


@pytest.mark.parametrize(("parameters", "gradients"), [({}, 10), ({"steps": 3}, 3), ({"epsilon": 1.0}, 10)])
def test_it_says_what_it_costs(parameters, gradients):
    seen = []
    attacked(seen=seen, **parameters)
    assert len(seen) == gradients == xa.perturbation("pgd", **parameters).gradients


def test_an_evaluation_spends_as_much():
    subject = xa.describe(Pixelwise(WEIGHTS), name="net", task="depth", mean=[0] * 3, std=[1] * 3)
    evaluation = xa.Evaluation(subject, IMAGES)
    score = evaluation.attribution_fidelity("random", perturbation="pgd(steps=3)", fraction=0.2)
    assert evaluation.passes.gradient == 2 * 3
    assert not score.circular
    assert score.provenance["attacked"] == "target"


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", None, True])
def test_bad_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"pgd: steps must be a whole number of at least 1, not {steps!r}"):
        attacked(steps=steps)


@pytest.mark.parametrize("step", [0, -1, float("nan"), "long"])
def test_a_bad_length_of_a_step_is_refused(step):
    with pytest.raises(ValueError, match=f"pgd: step must be a positive number, not {step!r}"):
        attacked(step=step)
