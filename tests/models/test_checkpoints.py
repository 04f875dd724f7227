"""Weights files: what is refused, in which words, and that a refusal leaves the network and the machine alone."""

import hashlib
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xai_assert.errors import CheckpointError
from xai_assert.models import load_checkpoint


class Network(nn.Sequential):
    """Small, with every kind of entry: parameters, buffers, an integer."""

    def __init__(self, width=4):
        super().__init__(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 1))


class Attack:
    """Unpickling this makes a folder: a stand-in for any code that a weights file could carry."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def assert_same(network, trained):
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def refused(path, *patterns, **options):
    """The file is refused in words that match all patterns, and not one number of the network has changed."""
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(network, path, **options)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    text = str(caught.value)
    assert str(path) in text
    for pattern in patterns:
        assert re.search(pattern, text), text


@pytest.mark.parametrize("as_given", [str, Path])
@pytest.mark.parametrize("zipped", [True, False])
def test_loads_what_torch_saves(path, as_given, zipped):
    trained, network = Network(), Network()
    nn.init.normal_(trained[1].running_mean)
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    load_checkpoint(network, as_given(path))
    assert_same(network, trained)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("writer", ["torch", "torch, under model", "safetensors"])
def test_what_training_scripts_save(path, prefix, writer):
    trained, network = Network(), Network()
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    if writer == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 3} if "model" in writer else state, path)
    load_checkpoint(network, path)
    assert_same(network, trained)


def test_a_prefix_that_some_names_lack_stays(path):
    state = Network().state_dict()
    state["module.0.weight"] = state.pop("0.weight")
    torch.save(state, path)
    refused(path, "1 missing: 0.weight; 1 unexpected: module.0.weight")


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02])
def test_truncated_safetensors(path, kept):
    save_file(Network(width=400).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "cannot be read as safetensors, it is truncated or foreign: ")


def test_home_folder(path, monkeypatch):
    torch.save(Network().state_dict(), path)
    monkeypatch.setenv("HOME", str(path.parent))
    load_checkpoint(Network(), "~/weights.pt")


def test_missing(path):
    refused(path, "there is no weights file")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder; give the path of a weights file")


def test_empty(path):
    path.touch()
    refused(path, "is empty: no file that torch.save or safetensors writes")


def test_text(path):
    path.write_text("<!DOCTYPE html><title>Not found</title>")
    refused(path, "begins with b'<!DOCTYPE html>.*: no file that torch.save or safetensors writes")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02])
def test_truncated(path, zipped, kept):
    torch.save(Network(width=400).state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "cannot be read as a file of torch.save, it is truncated or foreign: ")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_the_file_is_not_run(path, tmp_path, zipped):
    mark = tmp_path / "was-here"
    torch.save({"0.weight": Attack(mark)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "is refused: it holds more than tensors, and reading it could run code", r"it asks for \w+\.mkdir")
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # the file would have done it


def test_plain_pickle_is_not_run(path, tmp_path):
    mark = tmp_path / "was-here"
    path.write_bytes(pickle.dumps(Attack(mark), protocol=2))
    refused(path, "is refused: it holds more than tensors", "mkdir")
    assert not mark.exists()


def test_whole_module(path):
    torch.save(Network(), path)
    refused(path, "asks for .*Network", r"save the state_dict\(\) of what comes out")


def test_newer_pickle(path):
    path.write_bytes(pickle.dumps({"0.weight": 1.0}, protocol=5))
    refused(path, "cannot be read as a file of torch.save")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ([torch.zeros(3)], "holds a list, not a state dict"),
        ({"net": Network().state_dict(), "epoch": 3}, r"no dense tensors: 'net' \(OrderedDict\), 'epoch' \(int\);"),
        ({"model": {"epoch": 3}}, r"no dense tensors: 'epoch' \(int\);"),
        ({"model": torch.zeros(3), "epoch": 3}, r"no dense tensors: 'epoch' \(int\);"),
        ({0: torch.zeros(3)}, r"no dense tensors: 0 \(.* tensor on cpu\)"),
        ({"0.weight": torch.eye(3).to_sparse()}, r"'0.weight' \(torch.sparse_coo tensor on cpu\)"),
        ({"0.weight": torch.zeros(3, device="meta")}, r"'0.weight' \(torch.strided tensor on meta\)"),
    ],
)
def test_no_state_dict(path, content, said):
    torch.save(content, path)
    refused(path, said, r"a weights file is what torch.save\(module.state_dict\(\), path\) or safetensors.* writes")


def test_names_and_shapes_that_do_not_match(path):
    state = Network(width=5).state_dict()
    del state["2.weight"]
    state |= {f"head.{i}": torch.zeros(1) for i in range(4)}
    torch.save(state, path)
    refused(
        path,
        "does not fit Network; 1 missing: 2.weight;",
        r"4 unexpected: head.0, head.1, head.2, \.\.\.;",
        r"6 of another form: 0.weight is float32 \(5, 3, 1, 1\) in the file, float32 \(4, 3, 1, 1\) in the network, ",
    )


def test_one_wrong_name_is_enough(path):
    """The last entry alone is wrong: a loader that copies as it goes would have copied the rest."""
    state = Network().state_dict()
    state["2.bias"] = torch.zeros(2)
    torch.save(state, path)
    refused(path, "; 1 of another form: 2.bias is")


def test_integers_are_no_weights(path):
    torch.save({name: value.to(torch.int8) for name, value in Network().state_dict().items()}, path)
    refused(path, r"0.weight is int8 \(4, 3, 1, 1\) in the file, float32")


def test_says_which_variant_the_file_fits(path):
    variants = {"small": Network, "wide": lambda: Network(width=9), "wide-too": lambda: Network(width=9)}
    torch.save(Network(width=9).state_dict(), path)
    said = "does not fit mine; these are the names and shapes of wide and wide-too; 7 of another form"
    refused(path, said, name="mine", variants=variants)
    torch.save(Network(width=7).state_dict(), path)
    refused(path, "does not fit mine; 7 of another form", name="mine", variants=variants)


def test_published_file_of_another_name(path):
    torch.save(Network().state_dict(), path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    load_checkpoint(Network(), path, name="nyu", published={"nyu": sha})
    load_checkpoint(Network(), path, name="nyu", published={"kitti": "0" * 64})
    said = "is the published file of kitti, not of nyu; load it as 'kitti'"
    refused(path, said, name="nyu", published={"nyu": "0" * 64, "kitti": sha})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_not_finite(path, value):
    """1e300 is a number in the float64 of the file, and none in the float32 of the network."""
    state = {name: v.double() if v.is_floating_point() else v for name, v in Network().state_dict().items()}
    state["1.running_var"][2] = value
    torch.save(state, path)
    refused(path, r"holds NaN or infinite weights in 1 tensors: 1.running_var \(1 of 4\)")


def test_half_precision_is_widened(path):
    network = Network()
    torch.save(Network().half().state_dict(), path)
    load_checkpoint(network, path)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
