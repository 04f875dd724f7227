"""Cards of the three input spaces that networks use."""

import pytest

from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card

CARDS = {
    "imagenet": Card(name="imagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "raw": Card(name="raw", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "bgr": Card(name="bgr", mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1], layout="BGR"),
    "caffe": Card(name="caffe", mean=(0.4, 0.5, 0.6), std=(1 / 255,) * 3, layout="BGR"),
}


@pytest.fixture(params=CARDS)
def card(request) -> Card:
    return CARDS[request.param]
