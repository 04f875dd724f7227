"""A gate for the protocol: what the network is shown, and what is made of its answers, against figures from paper.

The edge cases beside this file look for broken rules on drawn cases; here are the numbers. It needs no model of yours.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import xai_assert as xa
from xai_assert.attributions import Method
from xai_assert.known_models import Pixelwise
from xai_assert.preserve import hooks
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Subject, describe

SIZE, COUNT = (20, 30), 3
K = 30  # 5 % of 600 pixels
PERTURBATIONS = ("gaussian_noise", "black", "mean", "blur")
IDS = ["a", "b", "c"]
ROUNDING = 2e-3  # of an error: a change of .5 in a sum over 600 pixels, in float32


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def images() -> Tensor:
    return drawn(COUNT, 3, *SIZE, seed=1)


@pytest.fixture
def relevance() -> Tensor:
    """(H, W), all values different and none negative."""
    order = torch.randperm(SIZE[0] * SIZE[1], generator=torch.Generator().manual_seed(2))
    return order.reshape(SIZE).float()


@pytest.fixture
def subject() -> Subject:
    weights = drawn(3, *SIZE, seed=3)
    return describe(Pixelwise(weights), name="known", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)


def planted(relevance: Tensor, sign: int = 1) -> Method:
    def truth(model: Subject, shown: Tensor, target: object) -> Tensor:
        return sign * relevance.expand(len(shown), -1, -1)

    return Method("planted", truth, signed="as_is")


def measured(
    subject: Subject, images: Tensor, relevance: Tensor, what: str = "gaussian_noise", sign: int = 1, seed: int = 0
) -> tuple[xa.FidelityScore, Tensor, Tensor]:
    """The score, and the images with R and with I perturbed as the network was shown them."""
    seen: list[Tensor] = []
    with hooks(subject.module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))):
        score = xa.attribution_fidelity(
            subject,
            planted(relevance, sign),
            images,
            perturbation=what,
            fraction=0.05,
            seed=seed,
            image_ids=IDS,
            batch_size=COUNT,
        )
    clean, relevant, irrelevant = seen  # one batch
    assert torch.equal(clean, images), "the clean prediction was not made on the images"
    return score, relevant, irrelevant


@pytest.mark.parametrize("what", PERTURBATIONS)
def test_r_is_the_most_relevant_twentieth_and_i_the_least(
    what: str, subject: Subject, images: Tensor, relevance: Tensor
) -> None:
    _, relevant, irrelevant = measured(subject, images, relevance, what)
    count = SIZE[0] * SIZE[1]
    for side, expected in ((relevant, relevance >= count - K), (irrelevant, relevance < K)):
        for changed in (side != images).any(1):
            assert torch.equal(changed, expected), f"{what} changed other pixels than the {K} that it should"


@pytest.mark.parametrize("what", PERTURBATIONS)
def test_a_pixel_is_perturbed_alike_as_relevant_and_as_irrelevant(
    what: str, subject: Subject, images: Tensor, relevance: Tensor
) -> None:
    """One field for both sides, made of the clean image: turned round, the two sides change places bit by bit."""
    score, relevant, irrelevant = measured(subject, images, relevance, what)
    inverse, other_relevant, other_irrelevant = measured(subject, images, relevance, what, sign=-1)
    assert torch.equal(relevant, other_irrelevant), f"{what} of R depends on the side"
    assert torch.equal(irrelevant, other_relevant), f"{what} of I depends on the side"
    assert torch.equal(score.values, -inverse.values), "AF of -h is not minus that of h"


def test_errors_and_af_are_those_of_paper(subject: Subject, images: Tensor, relevance: Tensor) -> None:
    """RMSE of sum_c w d over all pixels against the clean prediction, and AF from the two of them."""
    score, relevant, irrelevant = measured(subject, images, relevance)
    weights = subject.module.get_parameter("weights").detach()
    errors = [
        ((side - images) * weights).sum(1).square().flatten(1).mean(1).sqrt().double()
        for side in (relevant, irrelevant)
    ]
    torch.testing.assert_close(score.relevant_error.double(), errors[0], rtol=ROUNDING, atol=0)
    torch.testing.assert_close(score.irrelevant_error.double(), errors[1], rtol=ROUNDING, atol=0)
    expected = (errors[0] - errors[1]) / (errors[0] + errors[1])
    torch.testing.assert_close(score.values.double(), expected, rtol=0, atol=ROUNDING)
    assert score.value == pytest.approx(float(expected.mean()), abs=ROUNDING)


def test_af_of_the_truth_is_1(images: Tensor, relevance: Tensor) -> None:
    weights = (relevance >= 300).float().expand(3, -1, -1)
    subject = describe(Pixelwise(weights), name="half", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    score, *_ = measured(subject, images, relevance)
    assert score.values.tolist() == [1.0] * COUNT


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
@pytest.mark.parametrize("what", ["black", "mean"])
def test_fillers_are_the_colours_that_they_are_called(
    what: str, layout: str, images: Tensor, relevance: Tensor
) -> None:
    weights, mean, std = drawn(3, *SIZE, seed=3), (0.5, 0.5, 0.5), (0.2, 0.25, 0.3)
    subject = describe(Pixelwise(weights), name="known", task="depth", mean=mean, std=std, layout=layout)
    _, relevant, _ = measured(subject, images, relevance, what)
    rgb = (0.0, 0.0, 0.0) if what == "black" else IMAGENET_MEAN
    colour = torch.tensor(rgb if layout == "RGB" else rgb[::-1])
    expected = (colour - torch.tensor(mean)) / torch.tensor(std)
    pixels = relevant.movedim(1, -1)[(relevant != images).any(1)]
    torch.testing.assert_close(pixels, expected.expand_as(pixels), rtol=0, atol=1e-5)  # values up to 3, in float32


@pytest.mark.filterwarnings("ignore::xai_assert.errors.TiedHeatmapWarning")
def test_ties_turn_round_with_the_map_and_fall_otherwise_in_each_image(
    subject: Subject, images: Tensor, relevance: Tensor
) -> None:
    """200 equal pixels at either end, of which 30 are drawn: two images that draw alike have the index for a lot."""
    levels = (relevance / 200).floor()
    _, relevant, irrelevant = measured(subject, images, levels)
    _, other_relevant, other_irrelevant = measured(subject, images, levels, sign=-1)
    assert torch.equal(relevant, other_irrelevant), "R of h is not I of -h"
    assert torch.equal(irrelevant, other_relevant), "I of h is not R of -h"
    one, other, _ = (relevant != images).any(1)
    assert not torch.equal(one, other), "equals are not drawn by lot"


def test_noise_has_the_strength_that_is_said(subject: Subject, images: Tensor, relevance: Tensor) -> None:
    """.8 ImageNet standard deviations, which are 1 in this input: of 540 draws, to 4 standard errors (12 %)."""
    _, relevant, irrelevant = measured(subject, images, relevance)
    noise = torch.cat([(side - images)[side != images] for side in (relevant, irrelevant)])
    assert float(noise.std()) == pytest.approx(0.8, rel=4 / (2 * len(noise)) ** 0.5)
    assert abs(float(noise.mean())) < 4 * 0.8 / len(noise) ** 0.5


def test_noise_is_another_for_each_seed_and_image(subject: Subject, images: Tensor, relevance: Tensor) -> None:
    one, again, other = (measured(subject, images, relevance, seed=seed)[1] - images for seed in (0, 0, 1))
    assert torch.equal(one, again), "the same seed gave other noise"
    assert not torch.isclose(one, other).logical_and(one != 0).any(), "two seeds share noise"
    assert not torch.isclose(one[0], one[1], atol=1e-5).logical_and(one[0] != 0).any(), "two images share noise"


def test_noise_belongs_to_the_image_and_not_to_its_place(subject: Subject, images: Tensor, relevance: Tensor) -> None:
    method = planted(relevance)
    together = xa.attribution_fidelity(subject, method, images, image_ids=IDS, fraction=0.05)
    backwards = xa.attribution_fidelity(subject, method, images.flip(0), image_ids=IDS[::-1], fraction=0.05)
    torch.testing.assert_close(backwards.values.flip(0), together.values, rtol=0, atol=ROUNDING)
