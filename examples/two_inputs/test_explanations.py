"""A network with two inputs and a dictionary as output: an adapter makes it one of images to one tensor."""

import torch
from torch import nn

import xai_assert as xa


class DepthNet(nn.Module):  # yours: it wants the focal length, and returns more than depth
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.GELU(), nn.Conv2d(8, 2, 3, padding=1))

    def forward(self, images, focal):
        depth, uncertainty = self.features(images).unbind(1)
        return {"depth": depth.exp() * focal[:, None, None] / 500, "uncertainty": uncertainty}


class Adapter(nn.Module):
    def __init__(self, network, focal):
        super().__init__()
        self.network, self.focal = network, focal

    def forward(self, images):
        return self.network(images, images.new_full((len(images),), self.focal))["depth"]


def test_saliency_is_true():
    torch.manual_seed(0)
    colours = {"mean": [0.5] * 3, "std": [0.25] * 3}
    subject = xa.describe(
        Adapter(DepthNet(), focal=518.9), name="depthnet", task="depth", input_size=(48, 64), unit="m", **colours
    )
    images = xa.datasets.generated(subject.card)  # yours: xa.datasets.folder("photographs", subject.card)
    xa.assert_attribution_fidelity(subject, "saliency", images, min_af=0.1, beats="random")
