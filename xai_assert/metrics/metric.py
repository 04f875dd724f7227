"""What the numbers of a metric mean: name, paper, unit, range, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from xai_assert.metrics.prepared import Measured
from xai_assert.metrics.score import Score
from xai_assert.randomness import ImageId


@dataclass(frozen=True, eq=False)
class Metric:
    """The facts of a metric, and how its score is made of what a cell measured.

    `values` picks the score (B,) out of what was measured. `unit` "error" is the unit of the model's output; None is a
    number without one. `chance` is the expected score of a random map where it is known exactly (0 for what turns
    round with the heatmap). `reads` says whether it sees the signed attribution or only the heatmap. `caveat` says
    what the metric cannot tell, where that is so.

    >>> Metric("brightness", "none", lambda measured: measured["mean"], range=(0.0, 1.0)).higher_is_better
    True
    """

    name: str
    paper: str
    values: Callable[[Measured], Tensor]
    range: tuple[float, float] = (-math.inf, math.inf)
    higher_is_better: bool = True
    unit: str | None = None
    chance: float | None = None
    reads: Literal["heatmap", "attribution"] = "heatmap"
    caveat: str = ""

    def score(
        self, measured: Measured, image_ids: tuple[ImageId, ...], *, unit: str | None, provenance: Mapping[str, Any]
    ) -> Score:
        """The score of all images; `unit` is that of the model's output."""
        return Score(
            self.values(measured),
            image_ids,
            self.name,
            unit if self.unit == "error" else self.unit,
            self.higher_is_better,
            dict(provenance),
            chance=self.chance,
            range=self.range,
            details=measured,
        )
