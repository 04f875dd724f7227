"""`xa.depth_metrics`: a subject on images, under a protocol."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xai_assert as xa
from xai_assert.batching import Sample
from xai_assert.datasets import ImageSet
from xai_assert.subject import Card, Subject
from xai_assert.tasks import Depth


class Answer(nn.Module):
    """Predicts what it was told to, at any size; notes how many images it saw at a time."""

    def __init__(self, depth):
        super().__init__()
        self.depth, self.seen = depth, []

    def forward(self, images):
        self.seen.append(len(images))
        return self.depth.expand(len(images), 1, *self.depth.shape[-2:])


class Red(nn.Module):
    """Depth is the red channel, halved in size."""

    def forward(self, images):
        return F.avg_pool2d(images[:, :1], 2)


class Memory:
    """A source of pictures of several sizes."""

    name, has_depth = "memory", True

    def __init__(self, *sizes, depth=2.0):
        self.sizes, self.depth = sizes, depth
        self.ids = list(range(len(sizes)))

    def read(self, index):
        return torch.full((3, *self.sizes[index]), 51, dtype=torch.uint8), torch.full(self.sizes[index], self.depth)


def subject(module, unit="m", **card):
    return Subject(module, Card(name="depthnet", task=Depth(), unit=unit, **card))


def test_the_output_protocol_takes_every_known_pixel_as_it_is():
    truth = torch.tensor([[[2.0, 4.0], [0.0, math.nan]], [[2.0, 2.0], [2.0, 100.0]]])
    scores = xa.depth_metrics(subject(Answer(torch.full((2, 2), 4.0))), torch.zeros(2, 3, 8, 8), ground_truth=truth)
    assert scores.rmse.values.tolist() == pytest.approx([math.sqrt(2), math.sqrt((3 * 4 + 96**2) / 4)])
    assert scores.rmse.pixels.tolist() == [2, 4]
    assert scores.rmse.pooled == pytest.approx(math.sqrt((4 + 3 * 4 + 96**2) / 6))
    assert scores.abs_rel.values.tolist() == pytest.approx([0.5, (3 + 0.96) / 4])
    assert scores.d1.values.tolist() == [0.5, 0]
    assert (scores.rmse.unit, scores.d1.unit) == ("m", None)
    better = {name: getattr(scores, name).higher_is_better for name in ("rmse", "abs_rel", "log10", "d1", "d2", "d3")}
    assert better == {"rmse": False, "abs_rel": False, "log10": False, "d1": True, "d2": True, "d3": True}
    assert list(scores.to_dict()) == list(better)
    assert repr(scores).startswith("<DepthScores over 2 images: rmse 24.72 m, abs_rel 0.7450, log10 ")


@pytest.mark.parametrize(("unit", "per_metre"), [("m", 1), ("dm", 10), ("cm", 100)])
def test_bounds_are_in_metres_whatever_the_unit(unit, per_metre):
    """Known are 5 m (kept), 80 m and 0.5 m (out of bounds); the prediction of 100 m is clamped to 50."""
    truth = torch.tensor([[[5.0, 80.0, 0.5]]]) * per_metre
    answer = subject(Answer(torch.full((1, 3), 100.0 * per_metre)), unit)
    rule = xa.DepthProtocol(min_depth=1, max_depth=50)
    scores = xa.depth_metrics(answer, torch.zeros(1, 3, 8, 8), ground_truth=truth, protocol=rule)
    assert scores.rmse.pixels.tolist() == [1]
    assert scores.rmse.value == pytest.approx(45 * per_metre)
    assert scores.abs_rel.value == pytest.approx(9)


def test_pixels_outside_the_crop_do_not_count():
    truth = torch.full((1, 480, 640), 2.0)
    prediction = truth[0].clone()
    prediction[:45], prediction[471:], prediction[:, :41], prediction[:, 601:] = 9, 9, 9, 9
    images = torch.zeros(1, 3, 480, 640)
    inside = xa.depth_metrics(subject(Answer(prediction)), images, ground_truth=truth, protocol="eigen")
    assert (inside.rmse.value, inside.rmse.pixels.item()) == (0, 426 * 560)
    assert xa.depth_metrics(subject(Answer(prediction)), images, ground_truth=truth, protocol="full").d1.value < 0.9
    prediction[45, 41] = 9
    assert xa.depth_metrics(subject(Answer(prediction)), images, ground_truth=truth, protocol="eigen").rmse.value > 0


def test_full_size_brings_the_output_to_the_picture():
    """Odd sizes of pictures too, each of its own; the network sees one size."""
    card = {"input_size": (8, 12), "output_size": (4, 6)}
    network = subject(Answer(torch.full((4, 6), 2.0)), **card)
    images = ImageSet(Memory((375, 1241), (37, 53), (5, 5)), network.card)
    for protocol, pixels in (("full", [375 * 1241, 37 * 53, 25]), ("output", [24, 24, 24])):
        scores = xa.depth_metrics(network, images, protocol=protocol)
        assert scores.rmse.pixels.tolist() == pixels
        assert scores.d1.value == 1
        assert scores.rmse.value == pytest.approx(0, abs=1e-5)  # rounding of float32
    assert network.module.seen == [1] * 6
    garg = xa.depth_metrics(network, images, protocol="garg")
    assert garg.rmse.pixels[0] == (371 - 153) * (1196 - 44)  # of 375x1241


def test_full_size_interpolates_between_the_centres_of_pixels():
    answer = subject(Answer(torch.tensor([[1.0, 2.0]])))
    truth = torch.tensor([[[1.0, 1.25, 1.75, 2.0]]])  # half a pixel from the rim nothing changes: align_corners=False
    assert xa.depth_metrics(answer, torch.zeros(1, 3, 2, 4), ground_truth=truth, protocol="full").rmse.value == 0


def test_flip_takes_the_mean_with_the_mirrored_image():
    class Ramp(nn.Module):
        """Adds the column to the depth, which the mean with the mirror makes the same everywhere."""

        def forward(self, images):
            return images[:, :1] + torch.arange(4.0)

    images = torch.ones(1, 3, 2, 4)
    images[..., 0] = 3
    expected = images[:, 0] + 1.5
    plain, flipped = (
        xa.depth_metrics(subject(Ramp()), images, ground_truth=expected, protocol=xa.DepthProtocol(flip=flip))
        for flip in (False, True)
    )
    assert flipped.rmse.value == 0
    assert plain.rmse.value > 1


def test_a_bare_module_and_a_data_set_of_pairs():
    image = torch.full((3, 4, 4), 2.0)
    scores = xa.depth_metrics(Red(), [Sample(image, "kitchen", torch.full((2, 2), 2.5))], task="depth", unit="cm")
    assert scores.rmse.image_ids == ("kitchen",)
    assert (scores.rmse.value, scores.rmse.unit) == (0.5, "cm")
    assert xa.depth_metrics(Red(), [(image, torch.full((2, 2), 2.5))], task="depth").rmse.unit is None


def test_a_score_can_be_asserted():
    answer = subject(Answer(torch.full((2, 2), 4.0)))
    scores = xa.depth_metrics(answer, torch.zeros(2, 3, 8, 8), ground_truth=torch.full((2, 2, 2), 4.0))
    assert xa.assert_score(scores.d1, min=0.8) is scores.d1
    with pytest.raises(AssertionError, match="rmse"):
        xa.assert_score(scores.rmse, min=1.0)


def test_the_model_comes_out_as_it_went_in():
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout(0.5)).train()
    truth, images = torch.full((4, 6, 6), 1.0), torch.rand(4, 3, 6, 6)
    first, again = (xa.depth_metrics(network, images, ground_truth=truth, task="depth") for _ in range(2))
    assert torch.equal(first.rmse.values, again.rmse.values)  # no dropout
    assert network.training
    assert network[1].training
    assert network[0].weight.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"ground_truth": None}, ValueError, "depth metrics need ground truth; the images have none"),
        ({"ground_truth": torch.zeros(1, 2, 2)}, ValueError, "depthnet, image 0: no valid pixel in 1 of 1 depth maps"),
        (
            {"ground_truth": torch.ones(1, 4, 4)},
            ValueError,
            r"depthnet, image 0: ground_truth is \(4, 4\), the output \(2, 2\); resize the depth in the data set",
        ),
        (
            {"protocol": "eigen"},
            ValueError,
            "image 0: the Eigen crop is one of 480x640 pixels; the ground truth has 2x2",
        ),
        ({"protocol": "metre"}, xa.UnknownNameError, "unknown protocol 'metre'"),
        ({"subject": subject(Answer(torch.full((2, 2), math.nan)))}, xa.ModelOutputError, "depthnet returned NaN"),
        (
            {"subject": subject(Answer(torch.ones(2, 2)), unit=None), "protocol": "garg"},
            TypeError,
            "bounds are in metres, and the card of depthnet has unit None; give it one of m, dm, cm, mm",
        ),
        ({"subject": nn.Conv2d(3, 1, 1)}, TypeError, "Conv2d is no depth network; pass task='depth'"),
    ],
)
def test_what_it_refuses(change, error, text):
    given = {"subject": subject(Answer(torch.ones(2, 2))), "images": torch.zeros(1, 3, 4, 4)}
    with pytest.raises(error, match=text):
        xa.depth_metrics(**{**given, "ground_truth": torch.ones(1, 2, 2), **change})
