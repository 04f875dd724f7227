"""Which method to ship, and how sure that is: from per-image scores alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats

from xai_assert.attributions.controls import CONTROLS
from xai_assert.verdicts import FEWEST_SIGNS, holm, sign_flips

RESAMPLES = 9999
CORRELATION_RESAMPLES = 1999
ALPHA = 0.05
TIE = 1e-12  # two means that differ by less are one, in float64
FEWEST_CELLS = 4  # a rank correlation of fewer is -1, 1 or not much else

Values = Mapping[str, np.ndarray]  # of each method, (n,) of the same images


@dataclass(frozen=True)
class Choice:
    """`method` is the one with the highest mean among those that beat random; None if none does.

    `p` are those of the sign-flip test, Holm-adjusted over the methods; `odds` the share of bootstraps over the images
    in which a method is the best of all; `held` the number of other points of each part where the
    choice is first of all methods too, and of how many; `edges` how often the control `edges` does better than it.
    """

    method: str | None
    p: dict[str, float]
    odds: dict[str, float] = field(default_factory=dict)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    edges: tuple[int, int] = (0, 0)

    @property
    def sureness(self) -> float:
        """The odds of the choice; 0 if there is none."""
        return self.odds[self.method] if self.method else 0.0

    @property
    def beat(self) -> list[str]:
        """The methods that beat random."""
        return [name for name, p in self.p.items() if p <= ALPHA]

    @property
    def runner_up(self) -> str | None:
        """The method with the next best odds."""
        others = {name: odds for name, odds in self.odds.items() if name != self.method}
        return max(others, key=others.__getitem__) if others else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        held = {part: list(counts) for part, counts in self.held.items()}
        counts = {"held": held, "edges_better": list(self.edges)}
        return {"method": self.method, "p_holm": self.p, "odds": self.odds} | counts


def choose(reference: Values, others: Iterable[tuple[str, Values]] = ()) -> Choice:
    """Choose by the AF of the reference point; the controls `random` and `edges` may stand in it, and are not chosen.

    Args:
        reference: AF of each method, (n,) of the same images.
        others: the same for the other points, each with the part it belongs to.

    Raises:
        ValueError: fewer than 5 images, which no sign test can tell from chance.

    Example:
        >>> good, bad = np.full(8, 0.5), np.linspace(-0.4, 0.3, 8)
        >>> found = choose({"good": good, "bad": bad}, [("sigma", {"good": bad, "bad": good})])
        >>> found.method, found.odds, found.held
        ('good', {'good': 1.0, 'bad': 0.0}, {'sigma': (0, 1)})
    """
    names = [name for name in reference if name not in CONTROLS]
    if not names:
        return Choice(None, {})
    values = np.stack([reference[name] for name in names])
    if values.shape[1] < FEWEST_SIGNS:
        raise ValueError(f"a choice needs at least {FEWEST_SIGNS} images, there are {values.shape[1]}")
    p = dict(zip(names, holm(np.array([float(sign_flips(row)) for row in values])).tolist(), strict=True))
    able = [i for i, name in enumerate(names) if p[name] <= ALPHA]
    if not able:
        return Choice(None, p)
    odds = dict(zip(names, best_odds(values).tolist(), strict=True))
    best = names[max(able, key=lambda i: (round(float(values[i].mean()), 12), odds[names[i]]))]
    held: dict[str, tuple[int, int]] = {}
    beaten = [_above("edges", best, reference)]
    for part, point in others:
        if best in point:
            first, count = held.get(part, (0, 0))
            rivals = [name for name in point if name not in CONTROLS]
            won = point[best].mean() > 0 and not any(_above(name, best, point) for name in rivals)
            held[part] = first + bool(won), count + 1
            beaten.append(_above("edges", best, point))
    return Choice(best, p, odds, held, (sum(beaten), len(beaten)) if "edges" in reference else (0, 0))


def images_needed(methods: int) -> int:
    """So few images cannot tell one of so many methods from a random map, whatever they are: 2^-n, times `methods`.

    >>> images_needed(1), images_needed(3)
    (5, 6)
    """
    return max(FEWEST_SIGNS, math.ceil(math.log2(max(methods, 1) / ALPHA)))


def _above(name: str, best: str, point: Values) -> bool:
    return name in point and bool(point[name].mean() > point[best].mean() + TIE)


def best_odds(values: np.ndarray) -> np.ndarray:
    """How often each row of values (m, n) has the highest mean when the n images are drawn anew, (m,); ties are shared.

    >>> best_odds(np.array([[0.1, 0.2], [0.1, 0.2], [0.0, 0.1]])).tolist()
    [0.5, 0.5, 0.0]
    """
    means = resampled_means(values, RESAMPLES)
    first = means >= means.max(1, keepdims=True) - TIE
    odds: np.ndarray = (first / first.sum(1, keepdims=True)).mean(0)
    return odds


def resampled_means(values: np.ndarray, resamples: int) -> np.ndarray:
    """Means of the rows of (m, n) in so many bootstraps over the columns, (resamples, m); always the same draws."""
    n = values.shape[1]
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples) / n
    means: np.ndarray = weights @ values.T
    return means


@dataclass(frozen=True)
class Correlation:
    """Spearman's, of so many cells; `interval` (95 %) is a bootstrap over the images."""

    value: float
    interval: tuple[float, float]
    cells: int


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Correlation | None:
    """Between the means of two metrics over cells, each (cells, n) of the same images; None if it is not defined.

    >>> ladder = np.arange(5.0)[:, None] + np.zeros((5, 6))
    >>> rank_correlation(ladder, ladder**3).value, rank_correlation(ladder, -ladder).interval
    (1.0, (-1.0, -1.0))
    """
    if len(first) < FEWEST_CELLS:
        return None
    value = float(spearman(first.mean(1)[None], second.mean(1)[None])[0])
    if not np.isfinite(value):
        return None
    drawn = spearman(*(resampled_means(v, CORRELATION_RESAMPLES) for v in (first, second)))
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) else (value, value)
    # near 1 all bootstraps lie below the value: chance can only spoil a perfect agreement
    return Correlation(value, (min(float(low), value), max(float(high), value)), len(first))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of the rows of two arrays (r, cells), (r,); NaN where a row is constant."""
    a, b = (scipy.stats.rankdata(np.round(v, 12), axis=1) for v in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    found: np.ndarray = np.round(np.divide((a * b).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0), 12)
    return found
