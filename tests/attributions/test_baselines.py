"""Images that look like their baseline: said where the map is 0 whatever the model, and not said of ordinary ones."""

import warnings

import pytest
import torch
from known_models import Pixelwise, draw

import xai_assert as xa
from xai_assert import datasets
from xai_assert.attributions.baselines import COLOURS, SHARE, resolve_baseline, warn_if_near
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD

SUBJECT = xa.describe(
    Pixelwise(torch.ones(3, 8, 10)), name="net", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD, input_size=(8, 10)
)


def as_input(pictures):
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures - mean) / std


def looks(images, baseline, subject=SUBJECT):
    parts = baseline.split("+") if isinstance(baseline, str) else [baseline]
    warn_if_near(subject, images, [resolve_baseline(subject, images, part) for part in parts], baseline)


def picture(colour, share, grey_levels=0.0):
    """8x10 pixels of noise, of which the first `share` have one colour, but for so many grey levels."""
    pictures = 0.3 + 0.4 * draw(1, 3, 8, 10).sigmoid()
    count = round(80 * share)
    pictures.flatten(2)[:, :, :count] = torch.tensor(colour)[:, None] + grey_levels / 255
    return as_input(pictures)


class TestSaid:
    @pytest.mark.parametrize("name", COLOURS)
    def test_of_a_picture_of_one_colour_against_that_colour(self, name):
        with pytest.warns(
            xa.NearBaselineWarning, match=rf"1 of 1 images are as their baseline {name} .*\(100%, within 3"
        ):
            looks(picture(COLOURS[name], 1.0), name)

    def test_of_a_flat_picture_against_itself_blurred(self):
        with pytest.warns(xa.NearBaselineWarning, match="baseline blurred .*such as 'white'"):
            looks(picture((0.2, 0.4, 0.6), 1.0), "blurred")

    def test_with_the_share_and_another_baseline(self):
        with pytest.warns(
            xa.NearBaselineWarning,
            match=r"baseline black in more than half of the pixels \(75%, .* use another baseline, such as 'white' or",
        ):
            looks(torch.cat([picture((0.0,) * 3, 0.75), picture((0.0,) * 3, 0.25)]), "black")

    def test_of_nearly_black_pixels_too(self):
        with pytest.warns(xa.NearBaselineWarning):
            looks(picture((0.0,) * 3, 0.75, grey_levels=2), "black")

    def test_when_the_method_runs_and_its_map_is_0_there_whatever_the_gradient(self):
        dark = picture((0.0,) * 3, 0.75)
        with pytest.warns(xa.NearBaselineWarning):
            found = xa.heatmap(SUBJECT, dark, xa.method("integrated_gradients", steps=2))
        assert (found.flatten()[:60] < 1e-6).all()  # where the gradient is as large as elsewhere
        assert (found.flatten()[60:] > 1e-3).all()

    def test_and_the_remedy_helps(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = xa.heatmap(
                SUBJECT, picture((0.0,) * 3, 0.75), xa.method("integrated_gradients", steps=2, baseline="black+white")
            )
        assert (found.flatten()[:60] > 1e-3).all()

    @pytest.mark.parametrize("scale", [1.0, 1 / 255])
    def test_a_grey_level_is_one_in_every_input_space(self, scale):
        subject = xa.describe(Pixelwise(torch.ones(3, 8, 10)), name="raw", task="depth", mean=[0] * 3, std=[scale] * 3)
        pictures = torch.full((1, 3, 8, 10), 2 / 255) / scale
        with pytest.warns(xa.NearBaselineWarning):
            looks(pictures, "black", subject)


class TestNotSaid:
    @pytest.fixture(autouse=True)
    def _errors(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield

    @pytest.mark.parametrize("baseline", ["black", "white", "mean", "blurred", "black+white"])
    def test_of_the_bundled_scenes(self, baseline):
        card = xa.Card(name="net", mean=IMAGENET_MEAN, std=IMAGENET_STD, input_size=(192, 256), unit="m")
        scenes = datasets.scenes(card).tensor()
        assert len(scenes) == 24
        looks(scenes, baseline)

    def test_of_half_of_the_pixels(self):
        looks(picture((0.0,) * 3, SHARE), "black")

    def test_of_a_dark_picture_that_has_colours(self):
        looks(picture((0.0,) * 3, 1.0, grey_levels=6), "black")

    def test_where_one_channel_differs(self):
        looks(picture((0.0, 0.1, 0.0), 1.0), "black")

    @pytest.mark.parametrize("several", ["black+white", "mean+black"])
    def test_where_a_second_baseline_differs(self, several):
        looks(picture((0.0,) * 3, 1.0), several)
