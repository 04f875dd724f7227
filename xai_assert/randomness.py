"""Random numbers keyed by (seed, image id, purpose): the same for any batch size, order, device and worker.

Drawn on the CPU by NumPy's Philox, a counter-based generator with the same bits on every platform; no global random
state is read or written.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

ImageId = str | int

WORTH_THREADS = 100_000  # numbers, a millisecond's work: to start a thread takes a tenth of that


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

    def draw(own: np.random.Generator, field: np.ndarray[Any, Any]) -> None:
        own.standard_normal(dtype=np.float32, out=field)

    return _drawn(draw, shape, np.float32, seed=seed, image_ids=image_ids, purpose=purpose)


def uniform(shape: Sequence[int], *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """Uniform field in [0, 1), (B, *shape), float32 on the CPU."""

    def draw(own: np.random.Generator, field: np.ndarray[Any, Any]) -> None:
        own.random(dtype=np.float32, out=field)

    return _drawn(draw, shape, np.float32, seed=seed, image_ids=image_ids, purpose=purpose)


def permutations(n: int, *, seed: int, image_ids: Sequence[ImageId], purpose: str) -> Tensor:
    """A random order of n things for each image, (B, n), int64 on the CPU."""

    def draw(own: np.random.Generator, order: np.ndarray[Any, Any]) -> None:
        order[:] = own.permutation(n)

    return _drawn(draw, (n,), np.int64, seed=seed, image_ids=image_ids, purpose=purpose)


def _drawn(
    draw: Callable[[np.random.Generator, np.ndarray[Any, Any]], None],
    shape: Sequence[int],
    kind: type,
    *,
    seed: int,
    image_ids: Sequence[ImageId],
    purpose: str,
) -> Tensor:
    """What `draw` fills in for each image, (B, *shape): by as many threads as torch has, because to draw the noise of
    a batch takes a tenth of a forward pass of a small network, and NumPy lets others run while it draws."""
    fields: np.ndarray[Any, Any] = np.empty((len(image_ids), math.prod(shape)), kind)

    def fill(i: int) -> None:
        draw(generator(seed, image_ids[i], purpose), fields[i])

    threads = min(torch.get_num_threads(), len(image_ids))
    if threads > 1 and fields.size > WORTH_THREADS:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(len(image_ids))))
    else:
        for i in range(len(image_ids)):
            fill(i)
    return torch.from_numpy(fields).reshape(len(image_ids), *shape)
