"""Random numbers keyed by (seed, image id, purpose): the same for any batch size, order, device and worker.

Drawn on the CPU by NumPy's Philox, a counter-based generator with the same bits on every platform; no global random
state is read or written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ImageId = str | int


def generator(seed: int, image_id: ImageId, purpose: str) -> np.random.Generator:
    """A generator of its own for one image and one purpose.

    >>> float(generator(0, "a.png", "noise").random()) == float(generator(0, "a.png", "noise").random())
    True
    """
    key = f"{seed}\x1f{image_id}\x1f{purpose}".encode()
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def normal(shape: Sequence[int], *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """Standard normal field (B, *shape), float32 on the CPU, one independent draw an image."""
    draws = [generator(seed, i, purpose).standard_normal(tuple(shape), dtype=np.float32) for i in image_ids]
    return torch.from_numpy(np.stack(draws))


def uniform(shape: Sequence[int], *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """Uniform field in [0, 1), (B, *shape), float32 on the CPU."""
    draws = [generator(seed, i, purpose).random(tuple(shape), dtype=np.float32) for i in image_ids]
    return torch.from_numpy(np.stack(draws))


def permutations(n: int, *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """A random order of n things for each image, (B, n), int64 on the CPU."""
    return torch.from_numpy(np.stack([generator(seed, i, purpose).permutation(n) for i in image_ids]))
