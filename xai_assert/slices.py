"""Is an explanation as true on every slice of the data as on the whole? The images by a column, the worst slice gated.

A slice fails a bound that its mean misses by more than chance allows: a sign-flip test over its images, Holm over the
slices, so that the more of them there are, the more each must miss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xai_assert.errors import DataError
from xai_assert.metrics import Score
from xai_assert.metrics.score import FEWEST
from xai_assert.randomness import ImageId
from xai_assert.significance import FEWEST_SIGNS, holm, sign_flips, smallest_p
from xai_assert.verdicts import Bound

ALPHA = 0.05  # where the gate names no confidence
UNKNOWN = "(unknown)"  # of images that the column does not name


@dataclass(frozen=True)
class Slice:
    """The images with one value of a column: the mean over them, its 95 % interval, and how likely chance alone misses
    the bound so far (after Holm). `p` is None of a slice too small to be judged among so many, or without a bound.

    >>> Slice("kitchen", 7, 0.125, None, 0.01).name
    'kitchen'
    """

    name: str
    count: int
    value: float
    interval: tuple[float, float] | None = None
    p: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def column_of(images: Any, name: str) -> dict[ImageId, str]:
    """The value of a column for each image: of an `ImageSet`, or of data with such methods `column` and `columns`.

    Raises:
        DataError: there is no such column; those that there are stand in the text.
    """
    if not hasattr(images, "column"):
        raise DataError(
            f"--xai-group-by {name}: {type(images).__name__} has no columns; give the data a method column(name) that "
            "returns a value for each image id"
        )
    return {key: str(value) for key, value in images.column(name).items()}


def slices_of(score: Score, groups: Mapping[ImageId, str], bound: Bound | None = None) -> list[Slice]:
    """The slices of a score's images, worst first.

    Args:
        score: of which the mean over the images of each slice is taken.
        groups: the slice of each image, by its id.
        bound: what no slice may miss; `beats` and `early` are asked of the whole alone.

    Example:
        >>> score = Score(torch.tensor([0.5, 0.25, -0.5]), (0, 1, 2), "af")
        >>> [(found.name, found.count, found.value) for found in slices_of(score, {0: "a", 1: "a", 2: "b"})]
        [('b', 1, -0.5), ('a', 2, 0.375)]
    """
    members: dict[str, list[int]] = {}
    for place, image_id in enumerate(score.image_ids):
        members.setdefault(groups.get(image_id, UNKNOWN), []).append(place)
    parts = {name: dataclasses.replace(_plain(score), **_rows(score, places)) for name, places in members.items()}
    p = misses(parts, bound) if bound else {}
    found = [
        Slice(name, len(part), part.mean, part.interval() if len(part) >= FEWEST else None, p.get(name))
        for name, part in parts.items()
    ]
    return sorted(found, key=lambda one: one.value, reverse=not score.higher_is_better)


def misses(parts: Mapping[str, Score], bound: Bound) -> dict[str, float]:
    """Of slices that can be judged: how often chance alone misses the bound so far, after Holm over them.

    One with so few images that no values could make it fail among so many is left out, and says nothing.
    """
    ways = (bound.min is not None) + (bound.max is not None)
    if bound.early or not ways:
        return {}
    judged = {name: part.values.numpy() for name, part in parts.items() if len(part) >= FEWEST_SIGNS}
    tests = ways * len(judged)
    judged = {name: values for name, values in judged.items() if tests * smallest_p(len(values)) <= alpha_of(bound)}
    found = {}
    for name, values in judged.items():
        sides = [bound.min - values] if bound.min is not None else []
        sides += [values - bound.max] if bound.max is not None else []
        found[name] = min(1.0, ways * min(float(sign_flips(side)) for side in sides))
    return dict(zip(found, holm(np.array(list(found.values()))).tolist(), strict=True))


def alpha_of(bound: Bound) -> float:
    """How often a gate may be wrong."""
    return 1 - bound.confidence if bound.confidence else ALPHA


def failing(found: Sequence[Slice], bound: Bound) -> Slice | None:
    """The slice that misses the bound most surely, if one does."""
    sure = [one for one in found if one.p is not None and one.p <= alpha_of(bound)]
    return min(sure, key=lambda one: one.p or 0.0, default=None)


def words(one: Slice, score: Score, bound: Bound, column: str) -> str:
    """Why a slice makes its gate red."""
    beyond = "below" if bound.min is not None and one.value < bound.min else "above"
    limit = f"min{bound.label}={bound.min:.3f}" if beyond == "below" else f"max{bound.label}={bound.max:.3f}"
    p = f"p={one.p:.2g} after Holm over the slices"
    return (
        f"on the slice {column}={one.name} ({one.count} images) it is {one.value:.3f}, {beyond} {limit} ({p}), though "
        f"{score.value:.3f} on all {len(score)}"
    )


def _plain(score: Score) -> Score:
    """The score as values of images, whatever else its kind keeps."""
    about = {name: getattr(score, name) for name in ("metric", "unit", "higher_is_better", "range")}
    return Score(score.values, score.image_ids, **about)


def _rows(score: Score, places: Sequence[int]) -> dict[str, Any]:
    return {"values": score.values[torch.tensor(places)], "image_ids": tuple(score.image_ids[i] for i in places)}
