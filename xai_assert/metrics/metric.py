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

    `paper` is its arXiv id. `values` picks the score (B,) out of what a cell measured, if one cell does. `unit`
    "error" is the unit of the model's output; None is a number without one. `chance` is the expected score of a random
    map where it is known exactly (0 for what turns round with the heatmap). `reads` says whether it sees the signed
    attribution or only the heatmap. `caveat` says what the metric cannot tell, where that is so.

    >>> print(Metric("brightness", "", lambda measured: measured["mean"], range=(0.0, 1.0)))
    brightness: higher is better, 0 to 1
    """

    name: str
    paper: str
    values: Callable[[Measured], Tensor] | None = None
    range: tuple[float, float] = (-math.inf, math.inf)
    higher_is_better: bool = True
    unit: str | None = None
    chance: float | None = None
    reads: Literal["heatmap", "attribution"] = "heatmap"
    caveat: str = ""

    def __str__(self) -> str:
        better, (low, high) = "higher" if self.higher_is_better else "lower", self.range
        unit = "in the unit of the output" if self.unit == "error" else f"in {self.unit}" if self.unit else ""
        chance = f"a random map at {self.chance:g}" if self.chance is not None else ""
        words = [f"{better} is better", f"{low:g} to {high:g}", unit, chance, self.paper and f"arXiv {self.paper}"]
        return f"{self.name}: {', '.join(filter(None, words))}" + (f"; but {self.caveat}" if self.caveat else "")

    def score(
        self, measured: Measured, image_ids: tuple[ImageId, ...], *, unit: str | None, provenance: Mapping[str, Any]
    ) -> Score:
        """The score of all images; `unit` is that of the model's output."""
        if self.values is None:
            raise TypeError(f"metric {self.name} is not the measurement of one cell: it has no values")
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
            caveat=self.caveat,
        )
