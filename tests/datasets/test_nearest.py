"""Which object is nearest: cases worked out by hand, and the answers that the bundled scenes carry."""

import h5py
import numpy as np
import torch

import xai_assert as xa
from xai_assert.datasets.nearest import NONE, OBJECTS, nearest_object
from xai_assert.datasets.renderer import Frame
from xai_assert.datasets.rooms import CLASSES
from xai_assert.datasets.scenes import FILE
from xai_assert.resources import fixtures
from xai_assert.subject import Card
from xai_assert.tasks import Classification


def frame(*things):
    """A wall 1 m away, 10 x 10, and things (kind, rows, metres) in front of it or behind, each in rows of its own."""
    labels = np.full((10, 10), CLASSES.index("wall"), np.uint8)
    instances, depth = np.ones((10, 10), np.uint8), np.full((10, 10), 1.0, np.float32)
    for number, (kind, rows, metres) in enumerate(things, 2):
        labels[rows], instances[rows], depth[rows] = CLASSES.index(kind), number, metres
    return Frame(np.zeros((10, 10, 3), np.uint8), depth, labels, instances)


def test_the_nearest_object_not_the_nearest_wall():
    found = nearest_object(frame(("chair", slice(0, 2), 3.0), ("sofa", slice(4, 8), 2.0)))
    assert (OBJECTS[found.label], found.instance) == ("sofa", 3)


def test_of_two_of_a_kind_the_nearer_one():
    found = nearest_object(frame(("box", slice(0, 2), 3.0), ("box", slice(4, 8), 4.0), ("bed", slice(8, 9), 5.0)))
    assert (OBJECTS[found.label], found.instance) == ("box", 2)


def test_a_single_near_ray_does_not_count():
    """Of 40 pixels one is at 10 cm; the tenth percentile is still at 5 m, behind the chair at 3 m."""
    room = frame(("chair", slice(0, 2), 3.0), ("sofa", slice(4, 8), 5.0))
    room.depth[4, 0] = 0.1
    assert OBJECTS[nearest_object(room).label] == "chair"


def test_what_is_too_small_does_not_count():
    room = frame(("chair", slice(0, 2), 3.0))
    room.labels[9, 9], room.instances[9, 9], room.depth[9, 9] = CLASSES.index("ball"), 9, 0.5  # 1 % counts
    assert OBJECTS[nearest_object(room).label] == "ball"
    large = Frame(*(np.repeat(np.repeat(plane, 2, 0), 2, 1) for plane in room))
    large.labels[18:, 19], large.instances[18:, 19] = CLASSES.index("wall"), 1  # half a per cent is left
    assert OBJECTS[nearest_object(large).label] == "chair"


def test_a_room_without_objects():
    assert nearest_object(frame(("rug", slice(0, 5), 2.0))) == (NONE, 0)


class TestTheBundledScenes:
    CARD = Card(name="nearest", task=Classification(), input_size=(192, 256), output_size=(192, 256), classes=OBJECTS)

    def test_they_carry_the_answers(self):
        with h5py.File(fixtures() / FILE) as file:
            planes = [file[name][:].transpose(0, 2, 1) for name in ("depths", "labels", "instances")]
            pictures = file["images"][:].transpose(0, 3, 2, 1)
            found = [nearest_object(Frame(*room)) for room in zip(pictures, *planes, strict=True)]
            assert [one.label for one in found] == file["classes"][:].tolist()
            assert [one.instance for one in found] == file["nearest"][:].tolist()
        assert NONE not in {one.label for one in found}, "each has an object"
        assert xa.datasets.bundled_images(self.CARD).ground_truth().tolist() == [one.label for one in found]

    def test_masks_lie_on_the_object_that_is_named(self):
        masks = xa.datasets.nearest_masks(self.CARD)
        assert list(masks) == list(range(24))
        with h5py.File(fixtures() / FILE) as file:
            for row, mask in masks.items():
                full = file["nearest"][row] == file["instances"][row].T
                assert abs(mask.double().mean() - full.mean()) < 1e-3, "nearest neighbours keep the area"
                assert mask.dtype == torch.bool
                inside = file["labels"][row].T[full]
                assert {CLASSES[k] for k in np.unique(inside)} == {OBJECTS[file["classes"][row]]}

    def test_other_classes_than_the_rooms_get_pictures_without_labels(self):
        other = Card(name="imagenet", task=Classification(), input_size=(64, 64), output_size=(64, 64))
        assert xa.datasets.bundled_images(other).ground_truth() is None
