"""Confidence sequences: intervals of a mean that hold at every number of images at once, so that one may stop early."""

from __future__ import annotations

import math

import numpy as np

CANDIDATES = 1000  # means that are tried lie this finely; ends are rounded outwards
CAPPED = 0.9  # the share of an account that one value may lose
CHUNK = 4096  # values at a time


def confidence_sequence(
    values: np.ndarray, bounds: tuple[float, float], confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends after each value, (n,) each, of the mean of values (n,) that lie within `bounds`.

    Waudby-Smith & Ramdas (2010.09686), hedged capital: against each candidate mean m one bets that the next value
    will be above it, and in a second account below. If m is true, neither account grows but by chance, and by Ville's
    inequality either reaches 2 / (1 - confidence) ever with a probability of at most (1 - confidence) / 2. Candidates
    whose accounts did are out for good. So the true mean is inside at all times together with probability
    `confidence`, however often one looks; the values must be exchangeable (images in random order).

    Raises:
        ValueError: bounds that are not finite, values outside of them, or a confidence not in (0, 1).

    >>> low, high = confidence_sequence(np.full(100, 0.75), (0.0, 1.0))
    >>> bool(low[0] < 0.1), bool(low[-1] > 0.65), bool(high[-1] < 0.85)
    (True, True, True)
    """
    unit = _scaled(values, bounds)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    means = np.linspace(0, 1, CANDIDATES + 1)
    limit = math.log(2 / (1 - confidence))
    bets = _bets(unit, 1 - confidence)
    up, down = np.zeros(len(means)), np.zeros(len(means))
    out = np.zeros(len(means), bool)
    lower, upper = np.zeros(len(unit)), np.ones(len(unit))
    for start in range(0, len(unit), CHUNK // 8):
        here = slice(start, start + CHUNK // 8)
        gains = [account + np.cumsum(_log_gains(unit[here], bets[here], means, side), 0)
                 for account, side in ((up, 1), (down, -1))]  # fmt: skip
        up, down = gains[0][-1], gains[1][-1]
        gone = np.logical_or.accumulate((gains[0] >= limit) | (gains[1] >= limit) | out, 0)
        out = gone[-1]
        lower[here], upper[here] = _ends(gone, means)
    low, high = bounds
    return low + (high - low) * np.maximum.accumulate(lower), low + (high - low) * np.minimum.accumulate(upper)


def log_capital(values: np.ndarray, mean: float, bounds: tuple[float, float], confidence: float = 0.95) -> np.ndarray:
    """Of streams (..., n): the log of the fuller account against one candidate mean after each value, (..., n).

    It is out of the confidence sequence from where this first reaches log(2 / (1 - confidence)).

    >>> bool(log_capital(np.full(50, 0.9), 0.5, (0.0, 1.0))[-1] > np.log(40))
    True
    """
    unit, candidate = _scaled(values, bounds), (mean - bounds[0]) / (bounds[1] - bounds[0])
    bets = _bets(unit, 1 - confidence)
    above, below = (_log_gains(unit, bets, np.array([candidate]), side)[..., 0].cumsum(-1) for side in (1, -1))
    fuller: np.ndarray = np.maximum(above, below)
    return fuller


def _scaled(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be two finite numbers, the lower first, not {bounds}")
    slack = 1e-9 * (high - low)
    if values.size and (values.min() < low - slack or values.max() > high + slack):
        raise ValueError(f"values from {values.min():g} to {values.max():g} do not lie within {bounds}")
    return np.clip((values - low) / (high - low), 0, 1)


def _bets(unit: np.ndarray, alpha: float) -> np.ndarray:
    """How much to bet on each value, from those before it alone: about what grows fastest for their variance."""
    count = np.arange(1, unit.shape[-1] + 1)
    mean = (0.5 + unit.cumsum(-1)) / (count + 1)
    variance = (0.25 + ((unit - mean) ** 2).cumsum(-1)) / (count + 1)
    before = np.concatenate([np.full((*unit.shape[:-1], 1), 0.25), variance[..., :-1]], -1)
    bets: np.ndarray = np.sqrt(2 * math.log(2 / alpha) / (before * count * np.log1p(count)))
    return bets


def _log_gains(unit: np.ndarray, bets: np.ndarray, means: np.ndarray, side: int) -> np.ndarray:
    """What each value multiplies the account by, as its log, (..., n, candidates)."""
    at_stake = np.maximum(means if side > 0 else 1 - means, 1e-12)  # what a bet of 1 can lose
    bounded = np.minimum(bets[..., None], CAPPED / at_stake)
    gains: np.ndarray = np.log1p(side * bounded * (unit[..., None] - means))
    return gains


def _ends(gone: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hull of the candidates (n, candidates) that are left, one step wider, (n,) each."""
    left, step = ~gone, means[1]
    some = left.any(1)
    first = np.where(some, left.argmax(1), 0)
    last = np.where(some, len(means) - 1 - left[:, ::-1].argmax(1), len(means) - 1)
    return np.maximum(means[first] - step, 0), np.minimum(means[last] + step, 1)
