"""Depth metrics against answers known on paper."""

import math

import pytest
import torch

from xai_assert.metrics.depth import (
    PROTOCOLS,
    DepthProtocol,
    DepthScore,
    as_protocol,
    depth_errors,
    valid_pixels,
)

NAMES = ["rmse", "abs_rel", "log10", "d1", "d2", "d3"]


def errors(prediction, truth, valid=None):
    prediction, truth = (torch.tensor(values)[None, None] for values in (prediction, truth))
    valid = torch.ones_like(truth, dtype=torch.bool) if valid is None else torch.tensor(valid)[None, None]
    found = depth_errors(prediction, truth, valid)
    assert list(found) == NAMES
    return {name: value.item() for name, value in found.items()}


def test_each_on_paper():
    # Factors 1, 1.2, 1.5, 1.9 and 4 (below): one pixel more within 1.25, 1.5625 and 1.953 each.
    truth = [1.0, 5.0, 2.0, 10.0, 8.0]
    found = errors([1.0, 6.0, 3.0, 19.0, 2.0], truth)
    assert found["rmse"] == pytest.approx(math.sqrt((0 + 1 + 1 + 81 + 36) / 5))
    assert found["abs_rel"] == pytest.approx((0 + 0.2 + 0.5 + 0.9 + 0.75) / 5)
    assert found["log10"] == pytest.approx(sum(map(math.log10, (1, 1.2, 1.5, 1.9, 4))) / 5)
    assert [found[f"d{k}"] for k in (1, 2, 3)] == pytest.approx([2 / 5, 3 / 5, 4 / 5])


def test_a_perfect_prediction():
    assert errors([2.0, 3.0], [2.0, 3.0]) == dict(zip(NAMES, [0, 0, 0, 1, 1, 1], strict=True))


def test_the_factor_is_exclusive():
    """1.25 and 1.25^2 are exact in binary."""
    assert errors([1.25], [1.0])["d1"] == 0
    assert errors([1.0], [1.25])["d1"] == 0
    assert errors([1.5625], [1.0])["d2"] == 0
    assert errors([1.5624], [1.0])["d2"] == 1


def test_the_unit_moves_the_rmse_alone():
    metres, centimetres = errors([1.0, 4.0], [1.5, 3.0]), errors([100.0, 400.0], [150.0, 300.0])
    assert centimetres.pop("rmse") == pytest.approx(100 * metres.pop("rmse"))
    assert centimetres == pytest.approx(metres)


@pytest.mark.parametrize("prediction", [-3.0, 0.0, 1e-9])
def test_a_prediction_that_is_no_depth_is_far_off(prediction):
    """A ratio of -1.1 or 0 is below 1.25, and its logarithm is NaN: taken plainly, these would be the best pixels."""
    found = errors([prediction], [3.0])
    assert [found[f"d{k}"] for k in (1, 2, 3)] == [0, 0, 0]
    assert found["log10"] == pytest.approx(3)
    assert found["rmse"] == pytest.approx(3.0 - prediction)


@pytest.mark.parametrize("unknown", [0.0, -1.0, math.nan, math.inf, 4.0])
def test_pixels_that_do_not_count(unknown):
    assert errors([1.0, 99.0], [1.5, unknown], [True, False]) == errors([1.0], [1.5])


def test_maps_are_apart():
    truth = torch.full((2, 3, 4), 2.0)
    prediction = torch.stack([truth[0], truth[1] + 1])
    found = depth_errors(prediction, truth, truth > 0)
    assert found["rmse"].tolist() == [0, 1]
    assert {value.dtype for value in found.values()} == {torch.float64}


def test_what_cannot_be_compared():
    maps = torch.ones(2, 3, 4)
    with pytest.raises(
        ValueError, match=r"must be \(B, H, W\) of one shape, not \(2, 3, 4\), \(2, 3, 3\), \(2, 3, 4\)"
    ):
        depth_errors(maps, maps[..., 1:], maps > 0)
    with pytest.raises(ValueError, match=r"must be \(B, H, W\) of one shape"):
        depth_errors(maps[0], maps[0], maps[0] > 0)
    valid = maps > 0
    valid[1] = False
    with pytest.raises(ValueError, match="no valid pixel in 1 of 2 depth maps"):
        depth_errors(maps, maps, valid)


def test_bounds_are_exclusive():
    truth = torch.tensor([[0.0, 0.5, 1.0, 9.0, 10.0, math.nan, math.inf, -1.0]])
    assert valid_pixels(truth).tolist() == [[False, True, True, True, True, False, False, False]]
    assert valid_pixels(truth, min_depth=0.5, max_depth=10).tolist() == [[False, False, True, True] + 4 * [False]]


def box(mask):
    """First and last row and column of what must be a full rectangle."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert mask.sum() == len(rows) * len(columns)
    return rows[0].item(), rows[-1].item(), columns[0].item(), columns[-1].item()


def test_the_eigen_crop():
    assert box(valid_pixels(torch.ones(480, 640), crop="eigen")) == (45, 470, 41, 600)
    with pytest.raises(ValueError, match="the Eigen crop is one of 480x640 pixels; the ground truth has 48x64"):
        valid_pixels(torch.ones(48, 64), crop="eigen")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 1242), (153, 370, 44, 1196)),  # 375 * .40810811 = 153.04, 375 * .99189189 = 371.96
        ((352, 1216), (143, 348, 43, 1171)),  # the benchmark's crop
        ((370, 1226), (151, 365, 44, 1180)),  # 370 * .40810811 = 151.0000007, 370 * .99189189 = 366.9999993
    ],
)
def test_the_garg_crop(size, expected):
    assert box(valid_pixels(torch.ones(size), crop="garg")) == expected


def test_the_pooled_score_weighs_by_pixels():
    """As if the images lay side by side."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 1, 3, width, generator=generator) + 0.5 for width in (4, 9)]
    each = [depth_errors(p, t, t > 0) for p, t in maps]
    together = depth_errors(
        torch.cat([m[0] for m in maps], -1), torch.cat([m[1] for m in maps], -1), torch.ones(1, 3, 13) > 0
    )
    for name in NAMES:
        values = torch.cat([found[name] for found in each])
        score = DepthScore(values, ("a", "b"), name, pixels=torch.tensor([12, 27]))
        assert score.pooled == pytest.approx(together[name].item())
        assert score.value == pytest.approx(values.mean().item())
        assert score.to_dict()["pooled"] == score.pooled


def test_protocols_by_name():
    assert as_protocol("eigen") is PROTOCOLS["eigen"]
    mine = DepthProtocol(max_depth=50)
    assert as_protocol(mine) is mine
    with pytest.raises(
        ValueError, match=r"unknown protocol 'eigin'; did you mean 'eigen'\? known: eigen, full, garg, out"
    ):
        as_protocol("eigin")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crop": "kb"}, "crop must be 'eigen', 'garg' or None, not 'kb'"),
        ({"min_depth": -1}, "min_depth must not be negative and be below max_depth, not -1 and None"),
        ({"min_depth": 10, "max_depth": 10}, "not 10 and 10"),
        ({"max_depth": 0}, "not None and 0"),
    ],
)
def test_protocols_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        DepthProtocol(**options)
