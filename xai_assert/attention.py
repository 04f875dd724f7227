"""How a network shows its attention: the one thing a rollout asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AttentionTap:
    """One attention layer, and where its tokens lie in the picture.

    `module` is the submodule whose output is the attention after softmax, shape (B, G, heads, N, N), or with the groups
    in the batch (B * G, heads, N, N), image by image: G groups of N tokens that attend to each other (G = 1 for global
    attention, the windows of a Swin block, the four pixel positions of a METER patch). `tokens` (G, N) says which token
    of the stage each of them is; -1 is padding. The stage has `prefix` tokens without a place (class token, registers),
    then `grid[0] * grid[1]` places, row by row. `class_token` says which of the prefix tokens the prediction is read
    from, if it is read from one.

    `source` makes it a layer of a decoder, whose queries attend to another stream: the index, in the list of taps, of
    the layer whose output the keys and values are. They lie on the same tokens as the queries.

    `output` says which of several outputs the attention is, where the module returns a tuple.
    """

    module: nn.Module
    grid: tuple[int, int]
    tokens: Tensor
    prefix: int = 0
    source: int | None = None
    class_token: int | None = None
    output: int | None = None

    def of(self, given: Any) -> Any:
        """The attention in what the module returned."""
        return given if self.output is None else given[self.output]


@runtime_checkable
class ExposesAttention(Protocol):
    """A module that `attention_rollout` can read. Taps come first layer first.

    Stages may only get coarser, those of a decoder only finer: its first query is made of the encoder's last output.
    """

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        """The attention layers for an input of this size in pixels."""
        ...


def patch_positions(grid: tuple[int, int], patch: int) -> Tensor:
    """Tokens (patch^2, N) of a grid whose patches attend once for each pixel position inside the patch (MobileViT).

    >>> patch_positions((2, 4), 2).tolist()
    [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    height, width = grid
    place = torch.arange(height * width).reshape(height // patch, patch, width // patch, patch)
    return place.permute(1, 3, 0, 2).reshape(patch * patch, -1)
