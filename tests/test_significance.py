"""Random signs against all patterns written out, and Holm's correction against its definition."""

import itertools

import numpy as np
import pytest
from scipy import stats

from xai_assert.significance import holm, images_needed, sign_flips, smallest_p


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_every_pattern_is_tried(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    sums = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=count)]
    assert sign_flips(values) == np.mean(np.array(sums) >= values.sum() - 1e-12)


def test_equal_sums_count_as_good_though_they_differ_by_rounding():
    assert sign_flips(np.array([0.1, 0.2, -0.3, 0.1, 0.2])) == np.mean(
        [np.dot(signs, [1, 2, -3, 1, 2]) >= 3 for signs in itertools.product((1, -1), repeat=5)]
    )


def test_many_values_agree_with_the_t_test():
    values = np.random.default_rng(0).normal(0.1, 1, 300)
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert sign_flips(values) == pytest.approx(expected, abs=4e-3)  # 2^16 draws: 3 standard errors


def test_a_clear_difference_has_the_smallest_p():
    for count in (5, 16, 400):
        assert sign_flips(np.full(count, 0.1)) == smallest_p(count)


def test_rows_are_tested_each_alone():
    values = np.random.default_rng(0).normal(0.1, 1, (3, 2, 20))
    assert sign_flips(values).tolist() == [[float(sign_flips(row)) for row in rows] for rows in values]


def test_holm_is_step_down():
    """.01 x 3, then max with .02 x 2, then max with .04 x 1."""
    assert holm(np.array([0.04, 0.01, 0.02])).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([])).tolist() == []
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("tests", "alpha", "needed"), [(1, 0.05, 5), (1, 0.5, 1), (40, 0.05, 10), (10**6, 0.05, None)])
def test_the_images_needed_are_the_fewest_with_which_a_test_can_pass(tests, alpha, needed):
    assert images_needed(tests, alpha) == needed
    if needed:
        assert tests * smallest_p(needed) <= alpha
        assert needed == 1 or tests * smallest_p(needed - 1) > alpha
