"""A score: one number an image, with the ids, the set's value and how sure it is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from xai_assert.randomness import ImageId

FEWEST = 10  # below this a bootstrap interval means little
RESAMPLES = 9999
ALL_IMAGES = "all images"  # the id of a score that is one number for the whole set
Statistic = Callable[..., Any]


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Values (n,) float64 on the CPU with the ids of their images; what they are, and where they come from.

    `chance` is the expected value of a random map, where that is known exactly; `range` what values are possible at
    all; `details` what else was measured, (n,) or (n, k) each; `caveat` what the metric cannot tell.

    Example:
        >>> import torch
        >>> score = Score(torch.tensor([0.25, 0.75]), ("a", "b"), "mine", None, True, {})
        >>> score.mean, score.worst(1)
        (0.5, [('a', 0.25)])
    """

    values: Tensor
    image_ids: tuple[ImageId, ...]
    metric: str
    unit: str | None = None
    higher_is_better: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)
    chance: float | None = None
    range: tuple[float, float] = (-math.inf, math.inf)
    details: dict[str, Tensor] = field(default_factory=dict)
    caveat: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", torch.as_tensor(self.values).detach().double().cpu())
        object.__setattr__(self, "image_ids", tuple(self.image_ids))
        if self.values.ndim != 1 or len(self.values) != len(self.image_ids) or not len(self.values):
            raise ValueError(
                f"score {self.metric!r}: values {tuple(self.values.shape)} must be one number for each of the "
                f"{len(self.image_ids)} image_ids"
            )
        if not bool(self.values.isfinite().all()):
            bad = [str(i) for i, v in zip(self.image_ids, self.values.tolist(), strict=True) if not math.isfinite(v)]
            raise ValueError(f"score {self.metric!r} is not finite for images {', '.join(bad[:5])}")

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.metric} {self.value:.3f} over {len(self)} images>"

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return float(self.values.mean())

    @property
    def value(self) -> float:
        """The score of the set, which a gate compares with its bound: the mean, if nothing else is said."""
        return float(self._statistic(*self._samples()))

    @property
    def standard_error(self) -> float:
        """Of the mean over the images; 0 for a single image."""
        return float(self.values.std(correction=1)) / math.sqrt(len(self)) if len(self) > 1 else 0.0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided BCa bootstrap interval of `value` over the images (always the same for the same values).

        Raises:
            ValueError: confidence is not in (0, 1), or there are fewer than 10 images.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
        if len(self) < FEWEST:
            raise ValueError(f"an interval needs at least {FEWEST} images, the score of {self.metric} has {len(self)}")
        samples = self._samples()
        if all((s == s[0]).all() for s in samples):
            return self.value, self.value
        options: dict[str, Any] = {"paired": True, "vectorized": True, "confidence_level": confidence}
        options |= {"n_resamples": RESAMPLES, "batch": 1000}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a nearly constant score has no BCa interval: NaN, handled below
            for method in ("BCa", "percentile"):
                rng = np.random.default_rng(0)
                found = scipy.stats.bootstrap(samples, self._statistic, method=method, rng=rng, **options)
                low, high = found.confidence_interval
                if math.isfinite(low) and math.isfinite(high):
                    break
        return float(low), float(high)

    def worst(self, count: int = 3) -> list[tuple[ImageId, float]]:
        """The images with the worst values, worst first."""
        order = self.values.argsort(descending=not self.higher_is_better, stable=True)[:count].tolist()
        return [(self.image_ids[i], float(self.values[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "n": len(self),
            "interval95": list(self.interval(0.95)) if len(self) >= FEWEST else None,
            "image_ids": [i if isinstance(i, int) else str(i) for i in self.image_ids],
            "values": self.values.tolist(),
            "provenance": self.provenance,
            "details": {name: column.tolist() for name, column in self.details.items()},
            **({"caveat": self.caveat} if self.caveat else {}),
        }

    def _samples(self) -> tuple[np.ndarray, ...]:
        """What is resampled, one array of (n,) or more."""
        return (self.values.numpy(),)

    @staticmethod
    def _statistic(*samples: np.ndarray, axis: int = -1) -> Any:
        """The set's value from the samples."""
        return np.mean(samples[0], axis=axis)
