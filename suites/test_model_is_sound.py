"""Can this model be measured at all? The checks of `xa.preflight` that no gate on a score makes, as tests.

And, for the networks that come with the project: are they as accurate as when they were trained?
"""

from __future__ import annotations

import json

import pytest

import xai_assert as xa
from xai_assert.batching import ImageSource, Samples
from xai_assert.datasets import bundled_images
from xai_assert.model_checks import CHECKS, Looked, input_scale
from xai_assert.models.bundled import bundled_weights
from xai_assert.preserve import undisturbed
from xai_assert.subject import Subject

pytestmark = pytest.mark.xai  # so they run for every model of the run

LOOKED_AT = 4  # images
SLACK = 0.02  # of the stored figure, which has four digits: another device or torch moves it by less than .001


@pytest.mark.parametrize("check", CHECKS)
def test_model_can_be_measured(check: str, xai_model: Subject, xai_images: Samples) -> None:
    __tracebackhide__ = True
    batch = ImageSource(xai_images, channels=xai_model.card.channels).batch(0, min(LOOKED_AT, len(xai_images)))
    with undisturbed(xai_model):
        looked = Looked.at(xai_model, batch.images.to(xai_model.device), batch.ids, seed=0)
        judge(xai_model, check, *CHECKS[check](looked))


def test_images_are_scaled_as_the_card_says(xai_model: Subject, xai_images: Samples) -> None:
    __tracebackhide__ = True
    batch = ImageSource(xai_images, channels=xai_model.card.channels).batch(0, min(LOOKED_AT, len(xai_images)))
    judge(xai_model, "input scale", *input_scale(xai_model, batch.images))


def test_bundled_network_is_as_accurate_as_it_was(xai_model: Subject) -> None:
    stored = bundled_weights(xai_model.name).with_suffix(".json")
    if xai_model.card.weights != f"{xai_model.name}.safetensors" or not stored.is_file():
        pytest.skip(f"{xai_model.name} did not come with the project; compare yours with xa.depth_metrics")
    scores = xa.depth_metrics(xai_model, bundled_images(xai_model.card))
    for name, expected in json.loads(stored.read_text())["network"].items():
        found = getattr(scores, name).value
        assert found == pytest.approx(expected, rel=SLACK), (
            f"{name} of {xai_model.name} on the bundled scenes is {found:.4f}, not {expected}: other weights, or "
            "another preprocessing"
        )


def judge(subject: Subject, check: str, outcome: str, words: str) -> None:
    """Red, skipped or green, with the words of the check."""
    __tracebackhide__ = True
    if outcome == "skip":
        pytest.skip(words)
    assert outcome != "fail", f"{subject.name}: {check}: {words}"
