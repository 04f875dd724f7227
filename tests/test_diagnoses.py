"""The likely causes: each is said of the fault that was planted, and of nothing else."""

import dataclasses

import pytest
import torch
from known_models import Blind, Pixelwise, Squares, draw

import xai_assert as xa
from xai_assert.diagnoses import diagnose

SIZE = (8, 8)
IMAGES = draw(12, 3, *SIZE, seed=1)
WEIGHTS = draw(3, *SIZE, seed=2).abs()
CARD = {"task": "depth", "mean": [0.0] * 3, "std": [1.0] * 3}


def truth(model, images, target):
    return WEIGHTS.sum(0).expand(len(images), -1, -1)


def inverse(model, images, target):
    return -truth(model, images, target)


def words(score, **beside):
    return [cause.partition(":")[0].split("?")[0] for cause in diagnose(score, beside)]


def fidelity(method, model=None, **options):
    model = model or Pixelwise(WEIGHTS)
    return xa.attribution_fidelity(model, method, IMAGES, **{"fraction": 0.1, **CARD, **options})


def test_the_true_map_has_no_cause():
    assert words(fidelity(truth)) == []


def test_an_inverted_map_is_called_so():
    assert words(fidelity(xa.method(inverse, signed="as_is"))) == ["inverted"]


def test_few_images_are_enough_for_an_inverted_map():
    score = xa.attribution_fidelity(
        Pixelwise(WEIGHTS), xa.method(inverse, signed="as_is"), IMAGES[:3], fraction=0.1, **CARD
    )
    assert words(score) == ["inverted"]


def test_a_random_map_is_not_called_inverted():
    assert words(fidelity("random")) == []


def test_a_strength_that_breaks_the_prediction_is_called_saturated():
    flat = Pixelwise(torch.ones(3, *SIZE))  # its clean map spreads about sqrt(3); noise of 50 moves it far beyond
    score = fidelity("random", flat, perturbation=xa.perturbation("gaussian_noise", sigma=50.0), fraction=0.3)
    assert "saturated" in words(score)
    assert words(fidelity("random", flat, perturbation=xa.perturbation("gaussian_noise", sigma=0.1))) == []


def test_a_map_that_is_right_on_average_alone_is_told_by_its_fe():
    """Relevance follows the error, but the two ends are swapped for two groups between them: FE high, AF about 0."""
    score, fe = fidelity("random"), fidelity("random")
    high = dataclasses.replace(fe, values=torch.full((len(fe),), 0.93), metric="fe")
    low = dataclasses.replace(fe, values=torch.full((len(fe),), 0.3), metric="fe")
    assert words(score, fe=high) == ["right on average, not at the ends"]
    assert words(score, fe=low) == []
    assert words(fidelity(truth), fe=high) == []


def test_a_map_of_edges_is_called_so_and_the_control_is_not():
    def outlines(model, images, target):
        return xa.registry.methods.get("edges").function(model, images, target)

    assert "dominated by edges" in words(fidelity(outlines, Squares(WEIGHTS)))
    assert "dominated by edges" not in words(fidelity("edges", Squares(WEIGHTS)))
    assert "dominated by edges" not in words(fidelity("random", Squares(WEIGHTS)))


def test_an_unresponsive_model_has_one_cause_only():
    assert words(fidelity("random", Blind())) == []


def test_only_a_fidelity_is_diagnosed():
    assert diagnose(xa.Score(torch.tensor([-1.0] * 12), tuple(range(12)), "af"), {}) == []


def test_the_failure_text_says_it():
    with pytest.raises(AssertionError, match=r"likely: inverted\?"):
        xa.assert_attribution_fidelity(
            Pixelwise(WEIGHTS), xa.method(inverse, signed="as_is"), IMAGES, min_af=0.1, fraction=0.1, **CARD
        )


def test_the_failure_text_uses_an_fe_that_was_measured_already():
    ev = xa.Evaluation(Pixelwise(WEIGHTS), IMAGES, **CARD)
    fe = xa.faithfulness_estimate(ev, "random")
    passes = ev.passes_of("random").forward
    with pytest.raises(AssertionError) as caught:
        xa.assert_attribution_fidelity(ev, "random", min_af=0.9, fraction=0.1)
    assert ev.passes_of("random").forward == passes + 3 * len(IMAGES)  # a clean pass, R and I: none for the diagnosis
    assert ("right on average" in str(caught.value)) == (fe.value > 0.5)
