"""METER is the published network: its names, its shapes and its numbers."""

import json

import numpy as np
import pytest
import torch
from models.parity import ANSWERS, drawn_images, drawn_weights

from xai_assert.errors import UnknownNameError
from xai_assert.models.meter import SIZES, Meter
from xai_assert.preserve import full_precision

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TOLERANCE = 1e-5  # rounding alone gives 5e-7 on one CPU against another


def difference(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def test_names_order_and_shapes_are_the_official_ones(shared_data):
    official = json.loads((shared_data / "meter_state_dict.json").read_text())
    assert sorted(official) == sorted(SIZES)
    for size, shapes in official.items():
        ours = [(name, list(value.shape)) for name, value in Meter(size).state_dict().items()]
        assert ours == [(name, shape) for name, shape in shapes.items()]


@pytest.mark.parametrize(("size", "count"), [("s", 3_295_168), ("xs", 1_449_760), ("xxs", 713_464)])
def test_parameter_count(size, count):
    assert sum(p.numel() for p in Meter(size).parameters()) == count


@pytest.mark.parametrize("key", ["meter-xxs_128_192", "meter-s_192_636"])
def test_output_is_that_of_the_published_network(key):
    model, height, width = key.split("_")
    network = Meter(model.removeprefix("meter-"))
    network.load_state_dict(drawn_weights(network))
    with np.load(ANSWERS) as answers, torch.no_grad():
        theirs = torch.from_numpy(answers[key])
        ours = network.eval()(drawn_images(int(height), int(width)))
    assert ours.shape == theirs.shape
    assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("block", [0, 1, 2])
def test_parity_notices_a_small_mistake_in_the_attention(block):
    """A scale wrong by a tenth, in the layers that the output depends on least, is far outside the tolerance."""
    network = Meter("xxs").eval()
    network.load_state_dict(drawn_weights(network))
    images = drawn_images(64, 64)
    with torch.no_grad():
        right = network(images)
        network.encoder.mvit[block].transformer.layers[0][0].fn.to_qkv.weight.mul_(1.1)
        assert difference(network(images), right) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("pixels", "depth"),
    [
        ((192, 256), (48, 64)),
        ((192, 636), (48, 160)),
        ((192, 250), (48, 64)),
        ((64, 192), (16, 48)),
        ((64, 64), (16, 16)),
    ],
)
def test_output_size(pixels, depth):
    with torch.no_grad():
        assert Meter("xxs").eval()(torch.zeros(1, 3, *pixels)).shape == (1, 1, *depth)


@pytest.mark.parametrize(
    ("pixels", "maps"),
    [((96, 160), "12x20, 6x10, 3x5"), ((224, 224), "28x28, 14x14, 7x7"), ((192, 40), "24x5, 12x3, 6x2")],
)
def test_images_that_do_not_divide_into_patches(pixels, maps):
    with pytest.raises(ValueError, match=f"{pixels[0]}x{pixels[1]} give maps of {maps}. Resize them.* 192x256"):
        Meter("xxs")(torch.zeros(1, 3, *pixels))


def test_unknown_size():
    with pytest.raises(UnknownNameError, match="unknown METER size 'xxl'; did you mean 'xxs'"):
        Meter("xxl")


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("size", SIZES)
def test_gpu_and_cpu_agree(size):
    network = Meter(size).eval()
    network.load_state_dict(drawn_weights(network))
    images = drawn_images(192, 636)
    with torch.no_grad(), full_precision():  # TF32 alone would move the output by about 1e-3
        here = network(images)
        there = network.cuda()(images.cuda()).cpu()
    assert difference(there, here) < 1e-4  # the GPU may take a Winograd algorithm for the 3x3 convolutions
