"""The training script: an interrupted run ends where an uninterrupted one does, and a short one works."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import xai_assert as xa
from xai_assert.models.bundled import NETWORKS, bundled, bundled_weights

SCRIPTS = Path(__file__).parents[1] / "training"
STEPS = 7


@pytest.fixture(scope="module")
def script():
    """The module `train`, with a checkpoint every 3 steps."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import train
    finally:
        sys.path.remove(str(SCRIPTS))
    train.KEEP_EVERY, train.COUNTED = 3, 2
    return train


def trained(script, folder, model="pixelformer-nano"):
    """A run on noise; what becomes of the weights."""
    folder.mkdir(exist_ok=True)
    options = argparse.Namespace(
        model=model, out=folder, scenes=9, steps=STEPS, batch=2, small=0.0, rate=1e-3, seed=0, device="cpu"
    )
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (9, 3, 64, 64), generator=random).to(torch.uint8)
    torch.manual_seed(0)
    subject = bundled(model)
    network = script.train(subject.module.requires_grad_(True), subject.card, images, noise(model, random), options)
    return network.state_dict()


def noise(model, random):
    """Ground truth as `cache.prepared` gives it."""
    if model == "nearest-object-nano":
        return torch.randint(11, (9,), generator=random).to(torch.uint8)
    if model == "segmenter-nano":
        return torch.randint(19, (9, 64, 64), generator=random).to(torch.uint8)
    size = (16, 16) if model.startswith("meter") else (64, 64)
    return 1 + torch.rand(9, *size, generator=random)


@pytest.mark.parametrize("model", NETWORKS)
def test_an_interrupted_run_goes_on_where_it_was(script, tmp_path, monkeypatch, model):
    whole = trained(script, tmp_path / "whole", model)
    batch = script.batch

    def pulled_plug(images, depths, step, options):
        if step == 5:
            raise KeyboardInterrupt
        return batch(images, depths, step, options)

    with monkeypatch.context() as context:
        context.setattr(script, "batch", pulled_plug)
        with pytest.raises(KeyboardInterrupt):
            trained(script, tmp_path / "cut", model)
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 3
    resumed = trained(script, tmp_path / "cut", model)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_the_folder_of_another_run_is_refused(script, tmp_path):
    trained(script, tmp_path)
    with pytest.raises(
        SystemExit, match="holds a run with --model pixelformer-nano, not meter-xxs-scenes; go on with that"
    ):
        trained(script, tmp_path, "meter-xxs-scenes")


def test_a_loss_that_is_no_number_ends_the_run(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "depth_loss", lambda depth, truth: depth.sum() * torch.nan)
    with pytest.raises(SystemExit, match="the loss of step 0 is nan; a smaller --rate may help"):
        trained(script, tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--batch", "9", "--scenes", "9"], "--scenes 9 must be more than --batch 9"),
        (["--rate", "nan"], "--rate must be a number above 0, not nan"),
        (["--model", "resnet"], "invalid choice: 'resnet'"),
    ],
)
def test_arguments_that_make_no_sense(script, tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path), *given])
    with pytest.raises(SystemExit):
        script.arguments()
    assert said in capsys.readouterr().err


def test_the_loss_on_paper(script):
    """A prediction that is right costs nothing, one that is 1 m off everywhere 1 + 2 log(ratio)."""
    truth = torch.full((1, 4, 4), 2.0)
    assert script.depth_loss(truth, truth) == 0
    assert script.depth_loss(truth + 1, truth) == pytest.approx(1 + 2 * torch.log(torch.tensor(1.5)).item())


def test_the_loss_of_classes_on_paper(script):
    """Without knowledge it is the logarithm of the number of classes; what nobody knows is left out."""
    for shape in ((2, 4), (2, 4, 3, 3)):
        truth = torch.full((2, *shape[2:]), 1, dtype=torch.uint8)
        truth[1] = 255
        output = torch.zeros(shape)
        output[1, 0] = 100.0
        task = bundled("nearest-object-nano" if len(shape) == 2 else "segmenter-nano").card.task
        assert script.loss_of(task, output, truth).item() == pytest.approx(torch.tensor(4.0).log().item())


def test_truths_follow_their_pictures(script):
    """Mirrored where the picture is; made smaller without a label that was not there."""
    picture = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    labels = torch.arange(16, dtype=torch.uint8).reshape(4, 4).expand(8, 4, 4)
    x, truth = script.augment(picture, labels, torch.Generator().manual_seed(1))
    mirrored = (truth == labels.flip(2)).flatten(1).all(1)
    assert 0 < mirrored.sum() < 8
    for i in range(8):
        near, far = (picture[i].flip(2), picture[i]) if mirrored[i] else (picture[i], picture[i].flip(2))
        assert (x[i] - near).abs().mean() < (x[i] - far).abs().mean()
    large = torch.arange(2, dtype=torch.uint8).repeat_interleave(128)[None, None].expand(1, 192, 256) * 9
    small = script.smaller_truth(large)
    assert small.shape == (1, 128, 192)
    assert small.unique().tolist() == [0, 9]
    assert torch.equal(script.smaller_truth(labels[:, 0, 0]), labels[:, 0, 0])


def test_networks_for_classes_start_where_the_depth_network_ended(script):
    assert script.START["segmenter-nano"] == "pixelformer-nano"
    own, depth = bundled("segmenter-nano").module, bundled("pixelformer-nano", "scenes").module
    before = own.head.weight.clone()
    script.start(own, bundled_weights("pixelformer-nano"))
    for name, value in own.backbone.state_dict().items():
        torch.testing.assert_close(value, depth.backbone.state_dict()[name])
    assert torch.equal(own.head.weight, before)


def test_errors_of_classes_on_paper(script):
    """Three of four known labels are hit; of class 0 one of two places that either has, of class 1 two of three."""
    card = bundled("segmenter-nano").card
    truth = torch.tensor([[[0, 0, 1, 1, 255]]])
    output = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1, 0]]]), 19).movedim(-1, 1).float()
    assert script.errors(card, output, truth) == {"accuracy": 0.75, "mean_iou": round((1 / 2 + 2 / 3) / 2, 4)}


def test_a_smoke_run(tmp_path):
    """What the README says, but for the folders: rendering, training, weights that load, metrics."""
    command = [sys.executable, SCRIPTS / "train.py", "--model", "pixelformer-nano", "--smoke"]
    folders = ["--out", tmp_path / "run", "--cache", tmp_path / "scenes"]
    subprocess.run([*command, *folders], check=True, capture_output=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"network", "mean_map", "own_mean_map", "shuffled", "ratio", "training"} == set(metrics)
    truth = xa.datasets.scenes(bundled("pixelformer-nano").card).ground_truth()
    spread = truth.sub(truth.mean(0)).square().mean((1, 2)).sqrt().mean().item()
    assert metrics["own_mean_map"]["rmse"] == pytest.approx(spread, abs=5e-5)  # it is rounded to four places
    weights = tmp_path / "run" / "pixelformer-nano.safetensors"
    assert xa.load_model("pixelformer-nano", weights, "cpu").card.weights == weights.name
