"""Confidence sequences: what they promise at all times together, by simulation, and how soon they decide."""

import numpy as np
import pytest

from xai_assert.sequences import confidence_sequence, log_capital

STREAMS, LENGTH = 2000, 500
# name: draw(random, shape), true mean, range
KINDS = {
    "fair coin": (lambda r, s: (r.random(s) < 0.5).astype(float), 0.5, (0, 1)),
    "rare coin": (lambda r, s: (r.random(s) < 0.05).astype(float), 0.05, (0, 1)),
    "beta": (lambda r, s: r.beta(10, 30, s), 0.25, (0, 1)),
    "uniform": (lambda r, s: r.uniform(-1, 1, s), 0.0, (-1, 1)),
    "two ends": (lambda r, s: np.where(r.random(s) < 0.9, 1.0, -1.0), 0.8, (-1, 1)),
}


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_the_true_mean_is_seldom_ever_left_out(kind, confidence):
    """Looking after every value: a verdict is false only if the true mean is out at some time."""
    draw, mean, bounds = KINDS[kind]
    values = draw(np.random.default_rng(7), (STREAMS, LENGTH))
    ever = log_capital(values, mean, bounds, confidence).max(-1) >= np.log(2 / (1 - confidence))
    alpha = 1 - confidence
    # 3 binomial standard deviations above the nominal rate
    assert ever.mean() <= alpha + 3 * (alpha * (1 - alpha) / STREAMS) ** 0.5


def test_a_naive_interval_would_not_keep_that_promise():
    """What the sequence is for: looked at after each value, mean +- 2 standard errors often leaves out the true one."""
    values = np.random.default_rng(7).random((500, LENGTH))
    count = np.arange(1, LENGTH + 1)
    mean = values.cumsum(-1) / count
    error = np.sqrt(np.maximum((values**2).cumsum(-1) / count - mean**2, 0) / count)
    ever = (np.abs(mean - 0.5) > 1.96 * error)[:, 10:].any(-1)
    assert ever.mean() > 0.25


def test_a_sequence_leaves_out_exactly_the_candidates_that_were_bet_away():
    values = np.random.default_rng(3).beta(6, 3, 300)
    low, high = confidence_sequence(values, (0, 1), 0.95)
    step = 2 / 1000  # ends lie on the next step outwards
    for mean in (low[-1] + 2 * step, high[-1] - 2 * step):
        assert log_capital(values, mean, (0, 1), 0.95).max() < np.log(40)
    for mean in (low[-1] - step, high[-1] + step):
        assert log_capital(values, mean, (0, 1), 0.95).max() >= np.log(40)


def test_it_never_widens_and_ends_near_the_mean():
    values = np.random.default_rng(3).uniform(-1, 1, 1500)  # more than one chunk
    low, high = confidence_sequence(values, (-1, 1))
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()
    assert low[-1] < values.mean() < high[-1]
    # sd .577, standard error .015: a sequence is wider than 1.96 of it, but not by three times
    assert high[-1] - low[-1] < 6 * 1.96 * 0.015


def test_a_part_has_the_ends_that_the_whole_had_there():
    values = np.random.default_rng(5).random(700)
    whole, part = (np.stack(confidence_sequence(v, (0, 1))) for v in (values, values[:520]))
    np.testing.assert_allclose(part, whole[:, :520], rtol=0, atol=1e-12)  # sums of float64 in chunks


def test_the_range_only_scales():
    values = np.random.default_rng(5).random(50)
    unit, wide = confidence_sequence(values, (0, 1)), confidence_sequence(4 * values - 2, (-2, 2))
    for one, other in zip(unit, wide, strict=True):
        np.testing.assert_allclose(other, 4 * one - 2, rtol=0, atol=4.1 / 1000)  # a step of the candidates: rounding


def test_a_clear_pass_needs_a_few_dozen_images():
    """AF of mean .45 and standard deviation .2 against a bound of .3."""
    random = np.random.default_rng(11)
    mean, spread = (0.45 + 1) / 2, 0.2 / 2
    size = mean * (1 - mean) / spread**2 - 1
    counts = []
    for _ in range(60):
        low, high = confidence_sequence(2 * random.beta(mean * size, (1 - mean) * size, 300) - 1, (-1, 1), 0.95)
        assert not (high < 0.3).any()
        counts.append(np.flatnonzero(low >= 0.3)[0] + 1)
    assert np.median(counts) < 50  # found: 40
    assert max(counts) < 150


@pytest.mark.parametrize(
    ("values", "bounds", "confidence", "text"),
    [
        ([0.5], (0, np.inf), 0.95, "bounds must be two finite numbers"),
        ([0.5], (1, 0), 0.95, "bounds must be two finite numbers"),
        ([0.5, 1.5], (0, 1), 0.95, r"values from 0.5 to 1.5 do not lie within \(0, 1\)"),
        ([0.5], (0, 1), 95, "confidence must lie between 0 and 1, not 95"),
    ],
)
def test_bad_input(values, bounds, confidence, text):
    with pytest.raises(ValueError, match=text):
        confidence_sequence(np.array(values), bounds, confidence)
