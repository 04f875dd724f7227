"""Rendered training scenes on disk, in chunks that are written once and whole."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from xai_assert.datasets.images import prepare_labels, resize
from xai_assert.datasets.nearest import nearest_object
from xai_assert.datasets.rooms import scene
from xai_assert.subject import UNITS_PER_METRE, Card

CHUNK = 100
TRUTHS = {"depth": "depths", "segmentation": "labels", "classification": "classes"}


def render_chunk(folder: Path, index: int) -> Path:
    """Scenes index * CHUNK up to the next chunk: pictures, labels and classes uint8, depths float16 (half a millimetre
    at 1 m)."""
    path = folder / f"rooms-{index:04d}.npz"
    if not path.exists():
        frames = [scene(seed) for seed in range(index * CHUNK, (index + 1) * CHUNK)]
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(
                file,
                images=np.stack([frame.image.transpose(2, 0, 1) for frame in frames]),
                depths=np.stack([frame.depth for frame in frames]).astype(np.float16),
                labels=np.stack([frame.labels for frame in frames]).astype(np.uint8),
                classes=np.array([nearest_object(frame).label for frame in frames], np.uint8),
            )
        part.replace(path)
    return path


def prepared(folder: Path, count: int, card: Card, workers: int) -> tuple[Tensor, Tensor]:
    """`count` training scenes at the card's sizes: RGB (N, 3, H, W) uint8, and what the card's task asks for.

    That is depth (N, H', W') float32 in the card's unit, or labels uint8: (N, H', W') of the pixels, (N,) of pictures.
    """
    assert card.input_size is not None
    assert card.task is not None
    folder.mkdir(parents=True, exist_ok=True)
    images, truths = [], []
    with ProcessPoolExecutor(workers) as pool:
        chunks = pool.map(partial(render_chunk, folder), range(-(-count // CHUNK)))
        for path in tqdm(chunks, total=-(-count // CHUNK), desc="scenes", unit=f"x{CHUNK}"):
            with np.load(path) as chunk:
                images.append(planes(chunk["images"], card.input_size).round().clamp(0, 255).to(torch.uint8))
                truths.append(truth_of(chunk[TRUTHS[card.task.name]], card))
    return torch.cat(images)[:count], torch.cat(truths)[:count]


def truth_of(values: np.ndarray, card: Card) -> Tensor:
    """A chunk's ground truth, prepared as a data set prepares it."""
    if card.task is not None and card.task.name == "depth":
        return planes(values, card.output_size) * UNITS_PER_METRE[str(card.unit)]
    return torch.stack([prepare_labels(torch.as_tensor(one), card.output_size) for one in values])


def planes(values: np.ndarray, size: tuple[int, int] | None) -> Tensor:
    """(..., H, W) resized as a data set does it; all depths are known."""
    flat = torch.from_numpy(values).float().reshape(-1, *values.shape[-2:])
    small = resize(flat, size)
    return small.reshape(*values.shape[:-2], *small.shape[1:])
