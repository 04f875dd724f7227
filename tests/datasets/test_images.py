import pickle

import pytest
import torch

from xai_assert.batching import ImageSource
from xai_assert.datasets import ImageSet
from xai_assert.datasets.images import KNOWN_SHARE, prepare_depth, prepare_picture
from xai_assert.errors import DataError
from xai_assert.subject import Card

# Halving a row: an antialiased bilinear filter weighs pixels at distance .5, 1.5 of the new centre .375 and .125.
NEAR, FAR = 0.375, 0.125


class Memory:
    """Five pictures of one grey, 8x8, with depth; counts what is read."""

    name = "memory"

    def __init__(self, has_depth=True, depth=2.0):
        self.ids = list("abcde")
        self.has_depth = has_depth
        self.depth = depth
        self.reads = []

    def read(self, index):
        self.reads.append(index)
        picture = torch.full((3, 8, 8), 10 * index, dtype=torch.uint8)
        return picture, torch.full((8, 8), self.depth) if self.has_depth else None


def card(**given):
    return Card(name="depthnet", **{"unit": "m", **given})


def test_a_set_is_a_lazy_sequence_of_samples():
    source = Memory()
    images = ImageSet(source, card())
    assert (len(images), images.ids, images.name, images.has_ground_truth) == (5, list("abcde"), "memory", True)
    assert source.reads == []
    assert images[-2].id == images[3].id == "d"
    assert source.reads == [3, 3]
    assert [sample.id for sample in images] == images.ids


@pytest.mark.parametrize("index", [5, -6])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=f"image {index} of memory, which has 5"):
        ImageSet(Memory(), card())[index]


def test_limit_takes_the_first():
    images = ImageSet(Memory(), card(), limit=2)
    assert images.ids == ["a", "b"]
    assert images[-1].id == "b"
    with pytest.raises(ValueError, match="limit must be None or a whole number of at least 1, not 0"):
        ImageSet(Memory(), card(), limit=0)


def test_everything_at_once():
    images = ImageSet(Memory(), card(input_size=(4, 4)))
    assert images.tensor().shape == (5, 3, 4, 4)
    assert torch.equal(images.ground_truth(), torch.full((5, 4, 4), 2.0))
    assert ImageSet(Memory(has_depth=False), card()).ground_truth() is None
    assert ImageSource(images).batch(1, 3).ids == ("b", "c")


def test_repr_is_one_line():
    text = repr(ImageSet(Memory(), card(input_size=(48, 64))))
    assert text == "<ImageSet memory: 5 images 48x64, depth in m, for depthnet>"


def test_a_set_survives_pickling():
    images = pickle.loads(pickle.dumps(ImageSet(Memory(), card())))
    assert images.ids == list("abcde")
    assert images[1].image.unique().tolist() == pytest.approx([10 / 255])


def test_a_picture_is_scaled_flipped_and_normalised():
    red = torch.tensor([255, 0, 51], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    plain = prepare_picture(red, card())
    bgr = prepare_picture(red, card(layout="BGR", mean=(0.2, 0.5, 0.0), std=(1.0, 0.5, 0.25)))
    # (51/255 - .2) / 1, (0 - .5) / .5, (1 - 0) / .25: mean and std are in the order of the network's channels
    assert plain[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert bgr[:, 0, 0].tolist() == pytest.approx([0, -1, 4], abs=1e-6)  # .2 has no exact float


def test_a_picture_is_resized_with_antialiasing():
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    picture[:, :, 4] = 255
    row = prepare_picture(picture, card(input_size=(4, 4)))[0, 1]
    assert row.tolist() == pytest.approx([0, FAR, NEAR, 0])


def test_depth_takes_the_unit_and_the_size_of_the_output():
    depth = torch.full((8, 8), 1.5)
    small = prepare_depth(depth, card(unit="cm"), (2, 4))
    assert small.flatten().tolist() == pytest.approx([150.0] * 8)
    assert prepare_depth(depth, card(), None).shape == (8, 8)


def test_full_size_leaves_the_depth_at_the_pictures_size():
    images = ImageSet(Memory(), card(unit="cm", input_size=(4, 6)))
    full = images.full_size()
    for found, size in ((images, (4, 6)), (full, (8, 8))):
        assert found[1].ground_truth.shape == size
        assert found[1].ground_truth.unique().tolist() == pytest.approx([200.0])
    assert torch.equal(images[1].image, full[1].image)


@pytest.mark.parametrize("missing", [0.0, -1.0, float("nan"), float("inf")])
def test_missing_depth_does_not_bleed(missing):
    depth = torch.full((16, 16), 2.0)
    depth[3:11, 5:14] = missing
    small = prepare_depth(depth, card(), (6, 7))
    known = small != 0
    assert 0 < known.sum() < known.numel()
    assert small[known].tolist() == pytest.approx([2.0] * int(known.sum()))


def test_depth_known_by_too_little_is_unknown():
    # Of a row shrunk to a quarter, pixels at distance .5, 1.5, 2.5, 3.5 weigh .219, .156, .094, .031.
    depth = torch.zeros(16, 16)
    depth[:, 8] = 3.0
    row = prepare_depth(depth, card(), (4, 4))[1]
    assert 0.094 < KNOWN_SHARE < 0.156
    assert row.tolist() == pytest.approx([0, 0, 3, 0])


def test_a_depth_map_without_known_pixels_names_the_image():
    with pytest.raises(DataError, match="memory, image b: too little of its depth is known"):
        ImageSet(Memory(depth=0.0), card())[1]


@pytest.mark.parametrize("unit", [None, "inch"])
def test_depth_needs_a_unit_that_is_known(unit):
    with pytest.raises(DataError, match=f"depthnet has unit {unit!r}; give it one of m, dm, cm, mm"):
        ImageSet(Memory(), card(unit=unit))
    assert ImageSet(Memory(has_depth=False), card(unit=unit))[0].ground_truth is None


def test_the_card_must_be_one_for_colour_pictures():
    with pytest.raises(DataError, match="memory holds RGB pictures; the card of depthnet has 1 channels"):
        ImageSet(Memory(), card(mean=(0.5,), std=(0.5,)))
    with pytest.raises(TypeError, match=r"card must be a Card, such as subject\.card, not str"):
        ImageSet(Memory(), "meter-xxs")
