"""gates.toml: what a gate matches, its waiver, and every way to write it wrong."""

import datetime

import pytest
import torch

import xai_assert as xa
from xai_assert import resources
from xai_assert.gates import CellName, Gate, check_gates_match, judge_gate, read_gates, worst
from xai_assert.verdicts import Bound

CELL = CellName("meter-xxs-nyu", "saliency", "gaussian_noise(sigma=0.4)", 0.05)


def gates(tmp_path, text):
    path = tmp_path / "gates.toml"
    path.write_text(text)
    return read_gates(path)


def test_every_key_is_read(tmp_path):
    (gate,) = gates(
        tmp_path,
        """
        [[gate]]
        metric = "af"
        model = "meter-*"
        method = "saliency"
        perturbation = "gaussian_noise*"
        fraction = 0.05
        min = 0.30
        max = 0.9
        confidence = 0.95
        beats = "random"
        reason = "calibrated"
        expect = "fail"
        until = "2027-06-30"
        """,
    )
    assert gate.bound == Bound(0.30, 0.9, 0.95, "random")
    assert (gate.expect, gate.until, gate.reason) == ("fail", datetime.date(2027, 6, 30), "calibrated")
    assert gate.matches(CELL)


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [
        ({}, True),
        ({"model": "meter-*"}, True),
        ({"model": "METER-*"}, False),
        ({"model": "meter-xxs"}, False),
        ({"perturbation": "gaussian_noise"}, False),
        ({"perturbation": "gaussian_noise(*)"}, True),
        ({"fraction": 0.05}, True),
        ({"fraction": 0.1}, False),
        ({"method": "random"}, False),
    ],
)
def test_patterns(patterns, matches):
    assert Gate("af", Bound(min=0), **patterns).matches(CELL) is matches


def test_an_early_gate_and_one_against_another_method(tmp_path):
    first = '[[gate]]\nmetric = "af"\nmin = 0.3\nconfidence = 0.9\nearly = true\n'
    early, beats = gates(tmp_path, first + '[[gate]]\nmetric = "fe"\nbeats = "integrated_gradients(steps=8)"\n')
    assert early.bound == Bound(0.3, confidence=0.9, early=True)
    assert beats.bound.beats == "integrated_gradients(steps=8)"


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [([], "report"), (["pass", "waived"], "waived"), (["undecided", "fail", "pass"], "fail"), (["pass"], "pass")],
)
def test_the_worst_gate_is_the_verdict_on_a_cell(outcomes, verdict):
    assert worst(outcomes) == verdict


def test_a_toml_date_is_a_date(tmp_path):
    (gate,) = gates(tmp_path, '[[gate]]\nmetric = "af"\nmin = 0\nexpect = "fail"\nuntil = 2027-06-30\n')
    assert gate.until == datetime.date(2027, 6, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[gate]]\nmetric = 'af'\nmin = 0\nmodle = 'x'", "gate 1: unknown key 'modle'; did you mean 'model'?"),
        ("[[gate]]\nmin = 0", "gate 1: needs metric=; known: af, "),
        ("[[gate]]\nmetric = 'aff'\nmin = 0", "gate 1: unknown metric 'aff'; did you mean 'af'?"),
        ("[[gate]]\nmetric = 'af'", "gate 1: an assertion needs a bound"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\n[[gate]]\nmetric = 'af'\nmin = true", "gate 2: min must be a finite"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nfraction = 5", "fraction must be above 0 and at most 0.5, not 5"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nmodel = 3", "model must be text, not 3"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nexpect = 'fail'", "a waiver expires"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nconfidence = '0.95'", "confidence must be at least 0.5 and below 1"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nexpect = 'maybe'", "expect must be 'pass' or 'fail', not 'maybe'"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nuntil = 2027-06-30", "expect = 'fail' and until = a day go together"),
        ("[[gate]]\nmetric = 'af'\nmin = 0\nexpect = 'fail'\nuntil = 'soon'", "until must be a date such as 2027"),
        ("[[gate]]\nmetric = 'af'\nbeats = 'edgs'", "gate 1: unknown method 'edgs'; did you mean 'edges'?"),
        (
            "[[gate]]\nmetric = 'af'\nmin = 0\nearly = true",
            "gate 1: early decides by an interval: it needs confidence=",
        ),
        (
            "[[gate]]\nmetric = 'completeness'\nmax = 1\nconfidence = 0.9\nearly = true",
            "gate 1: early needs a metric with a known range, such as af; of completeness it is (0.0, inf)",
        ),
        ("[gate]\nmetric = 'af'", "expected [[gate]] tables and nothing else"),
        ("[[gates]]\nmetric = 'af'", "expected [[gate]] tables and nothing else, found ['gates']"),
        ("", "expected [[gate]] tables and nothing else, found []"),
        ("[[gate]", "is not TOML"),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path, text, message):
    with pytest.raises(xa.GatesError) as caught:
        gates(tmp_path, text)
    assert message in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(xa.GatesError, match=r"gates file .*none\.toml: No such file"):
        read_gates(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ({"model": "metre-*"}, "unknown model 'metre-*'"),
        ({"method": "salency"}, "unknown method 'salency'; did you mean 'saliency'?"),
        ({"fraction": 0.1}, "fraction 0.1 is not among those of this run: 0.05"),
    ],
)
def test_a_gate_that_matches_nothing_is_an_error(patterns, text):
    gate = Gate("af", Bound(min=0), **patterns)
    with pytest.raises(xa.GatesError) as caught:
        check_gates_match([gate], [CELL], narrowed={}, path="mine.toml")
    assert text in str(caught.value)
    check_gates_match([Gate("af", Bound(min=0))], [CELL], narrowed={}, path="mine.toml")


def test_what_the_user_narrowed_need_not_match_but_must_exist():
    known = {"method": ["saliency", "edges"]}
    check_gates_match([Gate("af", Bound(min=0), method="edges")], [CELL], narrowed=known, path="")
    check_gates_match([Gate("af", Bound(min=0), method="edges(width=3)")], [CELL], narrowed=known, path="")
    with pytest.raises(xa.GatesError, match="unknown method 'egdes'"):
        check_gates_match([Gate("af", Bound(min=0), method="egdes")], [CELL], narrowed=known, path="")


def score(value):
    return xa.Score(torch.tensor([value]), ("a",), "af")


@pytest.mark.parametrize(
    ("value", "until", "outcome", "words"),
    [
        (0.1, datetime.date(2026, 11, 22), "waived", "below min=0.500"),
        (0.1, datetime.date(2026, 11, 21), "fail", "the waiver ended on 2026-11-21"),
        (0.9, datetime.date(2026, 11, 22), "fail", "meets min=0.5 although expect = 'fail': remove the waiver"),
        (0.9, datetime.date(2026, 11, 21), "pass", ""),
    ],
)
def test_a_waiver_is_strict_and_expires(value, until, outcome, words):
    gate = Gate("af", Bound(min=0.5), expect="fail", until=until)
    judged = judge_gate(gate, score(value), today=datetime.date(2026, 11, 22))
    assert judged.outcome == outcome
    assert words in judged.because
    assert judged.red == (outcome == "fail")


def test_our_own_file_is_whole():
    own = read_gates(resources.suites() / "gates.toml")
    assert all(gate.reason for gate in own)
    assert {gate.metric for gate in own} >= {"af", "finite", "passes", "bias"}
    # A pattern that also matched the untrained network would judge it: its name ends in -random.
    untrained = CellName("meter-xxs-nyu-random", "saliency", "gaussian_noise", 0.05)
    assert {gate.metric for gate in own if gate.matches(untrained)} == {"finite", "passes", "passes_per_image"}
