import pytest
import torch

from xai_assert.datasets import generated
from xai_assert.subject import Card

CARD = Card(name="depthnet", input_size=(48, 64))


def test_pictures_depend_on_id_seed_and_size_alone():
    images = generated(CARD, count=3)
    assert images.ids == ["generated-00", "generated-01", "generated-02"]
    assert torch.equal(images[2].image, generated(CARD, count=101)[2].image)
    assert not torch.equal(images[2].image, images[1].image)
    assert not torch.equal(images[2].image, generated(CARD, count=3, seed=1)[2].image)
    assert generated(Card(name="depthnet"), count=1)[0].image.shape == (3, 96, 128)


def test_pictures_have_objects_and_edges():
    """Where objects end, neighbours differ by far more than texture and grain do; elsewhere they hardly differ."""
    images = generated(CARD, count=8).tensor()
    steps = images.diff(dim=3).abs().amax(1).flatten(1)
    assert ((images >= 0) & (images <= 1)).all()
    assert (steps.quantile(0.5, dim=1) < 0.07).all()  # grain of 3 % and stripes of 8 % of a brightness below 1
    assert (steps.quantile(0.99, dim=1) > 0.2).all()


def test_a_count_must_be_positive():
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, not 0"):
        generated(CARD, count=0)
