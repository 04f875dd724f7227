"""Two small networks of our own for the rendered rooms: which object is nearest, and which class each pixel has.

Both have the encoder and decoder of pixelformer-nano and start from what was trained with it; so the tasks can be
compared on networks that see alike.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what a submodule returns is Any)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from xai_assert.datasets.nearest import OBJECTS
from xai_assert.datasets.rooms import CLASSES
from xai_assert.models.pixelformer import SIZES, Trunk, conv3x3

KINDS = [CLASSES.index(name) for name in OBJECTS]  # the channels of the objects


class RoomSegmenter(Trunk):
    """Images (B, 3, H, W) to logits (B, 19, H, W) of `CLASSES`, computed at a quarter of the size.

    >>> import torch
    >>> RoomSegmenter().eval()(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 19, 64, 96])
    """

    def __init__(self, size: str = "nano") -> None:
        super().__init__(size)
        self.head = conv3x3(SIZES[size].widths[0], len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.decode(images)[1])
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class NearestObject(RoomSegmenter):
    """Images (B, 3, H, W) to logits (B, 11) of `OBJECTS`: the classes of the pixels, where the network looks.

    Each place says how much it is to be looked at; the logits are the mean of the places' own, so weighted.

    >>> import torch
    >>> NearestObject().eval()(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11])
    """

    def __init__(self, size: str = "nano") -> None:
        super().__init__(size)
        self.look = conv3x3(SIZES[size].widths[0], 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.decode(images)[1]
        weights = self.look(features).flatten(1).softmax(1)
        classes = self.head(features)[:, KINDS].flatten(2)
        return (classes * weights[:, None]).sum(2)
