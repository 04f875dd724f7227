"""The networks for the rooms' classes: what they know of held-out rooms, and that they know it from the picture."""

import pytest
import torch

import xai_assert as xa
from xai_assert.datasets import nearest_masks, scenes
from xai_assert.datasets.nearest import OBJECTS
from xai_assert.datasets.rooms import CLASSES
from xai_assert.models.bundled import bundled_weights
from xai_assert.verdicts import sign_flip_p

NEAREST, SEGMENTER = "nearest-object-nano", "segmenter-nano"


@pytest.fixture(scope="module", params=[NEAREST, SEGMENTER])
def subject(request):
    return xa.load_model(request.param, "scenes", "cpu")


@pytest.fixture(scope="module")
def answer(subject):
    with torch.no_grad():
        return subject(scenes(subject.card).tensor()).argmax(1)


@pytest.fixture(scope="module")
def truth(subject):
    return scenes(subject.card).ground_truth()


def accuracy(answer, truth):
    return (answer == truth).double().mean().item()


def test_it_knows_more_than_the_commonest_class(subject, answer, truth):
    """The best answer that does not look at the picture is the commonest label of the very pictures it is judged on."""
    blind = accuracy(truth.mode(0).values.expand_as(truth), truth)
    assert accuracy(answer, truth) >= blind + 0.15


def test_on_pictures_of_other_rooms_the_advantage_is_gone(answer, truth):
    blind = accuracy(truth.mode(0).values.expand_as(truth), truth)
    assert accuracy(answer.roll(7, 0), truth) < blind + 0.1


def test_what_it_is(subject):
    assert subject.card.task.name == {NEAREST: "classification", SEGMENTER: "segmentation"}[subject.name]
    assert subject.card.classes == {NEAREST: OBJECTS, SEGMENTER: CLASSES}[subject.name]
    assert subject.card.weights == f"{subject.name}.safetensors"
    assert bundled_weights(subject.name).stat().st_size < 4e6
    assert xa.load_model(subject.name, device="cpu").name == f"{subject.name}-random"


def test_saliency_beats_random_under_noise(subject):
    evaluation = xa.Evaluation(subject)
    assert repr(evaluation) == f"<Evaluation of {subject.name} on 24 images, seed 0>"
    assert sign_flip_p(evaluation.attribution_fidelity("saliency")) <= 0.05
    assert sign_flip_p(evaluation.attribution_fidelity("random")) > 0.05


def test_its_maps_lie_on_the_object_that_it_names():
    """Where it is right: more of saliency's relevance on the nearest object than of a map that knows nothing."""
    subject = xa.load_model(NEAREST, "scenes", "cpu")
    found = scenes(subject.card)
    with torch.no_grad():
        right = (subject(found.tensor()).argmax(1) == found.ground_truth()).tolist()
    masks = nearest_masks(subject.card)
    evaluation = xa.Evaluation(subject, found)
    mass = {m: xa.localization(evaluation, m, masks=masks).values for m in ("saliency", "random")}
    gain = (mass["saliency"] - mass["random"])[torch.tensor(right)]
    assert (gain > 0).double().mean() > 0.6
