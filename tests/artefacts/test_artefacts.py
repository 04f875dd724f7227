"""What is shipped is judged: predictions are the artefact's, maps the twin's, and the two must be one network."""

import sys

import pytest
import torch
from artefacts.exported import COLOURS, classifier, exported, images, network, onnx, subject, torchscript
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.batching import Passes

IMAGES = images()
FORMATS = ("depth.pt", "depth.pt2", "depth.onnx")
# The same products and sums in float32, in another order: an output of order 1 is off by some 1e-7
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(params=FORMATS)
def path(request, ship):
    return ship(request.param)


def test_an_exact_artefact_scores_as_its_twin(path):
    judged, twin = xa.artefact(path, twin=subject()), subject()
    torch.testing.assert_close(judged(IMAGES), twin(IMAGES), **ROUNDING)
    for method in ("saliency", xa.method("integrated_gradients", steps=8), "random"):
        # the maps are the twin's own, to the bit; errors are differences of predictions, 1e-7 of some 1e-2
        assert torch.equal(xa.heatmap(judged, IMAGES, method), xa.heatmap(twin, IMAGES, method))
        found, expected = (
            xa.attribution_fidelity(one, method, IMAGES, perturbation="gaussian_noise") for one in (judged, twin)
        )
        torch.testing.assert_close(found.values, expected.values, rtol=1e-3, atol=1e-4)
    attacked, expected = (xa.attribution_fidelity(s, "saliency", IMAGES, perturbation="fgsm") for s in (judged, twin))
    torch.testing.assert_close(attacked.values, expected.values, rtol=1e-3, atol=1e-4)
    assert attacked.sign_agreement == expected.sign_agreement == 1


def test_results_say_whose_predictions_and_whose_maps(path):
    score = xa.attribution_fidelity(xa.artefact(path, twin=subject()), "saliency", IMAGES)
    about = score.to_dict()["provenance"]["artefact"]
    assert about["file"] == path.name
    assert about["maps"] == "twin Sequential"
    assert about["images"] == 6
    assert about["difference"] < 1e-6  # rounding
    (mark,) = [mark for mark in score.marks if "artefact" in mark]
    assert mark.startswith(f"predictions from the artefact {path.name}, maps from the twin Sequential, ")
    assert "artefact" not in xa.attribution_fidelity(subject(), "saliency", IMAGES).provenance


def test_predictions_come_from_the_artefact_and_not_from_the_twin(tmp_path):
    """An artefact that sees the left half alone: a map of the right half costs it nothing, though it does its twin."""

    class Half(nn.Module):
        def __init__(self, left, right):
            super().__init__()
            self.register_buffer("weight", torch.tensor([left] * 4 + [right] * 4))

        def forward(self, pictures):
            return pictures.mean(1, keepdim=True) * self.weight

    blind, whole = Half(4.0, 0.0), Half(4.0, 1.0)
    path = exported(blind, tmp_path / "blind.pt2")
    judged = xa.artefact(path, twin=whole, task="depth", tolerance=1.0, **COLOURS)

    def right(model, pictures, target):
        return torch.linspace(0, 1, 8).expand(len(pictures), 8, 8)

    score = xa.attribution_fidelity(judged, right, IMAGES, fraction=0.25)
    assert score.relevant_error.tolist() == [0.0] * 6  # the two last columns
    assert (score.irrelevant_error > 0).all()
    seeing = xa.describe(whole, name="whole", task="depth", **COLOURS)
    of_twin = xa.attribution_fidelity(seeing, right, IMAGES, fraction=0.25)
    assert (of_twin.relevant_error > 0).all()


def test_other_weights_are_no_twin(path):
    other = xa.artefact(path, twin=subject(network(seed=1)))
    with pytest.raises(xa.CheckpointError, match=r"apart on 6 clean images, where 0.1 is allowed: another network's w"):
        xa.attribution_fidelity(other, "saliency", IMAGES)
    with pytest.raises(xa.CheckpointError, match="another network's weights"):
        xa.heatmap(other, IMAGES, "saliency")


def test_a_twin_of_another_output_size_is_refused(ship):
    wrong = xa.describe(nn.Sequential(nn.Conv2d(3, 1, 2, 2)), name="coarse", task="depth")
    with pytest.raises(xa.CheckpointError, match=r"predicts \(4, 8, 8\) and its twin \(4, 4, 4\)"):
        xa.attribution_fidelity(xa.artefact(ship("depth.pt"), twin=wrong), "edges", IMAGES)


def test_the_same_weights_with_another_preprocessing_are_refused(ship):
    """As if the export had the normalisation inside, and the twin had it outside."""
    twin = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3), network()).eval()
    with torch.no_grad():
        twin[0].weight.fill_(4.0)
        twin[0].bias.fill_(-2.0)
    with pytest.raises(xa.CheckpointError, match="preprocessing"):
        xa.attribution_fidelity(xa.artefact(ship("depth.pt2"), twin=twin, task="depth"), "edges", IMAGES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's quantisation
def test_eight_bits_run_and_say_how_far_they_are_off(tmp_path):
    net = classifier()
    eight = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    path = torchscript(eight, tmp_path / "int8.pt")
    twin = xa.describe(net, name="rooms", task="classification", **COLOURS)
    score = xa.attribution_fidelity(xa.artefact(path, twin=twin), "saliency", IMAGES)
    with torch.no_grad():
        exact, found = net(IMAGES).softmax(1), eight(IMAGES[:4]).softmax(1)
    assert not torch.equal(exact[:4], found)
    # 256 steps over the range of weights and inputs move a logit by about a hundredth of itself
    assert 1e-4 < score.provenance["artefact"]["difference"] < 0.05
    assert torch.isfinite(score.values).all()


def test_half_precision_runs_and_its_rounding_counts_as_none(tmp_path):
    path = torchscript(network().half(), tmp_path / "half.pt", torch.float16)
    judged = xa.artefact(path, twin=subject())
    assert judged(IMAGES).dtype == torch.float16
    score = xa.attribution_fidelity(judged, "saliency", IMAGES)
    # 11 bits, two layers: some 1e-3 of values of order 1, whose spread is a few tenths
    assert 1e-5 < score.provenance["artefact"]["difference"] < 1e-2
    floor = 1e-2 * judged(IMAGES).float().abs().flatten(1).amax(1)
    torch.testing.assert_close(score.details["floor"].float(), floor)


def test_a_stricter_tolerance_refuses_half_precision(tmp_path):
    path = torchscript(network().half(), tmp_path / "half.pt", torch.float16)
    with pytest.raises(xa.CheckpointError, match="where 1e-06 is allowed"):
        xa.attribution_fidelity(xa.artefact(path, twin=subject(), tolerance=1e-6), "edges", IMAGES)


GRADIENTS = ("saliency", "integrated_gradients(steps=4)", "smoothgrad(draws=2)", "grad_cam", "input_x_gradient")


@pytest.mark.parametrize("method", [*GRADIENTS, "attention_rollout", "gradient_rollout"])
@pytest.mark.parametrize("name", ["depth.pt", "depth.pt2"])
def test_without_a_twin_gradients_say_what_to_do(ship, name, method):
    judged = xa.artefact(ship(name), task="depth", **COLOURS)
    for measure in (xa.attribute, xa.attribution_fidelity):
        with pytest.raises(xa.NotApplicableError, match=r"only predicts.*twin=module"):
            measure(*((judged, IMAGES, method) if measure is xa.attribute else (judged, method, IMAGES)))


def test_without_a_twin_attacks_say_what_to_do(ship):
    with pytest.raises(xa.NotApplicableError, match="twin=module"):
        xa.attribution_fidelity(
            xa.artefact(ship("depth.pt"), task="depth", **COLOURS), "edges", IMAGES, perturbation="fgsm"
        )


def test_without_a_twin_what_only_predicts_runs(path):
    judged = xa.artefact(path, task="depth", **COLOURS)
    for method in ("edges", "random"):
        score = xa.attribution_fidelity(judged, method, IMAGES)
        expected = xa.attribution_fidelity(subject(), method, IMAGES)
        torch.testing.assert_close(score.values, expected.values, rtol=1e-3, atol=1e-4)
    assert score.provenance["artefact"]["maps"] == "artefact"
    assert "difference" not in score.provenance["artefact"]


@pytest.mark.parametrize("name", ["FeatureAblation(patch=4)", "Occlusion(sliding_window_shapes=(3, 4, 4))"])
def test_without_a_twin_captums_ablations_run(path, name):
    pytest.importorskip("captum.attr", reason="needs captum")
    found = xa.heatmap(xa.artefact(path, task="depth", **COLOURS), IMAGES, f"captum/{name}")
    expected = xa.heatmap(subject(), IMAGES, f"captum/{name}")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)  # differences of means of order 1


@pytest.mark.parametrize("name", ["Saliency", "LRP", "LayerGradCam(layer='0')", "GuidedBackprop"])
def test_without_a_twin_captums_gradients_say_what_to_do(ship, name):
    pytest.importorskip("captum.attr", reason="needs captum")
    with pytest.raises(xa.NotApplicableError, match="twin=module"):
        xa.heatmap(xa.artefact(ship("depth.pt2"), task="depth", **COLOURS), IMAGES, f"captum/{name}")


@pytest.mark.parametrize("count", [1, 4])
def test_a_fixed_number_of_images_is_what_it_is_given(tmp_path, count):
    """6 images are no multiple of 4: the last call is filled up, and cut."""
    net, twin = network(), subject()
    judged = [xa.artefact(exported(net, tmp_path / "fixed.pt2", count, dynamic=False), twin=twin)]
    judged.append(xa.artefact(onnx(net, tmp_path / "fixed.onnx", count, dynamic=False), twin=twin))
    for one in judged:
        assert one.module.fixed == count
        torch.testing.assert_close(one(IMAGES), twin(IMAGES), **ROUNDING)


class FixedByReshape(nn.Module):
    def forward(self, pictures):
        return pictures.mean(1).reshape(1, 1, 8, 8)


def test_torchscript_of_a_fixed_number_says_so_or_is_told(tmp_path):
    path = torchscript(FixedByReshape(), tmp_path / "one.pt", count=1)
    with pytest.raises(xa.ModelOutputError, match="batch_size=1"):
        xa.artefact(path, task="depth")(IMAGES)
    told = xa.artefact(path, task="depth", batch_size=1)
    torch.testing.assert_close(told(IMAGES)[:, 0], IMAGES.mean(1), **ROUNDING)


def test_a_size_that_it_was_not_exported_for_is_named(ship):
    for name in ("depth.pt2", "depth.onnx"):
        with pytest.raises(xa.ModelOutputError, match="was exported for 8 pixels of width, not 9"):
            xa.artefact(ship(name), task="depth")(torch.zeros(1, 3, 8, 9))


def test_passes_are_counted_of_both(ship):
    judged = xa.artefact(ship("depth.pt"), twin=subject())
    ev = xa.Evaluation(judged, IMAGES)
    ev.attribution_fidelity("saliency")
    assert ev.passes == ev.expected_passes("saliency") == Passes(3 * 6, 6)  # clean, R and I; the twin's gradient


def test_the_twin_and_the_images_are_left_as_they_were(ship):
    twin = network().train()
    with untouched(twin, IMAGES):
        judged = xa.artefact(ship("depth.pt2"), twin=twin, task="depth", **COLOURS)
        xa.attribution_fidelity(judged, "saliency", IMAGES, perturbation="fgsm")


def test_metrics_that_look_into_the_network_look_into_the_twin(ship):
    judged = xa.artefact(ship("depth.pt"), twin=subject())
    for measure in (xa.randomization_sensitivity, xa.input_shift, xa.max_sensitivity, xa.completeness):
        found, expected = (measure(one, "saliency", IMAGES).value for one in (judged, subject()))
        assert found == pytest.approx(expected, rel=1e-3)


def test_programs_in_memory_are_copied(tmp_path):
    net = network()
    program = torch.export.export(net, (images(1),))
    judged, before = xa.artefact(program, twin=net, task="depth"), net(IMAGES).detach()
    with torch.no_grad():
        for tensor in program.state_dict.values():
            tensor.zero_()
    torch.testing.assert_close(judged(IMAGES), before, **ROUNDING)


def test_an_adapter_picks_the_output(tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, pictures):
            return {"depth": self.net(pictures), "confidence": pictures.mean(1)}

    def pick(raw):
        return raw["depth"]

    twin = xa.describe(Both().eval(), name="both", task="depth", output=pick)
    for path in (exported(Both().eval(), tmp_path / "b.pt2"), exported(network(), tmp_path / "plain.pt2")):
        torch.testing.assert_close(xa.artefact(path, twin=twin)(IMAGES), network()(IMAGES), **ROUNDING)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_named(ship, tmp_path, name):
    for content in (b"", b"not a network", ship(name).read_bytes()[:200]):
        broken = tmp_path / f"broken{ship(name).suffix}"
        broken.write_bytes(content)
        with pytest.raises(xa.CheckpointError, match=f"{broken.name} is damaged, or no "):
            xa.artefact(broken, task="depth")


def test_bad_arguments_are_named(ship, tmp_path):
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    good = ship("depth.pt2")
    for what, arguments, error, text in (
        (tmp_path / "none.pt", {}, xa.CheckpointError, "none.pt: No such file"),
        (tmp_path / "weights.pt", {}, xa.CheckpointError, "a state dict is no program"),
        (tmp_path / "net.tflite", {}, ValueError, "must end in one of .pt,"),
        (network(), {}, TypeError, "goes to xa.describe"),
        (good, {"task": None}, TypeError, "pass task="),
        (good, {"twin": "net"}, TypeError, "twin must be a torch.nn.Module"),
        (good, {"batch_size": 0}, ValueError, "batch_size must be a whole number"),
        (good, {"tolerance": -1}, ValueError, "tolerance must be a positive number"),
        (good, {"device": "tpu"}, ValueError, "device 'tpu'"),
    ):
        with pytest.raises(error, match=text):
            xa.artefact(what, **{"task": "depth"} | arguments)
    judged = xa.artefact(good, task="depth")
    with pytest.raises(TypeError, match="not another artefact"):
        xa.artefact(good, twin=judged)
    with pytest.raises(TypeError, match="is an artefact, which is judged as it is shipped"):
        xa.accelerate(judged, "bfloat16")


def test_two_inputs_cannot_be_explained(tmp_path):
    class Two(nn.Module):
        def forward(self, pictures, cameras):
            return pictures + cameras

    torch.export.save(torch.export.export(Two(), (images(1), images(1))), tmp_path / "two.pt2")
    with pytest.raises(xa.CheckpointError, match="takes 2 inputs"):
        xa.artefact(tmp_path / "two.pt2", task="depth")


def test_without_onnxruntime_the_command_is_named(ship, monkeypatch):
    path = ship("depth.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'xai-assert\[onnx\]'"):
        xa.artefact(path, task="depth")


def test_another_name_is_still_the_artefact(ship):
    judged = xa.load_model(lambda: xa.artefact(ship("depth.pt"), twin=subject()), device="cpu", name="v8")
    assert repr(judged) == "<Artefact v8: depth in m, TorchScript depth.pt, maps from the twin Sequential>"
    assert judged.twin.name == "v8"
    score = xa.attribution_fidelity(judged, "saliency", IMAGES)
    assert (score.provenance["model"], score.provenance["weights"]) == ("v8", "depth.pt")
