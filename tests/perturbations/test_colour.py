"""Light: the same added everywhere, and the distance from the mean colour scaled."""

import pytest
import torch
from known_models import draw

import xai_assert as xa
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD

RAW = xa.Card(name="raw", mean=(0.0,) * 3, std=(1.0,) * 3)
PICTURES = draw(2, 3, 4, 5).sigmoid()


def perturbed(what, images=PICTURES, card=RAW):
    return xa.perturbation(what).on(images, card=card, image_ids=[0, 1], seed=0, gradient=None).field


@pytest.mark.parametrize("delta", [1.5, -0.5])
def test_brightness_adds_so_many_imagenet_deviations(delta):
    expected = PICTURES + delta * torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(perturbed(f"brightness(delta={delta})"), expected)
    normalised = xa.Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    found = perturbed(f"brightness(delta={delta})", PICTURES, normalised)
    torch.testing.assert_close(found, PICTURES + delta)  # the unit of the input is the deviation


def test_contrast_scales_the_distance_from_the_pictures_own_mean():
    images = torch.tensor([[[[0.0, 2.0, 4.0]]]])
    assert perturbed("contrast(factor=0.5)", images).tolist() == [[[[1.0, 2.0, 3.0]]]]
    assert perturbed("contrast(factor=2)", images).tolist() == [[[[-2.0, 2.0, 6.0]]]]
    assert perturbed("contrast(factor=0)", images).tolist() == [[[[2.0, 2.0, 2.0]]]]


def test_contrast_is_the_same_picture_in_every_input_space():
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    found = perturbed("contrast", (PICTURES - mean) / std, xa.Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD))
    torch.testing.assert_close(found * std + mean, perturbed("contrast"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", ["brightness(delta=5, clip=True)", "contrast(factor=9, clip=True)"])
def test_clipping_keeps_the_picture_between_black_and_white(what):
    free, clipped = perturbed(what.replace(", clip=True", "")), perturbed(what)
    assert free.max() > 1
    assert torch.equal(clipped, free.clamp(0, 1))


@pytest.mark.parametrize("delta", [0, float("nan"), float("-inf"), "much", None])
def test_no_change_of_brightness_is_refused(delta):
    with pytest.raises(ValueError, match=f"brightness: delta must be a number other than 0, not {delta!r}"):
        perturbed(xa.perturbation("brightness", delta=delta))


@pytest.mark.parametrize("factor", [1, 1.0, -0.5, float("nan"), float("inf"), "much", None])
def test_no_change_of_contrast_is_refused(factor):
    with pytest.raises(ValueError, match=f"contrast: factor must be .* at least 0 other than 1, not {factor!r}"):
        perturbed(xa.perturbation("contrast", factor=factor))


def test_defaults():
    assert torch.equal(perturbed("brightness"), perturbed("brightness(delta=1.0)"))
    assert torch.equal(perturbed("contrast"), perturbed("contrast(factor=0.25)"))
