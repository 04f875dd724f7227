"""Blur: a Gaussian of known width, mirrored at the border."""

import math

import pytest
import torch
from known_models import draw

import xai_assert as xa
from xai_assert.perturbations.blur import blur, blurred


def dot(size=41):
    """A picture with one bright pixel in the middle."""
    picture = torch.zeros(1, 1, size, size, dtype=torch.float64)
    picture[..., size // 2, size // 2] = 1
    return picture


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_a_dot_becomes_a_gaussian_of_sigma_pixels(sigma):
    found = blur(dot(), sigma=sigma)[0, 0]
    away = (torch.arange(41) - 20).double()
    # variance along each axis; the filter ends at 4 sigma, which misses 4e-4 of it, and samples a Gaussian
    assert (found.sum(0) * away**2).sum() == pytest.approx(sigma**2, rel=2e-3)
    assert (found.sum(1) * away**2).sum() == pytest.approx(sigma**2, rel=2e-3)
    assert found[20, 21] / found[20, 20] == pytest.approx(math.exp(-1 / (2 * sigma**2)), rel=1e-9)


def test_the_mean_colour_stays():
    images = draw(2, 3, 9, 13)
    torch.testing.assert_close(blur(images, sigma=4.0).mean((2, 3)), images.mean((2, 3)), rtol=0, atol=1e-6)


def test_a_flat_picture_stays():
    images = draw(2, 3, 1, 1).expand(2, 3, 7, 5)
    torch.testing.assert_close(blur(images, sigma=3.0), images, rtol=1e-6, atol=0)  # weights that add up to 1


def test_a_straight_ramp_stays_where_the_border_is_far():
    ramp = torch.arange(101.0, dtype=torch.float64).expand(1, 1, 3, 101)
    found = blurred(ramp, 2.0)
    torch.testing.assert_close(found[..., 20:80], ramp[..., 20:80], rtol=1e-12, atol=0)


def test_much_of_it_leaves_the_mean_colour_alone():
    images = draw(1, 3, 6, 8)
    torch.testing.assert_close(blur(images, sigma=50.0), images.mean((2, 3), keepdim=True).expand_as(images))


def test_ten_pixels_by_default():
    assert torch.equal(blur(dot()), blur(dot(), sigma=10.0))


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf"), "much", None])
def test_bad_widths_are_refused(sigma):
    with pytest.raises(ValueError, match=f"blur: sigma must be a positive number, not {sigma!r}"):
        blur(dot(), sigma=sigma)


def test_it_needs_no_mean_and_std_and_no_gradient():
    found = xa.perturbation("blur", sigma=1.0)
    assert (str(found), found.gradients) == ("blur(sigma=1.0)", 0)
    made = found.on(dot(), card=xa.Card(name="bare"), image_ids=[0], seed=0, gradient=None)
    assert torch.equal(made.field, blur(dot(), sigma=1.0))
