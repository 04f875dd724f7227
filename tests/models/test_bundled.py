"""The networks that the project trained: what they know of held-out rooms, and that they know it from the picture."""

import pytest
import torch
from safetensors.torch import save_file

import xai_assert as xa
from xai_assert import registry
from xai_assert.datasets import scenes
from xai_assert.errors import CheckpointError
from xai_assert.metrics.depth import depth_errors
from xai_assert.models.bundled import DEPTH, NETWORKS, bundled_weights
from xai_assert.verdicts import sign_flip_p


def load(name, weights="scenes"):
    return xa.load_model(name, weights, "cpu")


@pytest.fixture(scope="module", params=DEPTH)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def depth(name):
    subject = load(name)
    with torch.no_grad():
        return subject(scenes(subject.card).tensor())[:, 0]


@pytest.fixture(scope="module")
def truth(name):
    return scenes(load(name).card).ground_truth()


def errors(prediction, truth):
    return {metric: value.mean().item() for metric, value in depth_errors(prediction, truth, truth > 0).items()}


def test_it_knows_more_than_position(depth, truth):
    """The best map that does not look at the picture is the mean of the very maps that it is judged on."""
    found, position = errors(depth, truth), errors(truth.mean(0).expand_as(truth), truth)
    assert found["rmse"] <= 0.60 * position["rmse"]
    assert found["d1"] >= 0.8


@pytest.mark.parametrize("shift", [1, 7])
def test_on_pictures_of_other_rooms_the_advantage_is_gone(depth, truth, shift):
    position = errors(truth.mean(0).expand_as(truth), truth)["rmse"]
    assert errors(depth.roll(shift, 0), truth)["rmse"] > position


def test_a_method_beats_random_under_noise(name):
    """What gates ask: saliency's AF lies above 0, at 95 %, where the random control's does not."""
    subject = load(name)
    evaluation = xa.Evaluation(subject, scenes(subject.card))
    assert sign_flip_p(evaluation.attribution_fidelity("saliency")) <= 0.05
    assert sign_flip_p(evaluation.attribution_fidelity("random")) > 0.05


def test_the_files_are_small():
    assert sum(bundled_weights(name).stat().st_size for name in NETWORKS) < 25e6


def test_they_are_registered(name):
    assert name in registry.models.names()
    assert load(name).name == name
    assert load(name).card.weights == f"{name}.safetensors"


def test_random_weights_say_so(name):
    assert load(name, None).name == f"{name}-random"


def test_without_images_a_registered_model_gets_the_scenes(name):
    evaluation = xa.Evaluation(load(name, None))
    assert repr(evaluation) == f"<Evaluation of {name}-random on 24 images, seed 0>"


def test_weights_of_ones_own_in_half_precision(name, tmp_path):
    source = load(name, None).module.state_dict()
    state = {key: (v.half() if v.is_floating_point() else v).contiguous() for key, v in source.items()}
    save_file(state, tmp_path / "mine.safetensors")
    subject = load(name, tmp_path / "mine.safetensors")
    assert (subject.name, subject.card.unit, subject.card.weights) == (name, "m", "mine.safetensors")
    for key, value in subject.module.state_dict().items():
        torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0)


def test_meters_of_one_shape_are_told_apart():
    """The same 713,464 numbers fit the network for NYU, whose unit is the centimetre."""
    with pytest.raises(CheckpointError, match="is the published file of meter-xxs-scenes, not of meter-xxs-nyu"):
        load("meter-xxs-nyu", bundled_weights("meter-xxs-scenes"))


def test_weights_that_are_missing_are_asked_for(name, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no weights file .*none\.safetensors"):
        load(name, tmp_path / "none.safetensors")


def test_the_memory_layout_changes_speed_alone():
    """Channels last: the same sums in another order, so within rounding (float32, some 40 layers)."""
    subject = load("meter-xxs-scenes", None)
    image = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    fast = subject(image)
    plain = subject.module.to(memory_format=torch.contiguous_format)(image)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
