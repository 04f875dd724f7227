"""A score: its value, its interval, its worst images, and what it refuses."""

import json
import math

import numpy as np
import pytest
import torch
from known_models import draw
from scipy.stats import bootstrap

import xai_assert as xa


def score_of(values, **kwargs):
    values = torch.as_tensor(values, dtype=torch.float64)
    return xa.Score(values, tuple(f"image{i}" for i in range(len(values))), "mine", **kwargs)


def test_value_and_standard_error():
    score = score_of([1.0, 2.0, 3.0, 6.0])
    assert (len(score), score.mean, score.value) == (4, 3.0, 3.0)
    # deviations -2, -1, 0, 3: variance 14 / 3, so the mean's standard error is sqrt(14 / 3 / 4)
    assert score.standard_error == pytest.approx(math.sqrt(14 / 12), rel=1e-15)
    assert score_of([1.0]).standard_error == 0


def test_interval_of_normal_values_is_that_of_the_textbook():
    values = draw(400)
    score = score_of(values)
    low, high = score.interval(0.95)
    half = 1.959964 * float(values.double().std()) / 20
    # 9999 resamples leave about 1.5 % of the half width to chance at each end; the bias correction adds O(1/n)
    assert low == pytest.approx(score.mean - half, abs=0.05 * half)
    assert high == pytest.approx(score.mean + half, abs=0.05 * half)


def test_interval_is_corrected_for_bias_and_skew():
    values = draw(20).double().mul(1.5).exp()  # log-normal: a long tail to the right
    score, options = score_of(values), {"rng": np.random.default_rng(5), "n_resamples": 20_000}
    wanted, uncorrected = (
        bootstrap((values.numpy(),), np.mean, method=method, **options).confidence_interval
        for method in ("BCa", "percentile")
    )
    low, high = score.interval()
    # another 10^4 resamples move the lower end by about 0.01 and the upper by 0.1; the correction, by 0.3 and 0.5
    assert low == pytest.approx(wanted.low, abs=0.05)
    assert high == pytest.approx(wanted.high, abs=0.3)
    assert min(wanted.low - uncorrected.low, wanted.high - uncorrected.high) > 0.25


def test_interval_is_the_same_for_the_same_values_and_wider_for_more_confidence():
    score = score_of(draw(20))
    before = np.random.get_state()[1].copy()
    assert score.interval(0.9) == score_of(draw(20)).interval(0.9)
    assert (np.random.get_state()[1] == before).all()
    (low90, high90), (low99, high99) = score.interval(0.9), score.interval(0.99)
    assert low99 < low90 < score.mean < high90 < high99


def test_interval_of_equal_values_is_the_value():
    assert score_of([0.25] * 12).interval() == (0.25, 0.25)


@pytest.mark.parametrize(
    "values",
    [
        [0.3] * 19 + [0.3 + 1e-16],
        [0.3] * 19 + [0.3 + 1e-9],
        [1.0] * 50 + [0.0],
        [0.0] * 11 + [1e-300],
        [-1.0] * 6 + [1.0] * 6,
        list(range(10)),
    ],
    ids=["one ulp", "one in 1e9", "one of 51", "denormal", "two values", "ten values"],
)
def test_interval_of_nearly_constant_values_is_finite_and_silent(values):
    score = score_of(values)
    low, high = score.interval()  # a warning of SciPy's would be an error here (filterwarnings)
    slack = 1e-15  # of a mean of equal numbers, in rounding
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_interval_needs_ten_images():
    assert score_of(range(10)).interval()
    with pytest.raises(ValueError, match=r"an interval needs at least 10 images, the score of mine has 9"):
        score_of(range(9)).interval()


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95])
def test_confidence_out_of_range(confidence):
    with pytest.raises(ValueError, match=f"confidence must lie between 0 and 1, not {confidence}"):
        score_of(range(10)).interval(confidence)


def test_worst_images_come_first_and_equals_in_order():
    values = [0.5, 0.1, 0.9, 0.1]
    assert score_of(values).worst(3) == [("image1", 0.1), ("image3", 0.1), ("image0", 0.5)]
    assert score_of(values, higher_is_better=False).worst(2) == [("image2", 0.9), ("image0", 0.5)]
    assert len(score_of(values).worst(10)) == 4


def test_values_are_kept_apart_from_the_caller():
    values = torch.ones(2, requires_grad=True)
    score = xa.Score(values, ["a", "b"], "mine")
    assert (score.values.dtype, score.values.requires_grad, score.image_ids) == (torch.float64, False, ("a", "b"))
    assert values.requires_grad


def test_numbers_that_are_no_tensor():
    assert xa.Score([0.25, 0.75], ["a", "b"], "mine").mean == 0.5
    assert xa.Score(np.array([1, 2]), ["a", "b"], "mine").mean == 1.5


@pytest.mark.parametrize(
    ("values", "ids"),
    [(torch.ones(2, 2), ("a", "b")), (torch.ones(3), ("a", "b")), (torch.ones(0), ())],
    ids=["two dimensions", "other length", "empty"],
)
def test_values_that_are_not_one_number_an_image(values, ids):
    with pytest.raises(ValueError, match=rf"score 'mine': values .* must be one number for each of the {len(ids)}"):
        xa.Score(values, ids, "mine")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="score 'mine' is not finite for images image1"):
        score_of([0.5, bad, 0.5])


@pytest.mark.parametrize("count", [9, 12])
def test_to_dict_is_json(count):
    score = score_of(draw(count), unit="m", provenance={"seed": 0})
    found = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert found["values"] == score.values.tolist()
    assert found["image_ids"] == list(score.image_ids)
    assert (found["n"], found["value"], found["unit"]) == (count, score.value, "m")
    assert found["interval95"] == (None if count < 10 else list(score.interval(0.95)))


def test_to_dict_with_the_ids_of_an_array():
    score = xa.Score(torch.ones(2), tuple(np.arange(2)), "mine")
    assert json.loads(json.dumps(score.to_dict()))["image_ids"] == ["0", "1"]
    assert xa.Score(torch.ones(2), (0, 1), "mine").to_dict()["image_ids"] == [0, 1]


def test_repr_says_what_and_how_much():
    assert repr(score_of([0.25, 0.5])) == "<Score mine 0.375 over 2 images>"
