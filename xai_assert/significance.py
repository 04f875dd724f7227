"""Tests by random signs, and Holm's correction for many of them. NumPy alone."""

from __future__ import annotations

import itertools
import math

import numpy as np

FEWEST_SIGNS = 5  # 2^-5 is the first p value under 0.05
EXACT_SIGNS = 16  # up to 2^16 sign patterns are all tried, beyond that as many are drawn
CHUNK = 4096  # patterns at a time
ROUNDING = 1e-12  # of the sum of all sizes: sums so near to each other are equal


def sign_flips(values: np.ndarray) -> np.ndarray:
    """One-sided p of the mean of values (..., n) under random signs, (...): exact up to 16 values, drawn beyond.

    A pattern that flips the values F does as well as the one observed if the sum of F is not above 0.

    >>> float(sign_flips(np.array([0.25, 0.25, 0.25])))
    0.125
    """
    rows = values.reshape(-1, values.shape[-1])
    equal = ROUNDING * np.abs(rows).sum(1)
    exact = rows.shape[1] <= EXACT_SIGNS
    random = np.random.default_rng(0)
    as_good, tried = np.zeros(len(rows)), 0
    total = 2 ** min(rows.shape[1], EXACT_SIGNS)
    for start in range(0, total, CHUNK):
        size = min(CHUNK, total - start)
        flips = _patterns(start, size, rows.shape[1]) if exact else _drawn(random, size, rows.shape[1])
        as_good += (flips @ rows.T <= equal).sum(0)
        tried += size
    drawn = not exact  # the observed pattern counts as one of those drawn
    return ((as_good + drawn) / (tried + drawn)).reshape(values.shape[:-1])


def _patterns(start: int, size: int, count: int) -> np.ndarray:
    """Sign patterns number start..start+size-1 of `count` values, (size, count): 1 where flipped."""
    return ((np.arange(start, start + size)[:, None] >> np.arange(count)) & 1).astype(float)


def _drawn(random: np.random.Generator, size: int, count: int) -> np.ndarray:
    return random.integers(0, 2, (size, count), dtype=np.int8).astype(float)


def smallest_p(count: int) -> float:
    """The smallest p that `sign_flips` can find for so many values.

    >>> smallest_p(5)
    0.03125
    """
    return 2.0**-count if count <= EXACT_SIGNS else 1 / (2**EXACT_SIGNS + 1)


def images_needed(tests: int, alpha: float) -> int | None:
    """The fewest images with which one of so many tests can be found at all after Holm; None if no number will do.

    >>> images_needed(40, 0.05)
    10
    """
    counts = itertools.chain(range(max(1, math.ceil(math.log2(tests / alpha))), EXACT_SIGNS + 1), [EXACT_SIGNS + 1])
    return next((count for count in counts if tests * smallest_p(count) <= alpha), None)


def holm(p: np.ndarray) -> np.ndarray:
    """p values (m,) adjusted after Holm: those up to alpha are found among m with at most alpha for any false one.

    >>> holm(np.array([0.5, 0.01, 0.25])).tolist()
    [0.5, 0.03, 0.5]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
