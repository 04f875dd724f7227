"""The suites of heatmaps and of models themselves: what they find on bundled networks, and what they leave alone."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

import xai_assert as xa
from xai_assert import registry, resources
from xai_assert.attributions import register_method
from xai_assert.attributions.gradients import input_gradient


def suite(name):
    spec = importlib.util.spec_from_file_location(name, resources.suites() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


heatmaps, models = suite("test_heatmaps"), suite("test_model_is_sound")


@pytest.fixture
def meter():
    return xa.load_model("meter-xxs-scenes", "scenes", device="cpu")


def request(folder):
    extension = SimpleNamespace(dirname=lambda **_: str(folder), get_snapshot_name=lambda **_: "test_heatmaps[mine]")
    snapshot = SimpleNamespace(extension=extension, test_location=None, update_snapshots=False)
    return SimpleNamespace(getfixturevalue=lambda name: snapshot)


def test_a_shifted_saliency_is_red(meter, tmp_path):
    heatmaps.test_heatmaps("saliency", meter, None, request(tmp_path))
    with registry.isolated():

        @register_method("saliency", reduction="max_abs", gradient=True, replace=True)
        def shifted(model, images, target):
            return input_gradient(model, images, target).roll(8, -1)

        with pytest.raises(AssertionError, match="changed although the weights did not"):
            heatmaps.test_heatmaps("saliency", meter, None, request(tmp_path))


def test_other_weights_are_red(meter, tmp_path):
    next(meter.module.parameters()).data.mul_(1.5)
    with pytest.raises(AssertionError, match="the MODEL changed"):
        heatmaps.test_heatmaps("saliency", meter, None, request(tmp_path))


def test_a_model_without_stored_heatmaps_is_skipped_and_nothing_is_written(tmp_path):
    mine = xa.describe(torch.nn.Conv2d(3, 1, 1), name="mine", task="depth")
    with pytest.raises(pytest.skip.Exception, match="--snapshot-update to record them"):
        heatmaps.test_heatmaps("saliency", mine, None, request(tmp_path))
    assert not list(tmp_path.iterdir())


def test_stored_heatmaps_of_another_test_do_not_count(tmp_path):
    (tmp_path / "test_heatmaps[yours][0].h5").touch()
    snapshot = request(tmp_path).getfixturevalue("heatmap_snapshot")
    assert not heatmaps.recorded(snapshot)
    (tmp_path / "test_heatmaps[mine][0].h5").touch()
    assert heatmaps.recorded(snapshot)


@pytest.mark.parametrize("name", ["meter-xxs-scenes", "pixelformer-nano", "nearest-object-nano", "segmenter-nano"])
def test_another_preprocessing_makes_a_bundled_network_less_accurate(name):
    network = xa.load_model(name, "scenes", device="cpu")
    models.test_bundled_network_is_as_accurate_as_it_was(network)
    network.module.register_forward_pre_hook(lambda module, given: given[0].flip(1))
    with pytest.raises(AssertionError, match="other weights, or another preprocessing"):
        models.test_bundled_network_is_as_accurate_as_it_was(network)


def test_dropout_that_stays_on_is_red():
    network = torch.nn.Conv2d(3, 1, 1)
    network.register_forward_hook(lambda module, given, out: torch.nn.functional.dropout(out, 0.1, True))
    subject = xa.describe(network, name="dropping", task="depth")
    with pytest.raises(AssertionError, match="dropping: deterministic: the same images twice differ"):
        models.test_model_can_be_measured("deterministic", subject, torch.rand(2, 3, 8, 8))
