"""A gate for the methods: by their names, against answers worked out on paper and by brute force.

A method that was registered anew under one of our names is held to the same. It needs no model of yours.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

import xai_assert as xa
from xai_assert.known_attention import PlantedAttention, planted_attention
from xai_assert.known_models import Corner, Pixelwise, Squares
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Subject, describe
from xai_assert.tasks import Target

SIZE = (8, 12)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-7}  # some hundred additions in float32
METHODS = (
    "saliency",
    "input_x_gradient",
    "smoothgrad(draws=2)",
    "integrated_gradients(steps=2)",
    "attention_rollout",
    "random",
    "edges",
)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def known(module: torch.nn.Module) -> Subject:
    return describe(module, name="known", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.fixture
def weights() -> Tensor:
    """(3, H, W) of both signs, so that a sum over the channels cancels."""
    return drawn(3, *SIZE, seed=1)


@pytest.fixture
def images() -> Tensor:
    return drawn(3, 3, *SIZE, seed=2)


def black() -> Tensor:
    """RGB 0 as ImageNet's networks are shown it, worked out here and not asked of a card."""
    return (-torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)).reshape(1, 3, 1, 1)


def first_pixel(output: Tensor) -> Tensor:
    return output[:, 0, 0, 0]


def test_saliency_of_a_weighted_sum_is_its_weights(weights: Tensor, images: Tensor) -> None:
    found = xa.attribute(known(Pixelwise(weights)), images, "saliency")
    torch.testing.assert_close(found, (weights / weights[0].numel()).expand(3, -1, -1, -1), **CLOSE)


def test_the_heatmap_of_saliency_is_the_largest_weight_of_a_pixel(weights: Tensor, images: Tensor) -> None:
    found = xa.heatmap(known(Pixelwise(weights)), images, "saliency")
    expected = (weights.abs().amax(0) / weights[0].numel()).expand(3, -1, -1)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_saliency_of_squares_follows_the_image(weights: Tensor, images: Tensor) -> None:
    found = xa.attribute(known(Squares(weights)), images, "saliency")
    torch.testing.assert_close(found, 2 * weights.square() * images / weights[0].numel(), **CLOSE)


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients(steps=4)"])
def test_the_target_that_is_asked_for_is_explained(method: str, weights: Tensor, images: Tensor) -> None:
    """One pixel of the output, which one pixel of the image alone moves."""
    target: Target = first_pixel
    found = xa.heatmap(known(Pixelwise(weights)), images, method, target=target)
    assert (found[:, 0, 0] > 0).all(), "the pixel that the target is made of is not relevant"
    assert (found.flatten(1)[:, 1:] == 0).all(), "pixels that do not move the target are called relevant"


def test_what_a_network_never_sees_is_not_relevant(images: Tensor) -> None:
    found = xa.heatmap(known(Corner()), images, "saliency")
    seen = torch.zeros(SIZE, dtype=torch.bool)
    seen[: SIZE[0] // 2, : SIZE[1] // 2] = True
    assert torch.equal(found > 0, seen.expand_as(found))


@pytest.mark.parametrize("baseline", ["black", "tensor"])
@pytest.mark.parametrize("kind", [Pixelwise, Squares])
def test_integrated_gradients_are_exact(kind: type[Pixelwise], baseline: str, weights: Tensor, images: Tensor) -> None:
    """w (x - b), and for squares w^2 (x^2 - b^2), over HW: the gradient is linear, the midpoint exact."""
    start = black().expand(1, 3, *SIZE) if baseline == "black" else drawn(1, 3, *SIZE, seed=3)
    options: dict[str, Any] = {} if baseline == "black" else {"baseline": start}
    found = xa.attribute(known(kind(weights)), images, xa.method("integrated_gradients", steps=5, **options))
    w, x, b = (weights, images, start) if kind is Pixelwise else (weights.square(), images.square(), start.square())
    torch.testing.assert_close(found, w * (x - b) / weights[0].numel(), rtol=1e-4, atol=1e-6)


class Cubes(Pixelwise):
    """sum_c (w x)^3: its gradient is curved along a path, so that steps matter."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weights.to(images)).pow(3).sum(1, keepdim=True)


def test_integrated_gradients_are_complete_on_a_curved_path(weights: Tensor, images: Tensor) -> None:
    """The midpoint rule of n steps on a cubic is off by the share 1 / (4 n^2) of (w (x - b))^3, and no more."""
    start, steps = drawn(1, 3, *SIZE, seed=3), 8
    method = xa.method("integrated_gradients", steps=steps, baseline=start)
    found = xa.attribute(known(Cubes(weights)), images, method)
    w = weights.pow(3) / weights[0].numel()
    expected = w * (images.pow(3) - start.pow(3)) - w * (images - start).pow(3) / (4 * steps**2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_integrated_gradients_take_200_steps_unless_told_otherwise(weights: Tensor, images: Tensor) -> None:
    subject, seen = known(Cubes(weights)), []
    handle = subject.module.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    xa.attribute(subject, images[:1], "integrated_gradients")
    handle.remove()
    assert sum(seen) >= 200


@pytest.mark.parametrize("prefix", [0, 2])
def test_rollout_is_that_of_the_full_matrices(prefix: int) -> None:
    subject, images = planted_attention(prefix=prefix), drawn(2, 3, 24, 32, seed=4).abs()
    found = xa.heatmap(subject, images, "attention_rollout")
    expected = cast(PlantedAttention, subject.module).rollout(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_the_batch_or_on_the_one_before(method: str) -> None:
    """Forwards, backwards and one by one, the same images get the same maps."""
    network = PlantedAttention((24, 32))
    subject = describe(Curved(network), name="known", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    images = drawn(3, 3, 24, 32, seed=5)
    ids = ["a", "b", "c"]
    first = xa.heatmap(subject, images, method, image_ids=ids)
    backwards = xa.heatmap(subject, images.flip(0), method, image_ids=ids[::-1]).flip(0)
    alone = torch.cat([xa.heatmap(subject, images[i : i + 1], method, image_ids=[ids[i]]) for i in range(3)])
    torch.testing.assert_close(backwards, first, **CLOSE)
    torch.testing.assert_close(alone, first, **CLOSE)
    assert not torch.equal(first[0], first[1]), "two images have the same map"


class Curved(torch.nn.Module):
    """A network with planted attention whose depth is curved in the image."""

    def __init__(self, inner: PlantedAttention) -> None:
        super().__init__()
        self.inner = inner
        self.attention_taps = inner.attention_taps

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.inner(images)).exp()


@pytest.mark.parametrize("method", ["random", "edges"])
def test_controls_know_nothing_of_the_model(method: str, weights: Tensor, images: Tensor) -> None:
    one, other = (xa.heatmap(known(Pixelwise(w)), images, method) for w in (weights, -3 * weights.flip(-1)))
    assert torch.equal(one, other)
