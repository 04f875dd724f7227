"""A run beside its baseline: known answers, chance, and what is never compared in silence."""

import copy
import json
import math

import numpy as np
import pytest
import torch

import xai_assert as xa
from xai_assert.errors import DataError
from xai_assert.reporting.baseline import assert_no_regression, compare
from xai_assert.verdicts import holm, sign_flips

VERSIONS = {"python": "3.11", "torch": "2.15", "xai_assert": "0.1.0"}
BEFORE = [k / 32 for k in range(16)]  # of eighths and the like sums are exact


def cell(values=BEFORE, *, method="saliency", perturbation="gaussian_noise", metric="af", better=True, **about):
    """A record as the suites write it."""
    about = {
        "model": "net", "method": method, "perturbation": perturbation, "fraction": 0.05, "seed": 0, "device": "cpu",
        "reference": "prediction", "aggregate": "image", "fingerprint": "abc", "versions": VERSIONS, **about,
    }  # fmt: skip
    score = {
        "values": list(values), "image_ids": [f"{i}.png" for i in range(len(values))], "unit": None,
        "higher_is_better": better, "provenance": about,
    }  # fmt: skip
    record = {name: about[name] for name in ("model", "method", "perturbation", "fraction", "seed")}
    name = f"net+{method}+{perturbation}"
    return record | {
        "cell": name, "of_run": False, "data": "photos", "verdict": "pass", "error": None, "scores": {metric: score},
    }  # fmt: skip


def results(*cells, **more):
    return {"schema": 1, "complete": True, "versions": VERSIONS, "cells": list(cells), **more}


def shifted(by, **about):
    return cell([value - by for value in BEFORE], **about)


def only(comparison):
    (row,) = comparison.rows
    return row


def test_a_constant_drop_on_paper():
    """Of 2^16 sign patterns one has a mean as large."""
    row = only(compare(results(shifted(0.25)), results(cell())))
    assert (row.outcome, row.drop, row.interval, row.n) == ("regressed", 0.25, (0.25, 0.25), 16)
    assert row.p == row.adjusted == 2**-16
    assert row.before - row.after == 0.25


def test_images_are_paired_by_id():
    """In another order nothing fell, and the images that fell most are named with their own values."""
    turned = cell()
    for name in ("values", "image_ids"):
        turned["scores"]["af"][name].reverse()
    row = only(compare(results(turned), results(cell())))
    assert (row.outcome, row.drop, row.p) == ("ok", 0, 1)
    fell = cell([*BEFORE[:3], BEFORE[3] - 0.5, *BEFORE[4:]])
    assert only(compare(results(fell), results(cell()))).worst[0] == ("3.png", BEFORE[3], BEFORE[3] - 0.5)


def test_where_lower_is_better_a_rise_is_a_drop():
    worse, better = (compare(results(shifted(by, better=False)), results(cell(better=False))) for by in (-0.25, 0.25))
    assert (only(worse).outcome, only(worse).drop) == ("regressed", 0.25)
    assert (only(better).outcome, only(better).drop, only(better).p) == ("ok", -0.25, 1)


def test_two_scores_are_compared():
    before, after = (xa.Score(torch.tensor(BEFORE) - by, tuple(range(16)), "mine") for by in (0, 0.25))
    assert only(compare(after, before)).outcome == "regressed"
    assert not assert_no_regression(before, after).red
    other = xa.Score(torch.tensor(BEFORE), tuple(range(16)), "other")
    assert only(compare(other, before)).because == "other metric (mine, now other)"
    with pytest.raises(TypeError, match="two scores or two results, not Score and dict"):
        compare(before, {})


def test_holm_by_hand():
    """.01 x 3, then .02 x 2, then .04: the last is no smaller than the one before it."""
    assert holm(np.array([0.04, 0.01, 0.02])).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.9, 0.6])).tolist() == [1, 1]
    assert holm(np.array([0.03, 0.02])).tolist() == pytest.approx([0.04, 0.04])  # 0.03 x 1 < 0.02 x 2


def test_holm_over_the_cells_of_a_run():
    """Two cells at 2^-16 and one that did not change: 3 x, 2 x (raised to the first), 1 x."""
    cells = [shifted(0.25), shifted(0.25, method="mine"), cell(method="third")]
    rows = compare(results(*cells), results(cell(), cell(method="mine"), cell(method="third"))).rows
    assert [row.adjusted for row in rows] == [3 * 2**-16, 3 * 2**-16, 1]


def test_the_p_of_a_cell_does_not_depend_on_the_others():
    """Beyond 16 values signs are drawn: the same ones for a cell alone and among others."""
    values = np.random.default_rng(0).normal(0.1, 1, (6, 20))
    assert sign_flips(values).tolist() == [float(sign_flips(row)) for row in values]


def test_no_false_alarm_and_power():
    """300 runs of 20 cells on 9 images in which nothing changed, and each again with a drop planted in one cell.

    At a true rate of at most 5 %, 300 runs have more than 24 false alarms with probability .009 (binomial). The planted
    drop is 6 standard deviations of a difference: all 9 images fall, which is p = 20 / 2^9 = .039.
    """
    random = np.random.default_rng(0)
    names = [f"m{number}" for number in range(20)]
    alarms = found = 0
    for _ in range(300):
        before = random.uniform(0, 1, (20, 9))
        after = before + random.normal(0, 0.1, before.shape)
        then = results(*(cell(row.tolist(), method=name) for name, row in zip(names, before, strict=True)))
        after_planted = after.copy()
        after_planted[7] = before[7] - 0.3 + random.normal(0, 0.05, 9)
        for values, planted in ((after, False), (after_planted, True)):
            now = results(*(cell(row.tolist(), method=name) for name, row in zip(names, values, strict=True)))
            red = [row.cell for row in compare(now, then, margin=0).rows if row.outcome == "regressed"]
            alarms += bool(red) and not planted
            found += planted and "net+m7+gaussian_noise" in red
    assert alarms <= 24
    assert found == 300


def test_without_holm_there_would_be_false_alarms():
    """The runs above do hold what the correction is for: at 5 % a cell, 1 - .95^20 = 64 % of runs have an alarm."""
    random = np.random.default_rng(0)
    p = np.stack([sign_flips(random.normal(0, 0.1, (20, 9))) for _ in range(100)])
    assert (p.min(1) <= 0.05).mean() > 0.4  # 64 % with a standard error of 5 %; of the exact p, a little less
    assert np.mean([holm(row).min() <= 0.05 for row in p]) < 0.15


def test_both_chance_and_margin_must_be_exceeded():
    small = only(compare(results(shifted(1 / 32)), results(cell())))
    assert (small.outcome, small.adjusted, small.drop) == ("ok", 2**-16, 1 / 32)
    spread = [value - (2 if number == 3 else 0) for number, value in enumerate(BEFORE)]
    chance = only(compare(results(cell(spread)), results(cell())))
    assert (chance.outcome, chance.adjusted, chance.drop) == ("ok", 0.5, 2 / 16)
    assert only(compare(results(shifted(1 / 32)), results(cell()), margin=0.03)).outcome == "regressed"
    assert only(compare(results(shifted(1 / 32)), results(cell()), margin=1 / 32)).outcome == "ok"


@pytest.mark.parametrize(
    ("now", "because"),
    [
        (cell(BEFORE[:12]), "other images (4 of the baseline's 16 are missing, 0 are new)"),
        (cell() | {"data": "others"}, "other data (photos, now others)"),
        (cell(seed=1), "other seed (0, now 1)"),
        (cell(reference="ground_truth"), "other reference (prediction, now ground_truth)"),
        (cell(aggregate="set"), "other aggregate (image, now set)"),
        (cell(fraction=0.1), "other fraction (0.05, now 0.1)"),
        (
            cell(perturbation="gaussian_noise(sigma=0.4)"),
            "other perturbation (gaussian_noise, now gaussian_noise(sigma=0.4))",
        ),
        (cell(method="saliency(k=1)"), "other method (saliency, now saliency(k=1))"),
        (cell(versions=VERSIONS | {"xai_assert": "0.2.0"}), "other version of xai_assert (0.1.0, now 0.2.0)"),
        (cell(groups=8), "other number of groups (None, now 8)"),
        (cell(better=False), "other higher_is_better (True, now False)"),
    ],
)
def test_what_is_not_comparable_is_red_and_says_why(now, because):
    found = compare(results(now), results(cell()))
    row = found.rows[0]
    assert (row.outcome, row.because) == ("not comparable", because)
    assert found.red
    with pytest.raises(AssertionError, match=r"^1 of 1 cells not comparable against the baseline: net"):
        assert_no_regression(results(now), results(cell()))


def test_one_cell_of_two_tests_with_different_numbers_is_not_comparable():
    assert only(compare(results(cell(), cell()), results(cell()))).outcome == "ok"
    row = only(compare(results(cell(), shifted(0.5)), results(cell())))
    assert (row.outcome, row.because) == ("not comparable", "measured twice, with different numbers")


def test_differences_that_do_not_forbid_are_said():
    now = cell(fingerprint="def", versions=VERSIONS | {"torch": "2.16"}, device="cuda:0")
    found = compare(results(now), results(cell()))
    assert not found.red
    assert found.notes == ("net: other weights (abc, now def)", "torch 2.15, now 2.16", "device cpu, now cuda")
    assert compare(results(cell()), results(cell())).notes == ("net: the same weights (abc)",)


def test_a_cell_that_vanished_is_red_unless_the_run_was_narrowed():
    then = results(cell(), cell(method="mine"))
    found = compare(results(cell()), then)
    assert [row.outcome for row in found.rows] == ["ok", "missing"]
    assert found.rows[1].because == "no such cell in this run"
    assert found.red
    narrowed = compare(results(cell()), then, excused=[("net+mine+gaussian_noise", 0.05)])
    assert not narrowed.red
    assert "  net+mine+gaussian_noise 5% AF missing: no such cell in this run" in narrowed.lines()


def test_a_cell_that_ended_in_an_error_says_so():
    broken = cell() | {"scores": {}, "verdict": "error", "error": "ValueError: NaN\nmore"}
    found = compare(results(broken), results(cell()))
    assert (only(found).outcome, only(found).because) == ("missing", "error: ValueError: NaN")
    assert found.red


def test_a_new_cell_is_told_and_green():
    found = compare(results(cell(), cell(method="mine")), results(cell()))
    assert [row.outcome for row in found.rows] == ["ok", "new"]
    assert not found.red
    assert any(line.startswith("  net+mine+gaussian_noise 5% AF new") for line in found.lines())


@pytest.mark.parametrize(
    ("cells", "images", "because"),
    [
        (1, 1, "cannot be decided with 1 image among 1 score; 5 would do"),
        (1, 4, "cannot be decided with 4 images among 1 score; 5 would do"),
        (20, 8, "cannot be decided with 8 images among 20 scores; 9 would do"),
    ],
)
def test_too_few_images_are_never_green(cells, images, because):
    """2^-5 = .031 is the first under .05, 20 x 2^-9 = .039 too; also where nothing fell."""
    names = [f"m{number}" for number in range(cells)]
    run = results(*(cell(BEFORE[:images], method=name) for name in names))
    found = compare(run, run)
    assert {(row.outcome, row.because) for row in found.rows} == {("undecided", because)}
    assert found.red
    enough = results(*(cell(BEFORE[: 9 if cells > 1 else 5], method=name) for name in names))
    assert not compare(enough, enough).red


def test_a_confidence_that_no_number_of_images_reaches():
    found = compare(results(cell()), results(cell()), confidence=1 - 1e-6)
    assert only(found).because.endswith("no number of images would do")


def test_controls_gates_on_the_run_and_single_numbers_are_left_out():
    whole = cell([1.0], metric="passes")
    whole["scores"]["passes"]["image_ids"] = ["all images"]
    others = [cell(method="random"), cell(method="edges"), cell() | {"of_run": True}, whole, cell(metric="finite")]
    worse = [copy.deepcopy(record) for record in others]
    for record in worse:
        for score in record["scores"].values():
            score["values"] = [value - 1 for value in score["values"]]
    assert [row.metric for row in compare(results(cell(), *worse), results(cell(), *others)).rows] == ["af"]


def test_nothing_to_compare_is_red():
    run = results(cell(method="random"))
    assert compare(run, run, excused=[("net+saliency+gaussian_noise", 0.05)]).red
    with pytest.raises(AssertionError, match=r"^nothing to compare with the baseline: this run and it share no score"):
        assert_no_regression(run, run)


def test_the_text_of_a_failure(tmp_path):
    accepted = tmp_path / "baseline.json"
    cells = [cell(method=f"m{number}") for number in range(12)]
    accepted.write_text(json.dumps(results(*cells)))
    worse = [shifted(0.25, method="m0"), shifted(0.5, method="m1"), *cells[2:-1]]
    with pytest.raises(AssertionError) as caught:
        assert_no_regression(results(*worse), accepted)
    text = str(caught.value).splitlines()
    assert text[0] == (
        f"2 of 12 cells regressed against {accepted}: net+m1+gaussian_noise 5% AF 0.23 -> -0.27 "
        "(drop 0.50 [0.50, 0.50], p=0.00017 after Holm, margin 0.05)"  # 11 x 2^-16
    )
    assert text[1].startswith("  also: net+m0+gaussian_noise 5% AF 0.23 -> -0.02 (drop 0.25")
    assert text[2] == "  also: net+m11+gaussian_noise 5% AF missing: no such cell in this run"
    assert text[3] == "  images that fell most: 0.png 0.000 -> -0.500, 1.png 0.031 -> -0.469, 2.png 0.062 -> -0.438"
    assert text[4] == "  net: the same weights (abc)"
    assert (
        text[5] == f"  to accept the new state, copy the new results over {accepted}, in a commit that a person reviews"
    )
    assert [row.outcome for row in caught.value.comparison.bad] == ["regressed", "regressed", "missing"]


def test_however_many_are_red_the_text_stays_short():
    then = [cell(method=f"m{number}") for number in range(40)]
    now = [shifted(0.25, method=f"m{number}") for number in range(40)]
    with pytest.raises(AssertionError) as caught:
        assert_no_regression(results(*now), results(*then))
    assert len(str(caught.value).splitlines()) <= 9
    assert "  and 36 more" in str(caught.value).splitlines()
    lines = compare(results(*now), results(*then)).lines()
    assert lines[0] == "baseline the baseline: 40 regressed (margin 0.05, confidence 0.95)"
    assert "  and 20 more: see results.json" in lines


def test_records_are_plain_and_found_by_their_cell():
    found = compare(results(shifted(0.25), cell(method="mine")), results(cell(), cell(method="mine")))
    plain = json.loads(json.dumps(found.records(), allow_nan=False))
    assert list(plain) == ["net+saliency+gaussian_noise 5% AF", "net+mine+gaussian_noise 5% AF"]
    first = plain["net+saliency+gaussian_noise 5% AF"]
    assert (first["outcome"], first["red"], first["interval"], first["margin"]) == (
        "regressed",
        True,
        [0.25, 0.25],
        0.05,
    )
    assert found.of(cell()) == {"af": first}
    assert found.of(cell() | {"of_run": True}) == found.of(cell(method="random")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 1, "cel', r"base\.json is no JSON"),
        (json.dumps(results(schema=2)), r"base\.json: not a results.json of schema 1 but 2"),
        ("[]", r"base\.json: not a results.json of schema 1"),
        (
            json.dumps(results(cell(), complete=False)),
            r"base\.json is of an interrupted run; a baseline must be a comp",
        ),
        (json.dumps(results({"cell": "x"})), r"base\.json: an entry lacks 'of_run'; run the suites again"),
        (
            json.dumps(results(cell([math.nan] * 16))),
            r"base\.json: not as the suites write them \(score 'af' is not fin",
        ),
    ],
)
def test_a_baseline_that_cannot_be_read_is_refused(tmp_path, text, said):
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(DataError, match=said):
        compare(results(cell()), tmp_path / "base.json")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"results .*none\.json: No such file"):
        compare(results(cell()), tmp_path / "none.json")
    with pytest.raises(DataError, match=r"results of this run: not a results.json of schema 1"):
        compare({}, results(cell()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": -0.1}, "margin must be a number of at least 0, not -0.1"),
        ({"margin": math.nan}, "margin must be a number of at least 0, not nan"),
        ({"confidence": 95}, "confidence must be at least 0.5 and below 1, not 95"),
    ],
)
def test_rules_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        compare(results(cell()), results(cell()), **options)


def test_what_a_run_really_writes_can_be_compared():
    """Records made of real scores, through JSON, beside the same ones with a planted drop."""
    from known_models import Pixelwise, draw

    from xai_assert.reporting.record import make_record
    from xai_assert.reporting.results import document

    network = xa.describe(Pixelwise(draw(3, 8, 8)), name="net", task="depth")
    evaluation = xa.Evaluation(network, draw(12, 3, 8, 8))
    scores = {
        "af": xa.attribution_fidelity(evaluation, "saliency"),
        "fe": xa.faithfulness_estimate(evaluation, "saliency"),
    }
    about = {"cell": "net+saliency+gaussian_noise", "of_run": False, "fraction": 0.05, "data": "drawn"}
    now = document([make_record(scores, [], "pass", **about)], complete=True, options={})
    then = json.loads(json.dumps(now))
    assert [(row.metric, row.outcome, row.drop) for row in compare(now, then).rows] == [
        ("af", "ok", 0),
        ("fe", "ok", 0),
    ]
    then["cells"][0]["scores"]["fe"]["values"] = [value + 0.25 for value in scores["fe"].values.tolist()]
    assert [row.outcome for row in compare(now, then).rows] == ["ok", "regressed"]
