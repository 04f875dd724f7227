"""Weights and images that follow from names and sizes alone, on which the published networks were run once.

What those answered is in meter_parity.npz and pixelformer_parity.npz, keys MODEL_HEIGHT_WIDTH. Each tensor is drawn
from the CRC-32 of its name, so that two implementations with the same names get the same numbers.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ANSWERS = Path(__file__).with_name("meter_parity.npz")


def drawn_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: _drawn(name, like) for name, like in network.state_dict().items()}


def drawn_images(height: int, width: int) -> Tensor:
    return _normal(1000 * height + width, (2, 3, height, width))


def _drawn(name: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():  # a norm's count of batches, a window's index of offsets
        return like
    values = _normal(zlib.crc32(name.encode()), tuple(like.shape))
    if name.endswith("running_var"):
        return values.abs() + 0.5
    if like.ndim > 1:
        return values / math.sqrt(like[0].numel())
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
