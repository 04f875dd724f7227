"""AF and ASR from given errors: every number here is worked out by hand."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import xai_assert as xa
from xai_assert.metrics.fidelity import fidelity, sign_agreement
from xai_assert.metrics.prepared import floor_of

ERRORS = st.floats(0, 1e30)


def measured(relevant, irrelevant, *, clean=None, truth=None, floor=0.01, spread=10.0, change=(1.0, 1.0)):
    """What the evaluation hands to the score: errors of R and I against the prediction and against the truth."""
    count = len(relevant)
    columns = {"relevant_error": relevant, "irrelevant_error": irrelevant, "floor": [floor] * count}
    columns |= {"spread": [spread] * count}
    columns |= {"relevant_change": [change[0]] * count, "irrelevant_change": [change[1]] * count}
    if truth is not None:
        columns |= {"relevant_truth_error": truth[0], "irrelevant_truth_error": truth[1], "clean_error": clean}
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}


def build(columns, **options):
    defaults = {"reference": "prediction", "aggregate": "image", "asr": "relevant", "unit": "m", "circular": False}
    ids = tuple("abcdefghijklmnop"[: len(columns["floor"])])
    return xa.FidelityScore.build(columns, ids, **(defaults | options), provenance={})


@given(ERRORS, ERRORS)
def test_fidelity_is_bounded_odd_and_zero_at_zero(rel, irr):
    rel, irr = torch.tensor([rel]).double(), torch.tensor([irr]).double()
    value = fidelity(rel, irr)
    assert -1 <= value <= 1
    assert torch.equal(value, -fidelity(irr, rel))
    assert (value == 0) == (rel == irr)


def test_af_asr_and_their_makings():
    score = build(measured([3.0, 1.0, 2.0], [1.0, 3.0, 0.0]))
    assert score.values.tolist() == [0.5, -0.5, 1.0]
    assert score.mean == score.value == pytest.approx(1 / 3, rel=1e-15)
    assert score.asr == pytest.approx(2 / 3, rel=1e-15)
    assert (score.metric, score.unit_of_error, score.unit, score.higher_is_better) == ("af", "m", None, True)
    assert score.relevant_error.tolist() == [3.0, 1.0, 2.0]


def test_the_errors_of_both_ends_are_compared_in_pairs():
    """rel - irr is 2, -2, 2, 1: of 16 sign patterns, those sums are at least 3 that flip a sum of at most 0."""
    score = build(measured([3.0, 1.0, 2.0, 2.0], [1.0, 3.0, 0.0, 1.0]))
    # flipped: {}, {-2}, {2, -2} twice, {-2, 1}
    assert score.paired_p == 5 / 16
    assert score.to_dict()["paired_p"] == 5 / 16
    assert build(measured([3.0] * 6, [1.0] * 6)).paired_p == 1 / 64
    assert build(measured([1.0] * 6, [1.0] * 6)).paired_p == 1


def test_set_aggregate_is_the_af_of_the_mean_errors():
    rel, irr = [3.0, 1.0, 2.0], [1.0, 3.0, 0.0]
    score = build(measured(rel, irr), aggregate="set")
    assert score.value == pytest.approx((6 - 4) / (6 + 4), rel=1e-15)  # means 2 and 4/3
    assert score.mean == pytest.approx(1 / 3, rel=1e-15)  # the images keep their own values


def test_interval_of_the_set_resamples_both_errors_together():
    # irr is a third of rel for every image, so AF of any resample is 1/2, however much the errors vary
    rel = [float(3**i) for i in range(12)]
    score = build(measured(rel, [r / 3 for r in rel]), aggregate="set")
    assert score.interval() == pytest.approx((0.5, 0.5), abs=1e-12)  # rounding of sums; apart they give .3 and more


def test_interval_of_the_set_holds_its_value():
    rel = torch.linspace(1, 4, 16).tolist()
    score = build(measured(rel, rel[::-1][:8] + rel[:8]), aggregate="set")
    low, high = score.interval()
    assert low < score.value < high
    assert (low, high) != build(measured(rel, rel[::-1][:8] + rel[:8])).interval()


def test_set_of_unresponsive_images_is_zero():
    score = build(measured([0.0] * 10, [0.0] * 10), aggregate="set")
    assert (score.value, score.interval(), score.unresponsive) == (0, (0, 0), 10)


def test_errors_under_the_floor_count_as_zero():
    score = build(measured([0.009, 0.009, 0.02], [0.001, 0.02, 0.001], floor=0.01))
    assert score.values.tolist() == [0, -1, 1]
    assert score.responsive.tolist() == [False, True, True]
    assert (score.unresponsive, score.asr) == (1, pytest.approx(1 / 3))
    assert score.marks == ["unresponsive 1/3"]


def test_ground_truth_takes_the_errors_against_it():
    columns = measured([1.0, 1.0], [2.0, 2.0], clean=[3.0, 3.0], truth=([5.0, 2.0], [3.0, 6.0]))
    score = build(columns, reference="ground_truth")
    assert score.values.tolist() == [0.25, -0.5]
    assert score.clean_error.tolist() == [3.0, 3.0]
    assert build(columns).values.tolist() == [-1 / 3, -1 / 3]  # the same cell, against the prediction


def test_ground_truth_counts_as_unresponsive_what_the_prediction_does_not_feel():
    # against the truth both errors are large, whatever was perturbed: the change of the prediction decides
    columns = measured([0.001, 1.0], [0.002, 0.0], clean=[5.0, 5.0], truth=([5.001, 6.0], [5.0, 5.0]), floor=0.01)
    score = build(columns, reference="ground_truth")
    assert score.values.tolist() == [0, 1 / 11]
    assert score.unresponsive == 1
    assert score.successes.tolist() == [0, 1]


def test_asr_degrades_compares_with_the_clean_error():
    columns = measured([1.0] * 3, [1.0] * 3, clean=[4.0] * 3, truth=([5.0, 3.0, 4.0], [9.0, 1.0, 4.0]))
    score = build(columns, reference="ground_truth", asr="degrades")
    assert score.successes.tolist() == [1, 0, 0]
    assert build(columns, reference="ground_truth").successes.tolist() == [0, 1, 0]


def test_asr_degrades_is_not_decided_by_rounding():
    # I moves the prediction, R does not: that its error is 1e-9 above the clean one is no success
    columns = measured([0.001], [1.0], clean=[4.0], truth=([4.000000001], [3.0]), floor=0.01)
    assert build(columns, reference="ground_truth", asr="degrades").asr == 0


def test_no_marks_where_all_is_well():
    assert build(measured([1.0, 2.0], [1.0, 1.0])).marks == []


@pytest.mark.parametrize(("change", "marked"), [((0.3, 0.2), False), ((0.31, 0.2), True), ((0.2, 0.31), True)])
def test_mark_of_unequal_change(change, marked):
    score = build(measured([1.0], [1.0], change=change))
    assert score.unequal_change == marked
    words = f"unequal change ({change[0]:.2f} / {change[1]:.2f})"
    assert score.marks == ([words] if marked else [])


@pytest.mark.parametrize(("irr", "marked"), [([4.0, 5.0], False), ([6.0, 5.0], True)])
def test_mark_of_saturation(irr, marked):
    score = build(measured([9.0, 9.0], irr, spread=10.0))  # half the spread is 5
    assert score.saturated == marked
    assert score.marks == (["saturated"] if marked else [])


def test_mark_of_circularity():
    columns = measured([1.0, 1.0], [1.0, 1.0]) | {"sign_agreement": torch.tensor([0.5, 1.0]).double()}
    score = build(columns, circular=True)
    assert score.sign_agreement == 0.75
    assert score.marks == ["circular (signs agree 75%)"]
    assert build(measured([1.0], [1.0])).sign_agreement is None


def test_sign_agreement():
    step = torch.tensor([[[1.0, -1.0, 1.0, 0.0]]])[:, None]  # one pixel does not move
    attribution = torch.tensor([[[2.0, 3.0, 0.0, 1.0]]])[:, None]  # one has no opinion
    assert sign_agreement(attribution, step).tolist() == [0.5]  # of the two that count, one agrees
    assert sign_agreement(attribution[:, 0], step).tolist() == [0.5]  # a map without channels
    assert sign_agreement(torch.zeros_like(step), step).tolist() == [0.5]  # nothing to compare


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float32, 1e-5), (torch.float64, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 1e-2)],
    ids=str,
)
def test_floor(dtype, share):
    assert floor_of(dtype) == share
    assert torch.finfo(dtype).eps < share  # it lies above rounding


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "truth"}, "reference must be one of 'prediction', 'ground_truth', not 'truth'"),
        ({"aggregate": "mean"}, "aggregate must be one of 'image', 'set', not 'mean'"),
        ({"asr": "any"}, "asr must be one of 'relevant', 'degrades', not 'any'"),
        ({"asr": "degrades"}, "asr='degrades' compares with the clean error, so it needs reference='ground_truth'"),
        ({"reference": "ground_truth"}, "reference='ground_truth' needs ground_truth=, or a data set that has it"),
    ],
)
def test_rules_that_do_not_exist_or_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        build(measured([1.0], [1.0]), **options)


def test_to_dict_is_json_and_carries_everything():
    columns = measured([1.0] * 10, [3.0] * 10, clean=[4.0] * 10, truth=([5.0] * 10, [4.5] * 10))
    score = build(columns, reference="ground_truth", asr="degrades")
    found = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert (found["reference"], found["aggregate"], found["asr_rule"], found["asr"]) == (
        "ground_truth",
        "image",
        "degrades",
        1.0,
    )
    assert found["relevant_error"] == [5.0] * 10
    assert found["details"]["relevant_error"] == [1.0] * 10
    assert found["marks"] == []
