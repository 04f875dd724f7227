"""Two small networks of our own for the rendered rooms: which object is nearest, and which class each pixel has.

Both have the encoder of pixelformer-nano and start from what was trained with it; so the tasks can be compared on
networks that see alike.
"""

# mypy: disable-error-code="no-any-return"
# (to mypy, what a submodule returns is Any)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.datasets.nearest import OBJECTS
from xai_assert.datasets.rooms import CLASSES
from xai_assert.models.pixelformer import SIZES, Trunk, conv3x3, stage_grids
from xai_assert.models.swin import Swin


class NearestObject(nn.Module):
    """Images (B, 3, H, W) to logits (B, 11) of `OBJECTS`: the classifier looks at one place more than at others.

    Each token of the last stage says how much it is to be looked at; the classes are read from the mean so weighted.

    >>> import torch
    >>> NearestObject().eval()(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11])
    """

    def __init__(self, size: str = "nano") -> None:
        super().__init__()
        s = SIZES[size]
        self.backbone = Swin(s.dim, s.depths, s.heads, s.window)
        width = self.backbone.dims[-1]
        self.look = nn.Linear(width, 1)
        self.classes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(OBJECTS)))

    def forward(self, images: Tensor) -> Tensor:
        stage_grids(*images.shape[-2:])
        tokens = self.backbone(images)[-1].flatten(2).transpose(1, 2)
        return self.classes((self.look(tokens).softmax(1) * tokens).sum(1))

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        """The encoder's layers; see `xai_assert.attention.ExposesAttention`."""
        return self.backbone.attention_taps(stage_grids(height, width))


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
