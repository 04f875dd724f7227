"""Which object of a rendered room is nearest to the camera: a class of the picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai_assert.datasets.renderer import Frame
from xai_assert.datasets.rooms import CLASSES

OBJECTS = ("table", "chair", "sofa", "bed", "cabinet", "shelf", "lamp", "plant", "box", "ball", "clutter")
SEEN = 0.01  # share of the picture that an object must cover
NEAR = 10  # percentile of an object's depths that counts as its distance: a single ray may graze an edge
NONE = 255  # no object covers so much: a label that nobody knows


class Nearest(NamedTuple):
    """The class, its place in `OBJECTS` or `NONE`, and the object's number in `Frame.instances`, or 0."""

    label: int
    instance: int


def nearest_object(frame: Frame) -> Nearest:
    """The nearest object that covers a hundredth of the picture.

    Example:
        >>> from xai_assert.datasets.rooms import scene
        >>> frame = scene(7, 60, 80)
        >>> OBJECTS[nearest_object(frame).label]
        'plant'
    """
    found: list[tuple[float, Nearest]] = []
    for instance in np.unique(frame.instances):
        inside: NDArray[np.bool_] = frame.instances == instance
        kind = CLASSES[int(frame.labels[inside][0])]
        if kind in OBJECTS and inside.mean() >= SEEN:
            distance = float(np.percentile(frame.depth[inside], NEAR))
            found.append((distance, Nearest(OBJECTS.index(kind), int(instance))))
    return min(found, default=(0.0, Nearest(NONE, 0)))[1]
