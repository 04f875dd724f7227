"""The networks that are measured, and their images: small ones, on the rooms that come with the project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xai_assert as xa
from xai_assert.attention import AttentionTap

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Network:
    """A network and how much of it is measured: so many images, all of them one batch.

    A short work, of a saliency map, has `short` images, a long one `images`: what a call costs whatever it is asked
    would stand for much in the time of a single picture, and nobody judges a method by one. `table_steps` are the IG
    steps of the paper's table, `most` the gradients that adaptive IG may take an image, and `rounds` the fewest of a
    long work. A full run has to end within half an hour on two cores.
    """

    name: str
    build: Callable[[], xa.Subject]
    size: tuple[int, int]
    short: int
    images: int
    steps: int = 200
    table_steps: int = 50
    most: int = 100
    rounds: int = 3
    attention: bool = True


class Shown(nn.Module):
    """In place of the dropout behind a softmax: passes the attention on, and shows it as one group."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = nn.Identity()

    def forward(self, attention: Tensor) -> Tensor:
        shown: Tensor = self.tap(attention[:, None])
        return shown[:, 0]


class DepthOfTimm(nn.Module):
    """Features of a timm network, one convolution, a positive map (B, 1, h, w): a depth network without training."""

    features: Any

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.features = timm.create_model(name, pretrained=False, num_classes=0, **options)
        self.taps: list[AttentionTap] = []
        self.grid: tuple[int, int] | None = None
        if hasattr(self.features, "blocks"):
            height, width = self.grid = self.features.patch_embed.grid_size
            tokens = torch.arange(self.prefix + height * width)[None]
            for block in self.features.blocks:
                block.attn.fused_attn, block.attn.attn_drop = False, Shown()
                self.taps.append(AttentionTap(block.attn.attn_drop.tap, (height, width), tokens, self.prefix))
        self.head = nn.Conv2d(self.features.num_features, 1, 1)

    @property
    def prefix(self) -> int:
        count: int = self.features.num_prefix_tokens
        return count

    def forward(self, images: Tensor) -> Tensor:
        found = self.features.forward_features(images)
        if self.grid is not None:
            found = found[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return F.softplus(self.head(found))

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        """The blocks of a ViT; see `xai_assert.attention.ExposesAttention`."""
        return self.taps


def of_timm(name: str, **options: Any) -> xa.Subject:
    """A timm network with random weights and a depth head."""
    torch.manual_seed(0)
    return xa.describe(DepthOfTimm(name, **options), name=name, task="depth", unit="m", **IMAGENET)


def loaded(name: str, weights: str | None = None) -> Callable[[], xa.Subject]:
    """A network of the project."""
    return lambda: xa.load_model(name, weights, device="cpu")


NETWORKS = [
    Network("meter-xxs", loaded("meter-xxs-scenes", "scenes"), (192, 256), 4, 1, most=500),
    Network("pixelformer-nano", loaded("pixelformer-nano", "scenes"), (192, 256), 8, 1, most=500),
    Network("resnet18", lambda: of_timm("resnet18"), (128, 128), 4, 1, attention=False),
    Network("vit_tiny", lambda: of_timm("vit_tiny_patch16_224", img_size=128), (128, 128), 4, 1),
    # last, because it is the slowest: if time runs out it has fewer rounds
    Network("pixelformer-tiny07", loaded("pixelformer-tiny07"), (96, 128), 1, 1, 50, 30, most=25, rounds=2),
]


def quick(network: Network) -> Network:
    """So little of it that a run shows only that everything works."""
    return replace(network, short=1, images=1, steps=8, table_steps=4, most=20, rounds=1)


@dataclass(frozen=True)
class Setup:
    """A network ready to run: frozen and in evaluation mode for all, with its images and the scalar explained."""

    network: Network
    subject: xa.Subject
    images: Tensor

    @property
    def module(self) -> nn.Module:
        """The network itself, without our wrapper."""
        inner: nn.Module = self.subject.module
        return inner

    @property
    def batch(self) -> int:
        """Images at a time, for all contenders."""
        return len(self.images)

    def scalar(self, images: Tensor) -> Tensor:
        """What is explained, (B,): for those that want a function of the images."""
        return target(self.module(images))


def target(output: Tensor) -> Tensor:
    """The mean of the map, (B,). It is given to all, so nobody spends a pass to choose one."""
    return output.flatten(1).mean(1)


def prepare(network: Network, device: torch.device, *, images: int | None = None) -> Setup:
    """Build the network, freeze it, and fetch its images, resized from the rooms."""
    subject = network.build().to(device).eval().requires_grad_(False)
    card = replace(subject.card, input_size=network.size)
    return Setup(network, subject, rooms(card, network.size, images or network.images).to(device))


def rooms(card: xa.Card, size: tuple[int, int], count: int) -> Tensor:
    """So many images (count, 3, H, W); the rooms in a circle where there are not enough."""
    pictures = xa.datasets.scenes(replace(card, input_size=(192, 256)))
    found = torch.stack([pictures[i % len(pictures)].image for i in range(count)])
    if tuple(found.shape[-2:]) == size:
        return found
    return F.interpolate(found, size, mode="bilinear", antialias=True)
