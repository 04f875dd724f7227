"""Can this model be measured at all? The checks of `xa.preflight` that no gate on a score makes, as tests.

And, for the networks that come with the project: are they as accurate as when they were trained?
"""

from __future__ import annotations

import json

import pytest
import torch

import xai_assert as xa
from xai_assert.batching import ImageSource, Samples, without_gradient
from xai_assert.datasets import bundled_images
from xai_assert.metrics.classes import class_accuracy
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
    found = accuracy(xai_model)
    for name, expected in json.loads(stored.read_text())["network"].items():
        assert found[name] == pytest.approx(expected, rel=SLACK), (
            f"{name} of {xai_model.name} on the bundled scenes is {found[name]:.4f}, not {expected}: other weights, or "
            "another preprocessing"
        )


def accuracy(subject: Subject) -> dict[str, float]:
    """On the bundled scenes, by name: of depth its errors, of classes the share of right labels."""
    scenes = bundled_images(subject.card)
    if subject.card.task and subject.card.task.name == "depth":
        return {name: score.value for name, score in vars(xa.depth_metrics(subject, scenes)).items()}
    truth = scenes.ground_truth()
    assert truth is not None
    with undisturbed(subject):
        outputs = [without_gradient(subject, image[None].to(subject.device)) for image in scenes.tensor()]
    return class_accuracy(torch.cat(outputs).cpu(), truth)


def judge(subject: Subject, check: str, outcome: str, words: str) -> None:
    """Red, skipped or green, with the words of the check."""
    __tracebackhide__ = True
    if outcome == "skip":
        pytest.skip(words)
    assert outcome != "fail", f"{subject.name}: {check}: {words}"
