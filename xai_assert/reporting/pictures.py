"""Pictures for the report: what a cell showed the network, and two maps beside their difference."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from xai_assert.evidence import Evidence
from xai_assert.subject import Card

TILE = 168  # pixels; every tile of a strip is this wide, so a strip's width tells how many it has
TALLEST = 2  # a tile's height in widths; a taller image is fitted between grey edges
CAPTIONS = (
    "input",
    "heatmap",
    "R and I",
    "R perturbed",
    "I perturbed",
    "prediction",
    "prediction, R perturbed",
    "prediction, I perturbed",
)
RELEVANT, IRRELEVANT = (255, 138, 0), (0, 148, 255)  # orange and blue: apart for every kind of colour vision
GREY = 128
QUALITY = 76
OUTLIERS = 0.5  # per cent at the ends of a colour range: one hot pixel must not darken the rest

Picture = np.ndarray[Any, np.dtype[Any]]


def rgb(image: Tensor, card: Card) -> Picture:
    """A network's input (C, H, W) as a picture (H, W, 3) of uint8.

    Mean, std and the order of the channels are those of the card; without them the values are stretched over the
    whole range. Channel counts other than 3 become their mean, in grey.

    >>> import torch
    >>> rgb(torch.tensor([1.0, 0.5, 0.0]).reshape(3, 1, 1), Card(name="raw", mean=(0.0,) * 3, std=(1.0,) * 3)).tolist()
    [[[255, 128, 0]]]
    """
    values = np.nan_to_num(image.detach().cpu().float().numpy())
    if card.mean is not None and card.std is not None and len(card.mean) == len(values):
        shape = (-1, 1, 1)
        values = values * np.reshape(card.std, shape) + np.reshape(card.mean, shape)
    else:
        values = _stretched(values, values.min(), values.max(), flat=0.5)
    if len(values) != 3:
        values = np.repeat(values.mean(0, keepdims=True), 3, axis=0)
    elif card.layout == "BGR":
        values = values[::-1]
    return _bytes(values.transpose(1, 2, 0))


def strip(evidence: Evidence) -> bytes:
    """One image of one cell as a WebP: the tiles of `CAPTIONS` in a row, each `TILE` pixels wide.

    The three predictions share one colour range; those of a segmentation show the likeliest class, each in its own
    colour. Where they are no maps, these tiles are left out.
    """
    picture = rgb(evidence.image, evidence.card)
    heatmap = np.nan_to_num(evidence.heatmap.detach().cpu().float().numpy())
    tiles = [
        picture,
        _overlay(picture, heatmap),
        _marked(picture, evidence.relevant.cpu().numpy(), evidence.irrelevant.cpu().numpy()),
        *(rgb(perturbed, evidence.card) for perturbed in evidence.perturbed),
        *_predictions(evidence),
    ]
    height, width = picture.shape[:2]
    scale = min(TILE / width, TALLEST * TILE / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (TILE * len(tiles), size[1]), (GREY, GREY, GREY))
    for position, tile in enumerate(tiles):
        sheet.paste(_resized(tile, size), (position * TILE + (TILE - size[0]) // 2, 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def triple(stored: Any, received: Any) -> bytes:
    """Two signed maps (H, W) and received - stored, side by side as a PNG.

    The maps share one colour range, symmetric around 0; the difference has its own.

    Raises:
        ValueError: no maps, or maps of two sizes.

    Example:
        >>> triple([[0.0, 1.0]], [[0.5, 1.0]])[1:4]
        b'PNG'
    """
    first, second = (np.nan_to_num(np.asarray(values, dtype=np.float64)) for values in (stored, received))
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ValueError(f"stored, received: two maps (H, W) of one size are needed, not {first.shape}, {second.shape}")
    shared = max(np.abs(first).max(), np.abs(second).max())
    difference = second - first
    figure = Figure(figsize=(9.6, 3.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = (("stored", first, shared), ("received", second, shared))
    for position, (title, values, limit) in enumerate((*panels, ("difference", difference, np.abs(difference).max()))):
        axes = figure.add_subplot(1, 3, position + 1)
        limit = limit or 1.0  # all 0: white, in the middle of the range
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    file = io.BytesIO()
    canvas.print_figure(file, format="png")
    return file.getvalue()


def _overlay(picture: Picture, heatmap: Picture) -> Picture:
    """Relevance as colour on the picture in grey, the more opaque the higher."""
    share = _stretched(heatmap, heatmap.min(), np.percentile(heatmap, 100 - OUTLIERS) or heatmap.max())
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * share)[..., :3]
    opaque = np.sqrt(share)[..., None]
    return _bytes(0.6 * _grey(picture) * (1 - opaque) + colours * opaque)


def _marked(picture: Picture, relevant: Picture, irrelevant: Picture) -> Picture:
    marked = _bytes(0.6 * _grey(picture))
    marked[relevant.astype(bool)] = RELEVANT
    marked[irrelevant.astype(bool)] = IRRELEVANT
    return marked


def _predictions(evidence: Evidence) -> list[Picture]:
    """Maps (H', W') in one shared range of colours, logits (K, H', W') as classes; nothing where they are neither."""
    maps = [p.detach().cpu().float().numpy() for p in (evidence.clean, *evidence.predictions)]
    task = evidence.card.task
    if task and task.name == "segmentation" and all(values.ndim == 3 and values.size for values in maps):
        colours = matplotlib.colormaps["tab20"]  # of more classes than it has colours, some share one
        return [_bytes(colours(values.argmax(0) % colours.N)[..., :3]) for values in maps]
    return _coloured(maps) if all(values.ndim == 2 and values.size for values in maps) else []


def _coloured(maps: list[Picture]) -> list[Picture]:
    """Maps (H, W) in colours of one shared range."""
    every = np.concatenate([values[np.isfinite(values)] for values in maps])
    low, high = np.percentile(every, (OUTLIERS, 100 - OUTLIERS)) if every.size else (0.0, 1.0)
    colours = matplotlib.colormaps["viridis"]
    return [_bytes(colours(_stretched(np.nan_to_num(values), low, high))[..., :3]) for values in maps]


def _stretched(values: Picture, low: float, high: float, flat: float = 0.0) -> Picture:
    """Values from low..high to 0..1, clipped; `flat` where low is high."""
    if not high > low:
        return np.full(values.shape, flat)
    clipped: Picture = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return clipped


def _grey(picture: Picture) -> Picture:
    grey: Picture = picture.mean(-1, keepdims=True) / 255
    return np.repeat(grey, 3, axis=-1)


def _bytes(values: Picture) -> Picture:
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _resized(tile: Picture, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(tile))
    larger = size[0] > picture.width or size[1] > picture.height
    return picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)
