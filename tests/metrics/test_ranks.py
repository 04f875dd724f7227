"""Ranks and their correlation, against SciPy and against cases on paper."""

import pytest
import scipy.stats
import torch
from known_models import draw

from xai_assert.metrics.ranks import ranks, spearman


def test_equal_values_share_the_average_of_their_ranks():
    rows = torch.tensor([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert ranks(rows).tolist() == [[3.5, 1.0, 3.5, 2.0], [2.5, 2.5, 2.5, 2.5]]


def test_the_case_on_paper():
    # ranks 1 2 3 4 against 2 1 4 3: differences -1 1 -1 1, so 1 - 6 * 4 / (4 * 15) = 0.6
    a, b = torch.tensor([[10.0, 20.0, 30.0, 40.0]]), torch.tensor([[0.2, 0.1, 0.9, 0.5]])
    assert spearman(a, b).tolist() == [0.6]


@pytest.mark.parametrize("decimals", [0, 6], ids=["with ties", "without"])
def test_it_is_scipys_row_by_row(decimals):
    a, b = draw(5, 40).round(decimals=decimals), draw(5, 40, seed=1).round(decimals=decimals)
    expected = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert spearman(a, b).tolist() == pytest.approx(expected, abs=1e-12)  # the same sums in another order


@pytest.mark.parametrize("n", [2, 7, 64 * 64])
def test_equal_rows_have_exactly_one_and_reversed_ones_minus_one(n):
    rows = draw(3, n).round(decimals=2)
    assert spearman(rows, rows.clone()).tolist() == [1.0] * 3
    assert spearman(rows, -rows).tolist() == [-1.0] * 3


def test_only_the_order_counts():
    a, b = draw(4, 30), draw(4, 30, seed=1)
    assert torch.equal(spearman(a, b), spearman(a.exp(), b**3))


def test_a_constant_row_correlates_with_nothing():
    a = torch.stack([torch.ones(6), draw(6)])
    assert spearman(a, draw(2, 6, seed=3))[0] == 0
    assert spearman(torch.ones(1, 6), torch.ones(1, 6)).tolist() == [0.0]


def test_nan_is_not_hidden():
    a = draw(2, 6)
    a[0, 3] = float("nan")
    assert spearman(a, draw(2, 6, seed=1)).isnan().tolist() == [True, False]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(B, n\), not \(2, 3\) and \(2, 4\)"):
        spearman(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\(B, n\)"):
        spearman(torch.zeros(3), torch.zeros(3))
