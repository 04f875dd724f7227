"""AF at several fractions: figures, passes, the assertion and the picture."""

import numpy as np
import pytest
import torch
from known_models import Counting, Pixelwise, draw
from PIL import Image

import xai_assert as xa

IMAGES = draw(12, 3, 8, 8, seed=1)
WEIGHTS = draw(3, 8, 8, seed=2).abs()
FRACTIONS = (0.05, 0.1, 0.25)
OPTIONS = {"task": "depth", "fractions": FRACTIONS}


def truth(model, images, target):
    return WEIGHTS.sum(0).expand(len(images), -1, -1)


def inverse(model, images, target):
    return -truth(model, images, target)


WRONG = xa.method(inverse, signed="as_is")


def test_each_score_is_that_of_its_fraction():
    model = Pixelwise(WEIGHTS)
    curve = xa.fidelity_curve(model, truth, IMAGES, task="depth", fractions=FRACTIONS[::-1])
    assert curve.fractions == FRACTIONS
    for what, found in ((truth, curve.scores), ("random", curve.control)):
        alone = [xa.attribution_fidelity(model, what, IMAGES, task="depth", fraction=f) for f in FRACTIONS]
        assert all(torch.equal(a.values, b.values) for a, b in zip(found, alone, strict=True))
    assert str(curve).splitlines()[1].split()[0] == "5.0%"


def test_one_attribution_serves_all_fractions():
    model = Counting(Pixelwise(WEIGHTS))
    xa.fidelity_curve(model, "saliency", IMAGES, **OPTIONS)
    assert model.backwards == 12
    assert model.forwards == 12 * (1 + 2 * 3 + 1 + 2 * 3)  # the map, both ends; the control's clean one, both ends


def test_the_truth_passes_and_its_inverse_is_rejected_with_the_table():
    model = Pixelwise(WEIGHTS)
    curve = xa.assert_fidelity_curve(model, truth, IMAGES, min_af=0.2, confidence=0.95, beats="random", **OPTIONS)
    assert min(score.value for score in curve.scores) > 0.2
    with pytest.raises(AssertionError) as caught:
        xa.assert_fidelity_curve(model, WRONG, IMAGES, min_af=0.0, **OPTIONS)
    text = str(caught.value)
    assert "below min_af=0.000" in text
    assert "fractions that miss: 0.05, 0.1, 0.25" in text
    assert "fraction      AF    95% interval  random" in text
    assert caught.value.score.value == min(s.value for s in xa.fidelity_curve(model, WRONG, IMAGES, **OPTIONS).scores)


def test_the_tests_against_random_are_one_family():
    """5 images give p = 1/32 at best: alone it is enough, after Holm over three fractions it is not."""
    model = Pixelwise(WEIGHTS)
    assert xa.assert_fidelity_curve(model, truth, IMAGES[:5], beats="random", task="depth", fractions=(0.1,))
    with pytest.raises(AssertionError, match=r"does not beat random after Holm over the fractions \(p=0\.094\)"):
        xa.assert_fidelity_curve(model, truth, IMAGES[:5], beats="random", **OPTIONS)


@pytest.mark.parametrize(
    ("fractions", "error", "text"),
    [
        (0.1, TypeError, "fractions must be a list of numbers"),
        ([0.1, 0.1], ValueError, "differ from each other"),
        ([0.7], ValueError, "at most 0.5"),
    ],
    ids=["a number", "twice", "too large"],
)
def test_bad_fractions_are_refused(fractions, error, text):
    with pytest.raises(error, match=text):
        xa.fidelity_curve(Pixelwise(WEIGHTS), truth, IMAGES, task="depth", fractions=fractions)


def test_no_fraction_and_another_control_are_refused():
    with pytest.raises(ValueError, match="fractions is empty"):
        xa.fidelity_curve(Pixelwise(WEIGHTS), truth, IMAGES, task="depth", fractions=())
    with pytest.raises(ValueError, match="beats must be 'random' for a curve, not 'edges'"):
        xa.assert_fidelity_curve(Pixelwise(WEIGHTS), truth, IMAGES, beats="edges", **OPTIONS)


@pytest.mark.parametrize("count", [3, 12])
def test_the_picture_is_one(tmp_path, count):
    curve = xa.fidelity_curve(Pixelwise(WEIGHTS), truth, IMAGES[:count], **OPTIONS)
    with Image.open(curve.save_picture(tmp_path / "curve.png")) as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
