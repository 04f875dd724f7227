"""Pictures of the report, against pixels that are known."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from xai_assert.evidence import Evidence
from xai_assert.reporting.pictures import CAPTIONS, IRRELEVANT, RELEVANT, TILE, rgb, strip, triple
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card
from xai_assert.tasks import as_task

LOSS = 40  # of 255: what WebP at this quality moves the mean of a flat area by, and far less than between two colours
CARD = Card(name="net", mean=(0.0,) * 3, std=(1.0,) * 3)


def evidence(size=(24, 32), channels=3, card=CARD, clean=None, heatmap=None, predictions=None):
    image = torch.full((channels, *size), 0.5)
    width = size[1]
    relevant = torch.zeros(size, dtype=torch.bool)
    irrelevant = relevant.clone()
    relevant[:, : width // 2] = True
    irrelevant[:, width // 2 :] = True
    clean = torch.zeros(12, 16) if clean is None else clean
    return Evidence(
        "a",
        0.25,
        image,
        torch.rand(size, generator=torch.manual_seed(0)) if heatmap is None else heatmap,
        relevant,
        irrelevant,
        (torch.zeros_like(image), torch.ones_like(image)),
        clean,
        (clean, clean + 1) if predictions is None else predictions,
        card,
    )


def tiles(content):
    sheet = Image.open(io.BytesIO(content))
    assert sheet.format == "WEBP"
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape[1] % TILE == 0
    return np.split(pixels, pixels.shape[1] // TILE, axis=1)


def near(area, colour):
    return np.abs(area.mean((0, 1)) - colour).max() < LOSS


def test_an_input_becomes_the_picture_that_it_was():
    picture = torch.rand(3, 5, 4, generator=torch.manual_seed(1))
    statistics = [torch.tensor(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)]
    image = (picture - statistics[0]) / statistics[1]
    wanted = (picture * 255).round().permute(1, 2, 0).numpy()
    card = Card(name="net", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert np.abs(rgb(image, card) - wanted).max() <= 1  # rounding in float32
    reverse = Card(name="net", mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1], layout="BGR")
    assert np.abs(rgb(image.flip(0), reverse) - wanted).max() <= 1


def test_what_lies_outside_is_clipped_and_without_mean_it_is_stretched():
    image = torch.tensor([-3.0, 0.5, 7.0]).reshape(3, 1, 1)
    assert rgb(image, CARD).tolist() == [[[0, 128, 255]]]
    assert rgb(image, Card(name="net")).tolist() == [[[0, 89, 255]]]  # 3.5 / 10 of 255
    assert rgb(torch.full((3, 1, 1), 4.0), Card(name="net")).tolist() == [[[128, 128, 128]]]


def test_other_channel_counts_are_grey():
    assert rgb(torch.tensor([[[0.2]]]), Card(name="net", mean=(0.0,), std=(1.0,))).tolist() == [[[51, 51, 51]]]
    four = Card(name="net", mean=(0.0,) * 4, std=(1.0,) * 4)
    assert rgb(torch.tensor([0.0, 0.2, 0.4, 0.2]).reshape(4, 1, 1), four).tolist() == [[[51, 51, 51]]]


def test_a_strip_has_a_tile_for_every_caption():
    found = tiles(strip(evidence()))
    assert len(found) == len(CAPTIONS)
    assert found[0].shape == (126, TILE, 3)
    assert near(found[0], (128, 128, 128))
    assert near(found[2][:, : TILE // 2 - 8], RELEVANT)
    assert near(found[2][:, TILE // 2 + 8 :], IRRELEVANT)
    assert near(found[3], (0, 0, 0))
    assert near(found[4], (255, 255, 255))


def test_predictions_share_one_range():
    low, high = (255 * np.array(matplotlib.colormaps["viridis"](end)[:3]) for end in (0.0, 1.0))
    found = tiles(strip(evidence()))
    assert near(found[5], low)
    assert near(found[6], low)  # the same prediction, the same colour
    assert near(found[7], high)


def test_the_heatmap_shows_where_the_relevance_is():
    heatmap = torch.zeros(24, 32)
    heatmap[:, 16:] = 1
    overlay = tiles(strip(evidence(heatmap=heatmap)))[1]
    dark, hot = overlay[:, : TILE // 2 - 8], overlay[:, TILE // 2 + 8 :]
    assert hot.mean() > dark.mean() + 50
    assert np.ptp(dark.mean((0, 1))) < LOSS / 4  # no relevance, no colour


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (8, 64), (64, 8), (352, 1120)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_size_and_channel_count(size, channels):
    found = tiles(strip(evidence(size, channels, card=Card(name="net"))))
    assert len(found) == len(CAPTIONS)
    assert found[0].shape[0] <= 2 * TILE


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-40, 1e38, float("nan"), float("inf")])
def test_a_flat_or_broken_map_is_still_a_picture(value):
    flat = torch.full((24, 32), value)
    assert len(tiles(strip(evidence(heatmap=flat, clean=flat)))) == len(CAPTIONS)


def test_small_pictures_keep_their_pixels():
    image = (torch.arange(64).reshape(8, 8) % 2).float().expand(3, 8, 8)
    first = tiles(strip(Evidence(**{**vars(evidence((8, 8))), "image": image})))[0]
    left, right = (first[40:128, start + 5 : start + 16] for start in (0, 21))  # inside of two pixels of 21
    assert near(left, (0, 0, 0))
    assert near(right, (255, 255, 255))


@pytest.mark.parametrize("clean", [torch.zeros(4), torch.zeros(3, 12, 16)])
def test_predictions_that_are_no_maps_are_left_out(clean):
    assert len(tiles(strip(evidence(clean=clean)))) == len(CAPTIONS) - 3


def test_a_segmentation_shows_its_classes_each_in_its_colour():
    card = Card(name="net", mean=(0.0,) * 3, std=(1.0,) * 3, task=as_task("segmentation"))
    left = torch.zeros(22, 12, 16)
    left[3, :, :8], left[21, :, 8:] = 2.0, 5.0  # the 22nd class has the colour of the second
    found = tiles(strip(evidence(card=card, clean=left, predictions=(left.flip(-1), left))))
    assert len(found) == len(CAPTIONS)
    third, second = (255 * np.array(matplotlib.colormaps["tab20"](k)[:3]) for k in (3, 1))
    for tile, colours in zip(found[5:], [(third, second), (second, third), (third, second)], strict=True):
        halves = tile[10:-10, 10:74], tile[10:-10, 94:158]
        assert all(near(half, colour) for half, colour in zip(halves, colours, strict=True))


def test_a_strip_is_small():
    noise = torch.rand(3, 480, 640, generator=torch.manual_seed(2))
    worst = Evidence(**{**vars(evidence((480, 640))), "image": noise, "perturbed": (noise, noise.flip(1))})
    assert len(strip(worst)) < 60_000  # three tiles of white noise; photographs take a third


def test_three_panels_the_difference_on_its_own_range():
    stored = np.zeros((20, 20))
    received = np.zeros((20, 20))
    stored[:, :10] = received[:, :10] = 1.0
    received[:10, 10:] = -0.01  # hardly seen beside 1; alone in the difference
    content = triple(stored, received)
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 80).sum(0)  # a column's blue pixels: negative values, colour bars too
    third = pixels.shape[1] // 3
    panels = [blue[start : start + 230].sum() for start in (10, third + 10, 2 * third + 10)]
    assert panels[0] == panels[1] == 0
    assert panels[2] > 1000


def test_equal_maps_and_tensors():
    zero = torch.zeros(5, 7)
    assert triple(zero, zero)[:4] == b"\x89PNG"


@pytest.mark.parametrize("shapes", [((4, 4), (4, 5)), ((4,), (4,)), ((0, 3), (0, 3))])
def test_maps_of_two_sizes_are_refused(shapes):
    with pytest.raises(ValueError, match="two maps \\(H, W\\) of one size are needed"):
        triple(np.zeros(shapes[0]), np.zeros(shapes[1]))
