"""Thresholds come from figures, and from figures that may be compared."""

import json
import math

import numpy as np
import pytest

from xai_assert import cli, resources
from xai_assert.errors import DataError, GatesError
from xai_assert.gates import CellName, read_gates
from xai_assert.reporting.calibrate import MARKER, calibrate, table

VALUES = [0.4, 0.6] * 8  # mean .5, standard error of the mean (of 16) .1 / sqrt(15)
ERROR = 0.1 / math.sqrt(15)


def record(
    values=VALUES, *, method="saliency", seed=0, marks=(), verdict="report", weights="abc", data="photos", file="net.pt"
):
    score = {
        "values": values,
        "image_ids": list(range(len(values))),
        "provenance": {"fingerprint": weights, "weights": file},
    }
    return {
        "cell": f"net+{method}+gaussian_noise", "model": "net", "method": method, "perturbation": "gaussian_noise",
        "fraction": 0.05, "seed": seed, "marks": list(marks), "verdict": verdict, "of_run": False, "data": data,
        "error": "boom", "scores": {"af": score},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """A function that writes results.json of some records."""

    def write(*records, name="results.json", **more):
        document = {"schema": 1, "complete": True, "created": "2026-11-22T00:00:00+00:00", "cells": records, **more}
        (tmp_path / name).write_text(json.dumps(document))
        return tmp_path / name

    return write


def test_three_standard_errors_on_paper(results, tmp_path):
    (cell,) = calibrate([results(record())], tmp_path / "gates.toml")
    assert cell.mean == pytest.approx(0.5)
    assert cell.error == pytest.approx(ERROR)
    gate = read_gates(tmp_path / "gates.toml")[-1]
    assert gate.bound.min == math.floor(100 * (0.5 - 3 * ERROR)) / 100 == 0.42
    assert gate.bound.beats == "random"
    assert (gate.model, gate.method, gate.perturbation, gate.fraction) == ("net", "saliency", "gaussian_noise", 0.05)
    assert "mean 0.500, standard error 0.026, 16 images, seed 0, weights abc" in gate.reason


def test_seeds_count_beside_images(results, tmp_path):
    """Runs that lie .05 above and below: standard deviation .05 * sqrt(2) of a run, the images' error as before."""
    files = [
        results(record([value + shift for value in VALUES], seed=seed), name=f"{seed}.json")
        for seed, shift in enumerate((-0.05, 0.05))
    ]
    (cell,) = calibrate(files, tmp_path / "gates.toml")
    assert cell.error == pytest.approx(math.hypot(ERROR, 0.05 * math.sqrt(2)))
    assert cell.values.shape == (2, 16)


@pytest.mark.parametrize(
    ("what", "because"),
    [
        ({"method": "random"}, "a control"),
        ({"method": "edges"}, "a control"),
        ({"file": "random(seed=0)"}, "random weights"),
        ({"marks": ["circular (signs agree 60%)", "saturated"]}, "circular, saturated"),
        ({"values": [-0.5, 0.6] * 8}, "not 3 standard errors above 0, which a random map has"),
    ],
)
def test_what_gets_no_gate(results, tmp_path, what, because):
    (cell,) = calibrate([results(record(**what))], tmp_path / "gates.toml")
    assert cell.no_gate == because
    assert "net" not in {gate.model for gate in read_gates(tmp_path / "gates.toml")}


def test_a_new_file_begins_with_the_gates_on_the_run(results, tmp_path):
    calibrate([results(record())], tmp_path / "gates.toml")
    ours = ["finite", "passes", "bias", *["passes_per_image"] * 5]
    assert [gate.metric for gate in read_gates(tmp_path / "gates.toml")] == [*ours, "af"]


def test_hand_written_gates_and_other_cells_stay(results, tmp_path):
    path = tmp_path / "gates.toml"
    mine = '# by hand\n[[gate]]\nmetric = "asr"\nmin = 0.5\n\n'
    other = '[[gate]]\nmetric = "af"\nmodel = "other"\nmethod = "saliency"\nperturbation = "gaussian_noise"\n'
    path.write_text(f"{mine}{MARKER}\n\n{other}fraction = 0.05\nmin = 0.1\n")
    for values in (VALUES, [value - 0.1 for value in VALUES]):  # the second time the first gate is replaced
        calibrate([results(record(values))], path)
    assert path.read_text().startswith(mine + MARKER)
    assert [(gate.model, gate.bound.min) for gate in read_gates(path)] == [("*", 0.5), ("other", 0.1), ("net", 0.32)]


def test_calibrating_again_changes_nothing(results, tmp_path):
    figures, gates = results(record()), tmp_path / "gates.toml"
    calibrate([figures], gates)
    first = gates.read_bytes()
    calibrate([figures], gates)
    assert gates.read_bytes() == first


def test_names_are_no_patterns_and_reasons_no_tables(results, tmp_path):
    """A method whose parameter is a list, and a kept gate whose reason looks like a table."""
    path = tmp_path / "gates.toml"
    kept = '[[gate]]\nmetric = "af"\nmodel = "other"\nmin = 0.1\nreason = "as [[gate]] says"\n'
    path.write_text(f"{MARKER}\n{kept}")
    for _ in range(2):
        calibrate([results(record(method="mine(levels=[1, 2])"))], path)
    gates = read_gates(path)
    assert gates[0].reason == "as [[gate]] says"
    assert len(gates) == 2
    assert gates[1].matches(CellName("net", "mine(levels=[1, 2])", "gaussian_noise", 0.05))


def test_a_cell_that_lost_its_advantage_loses_its_gate_and_it_is_said(results, tmp_path):
    calibrate([results(record())], tmp_path / "gates.toml")
    cells = calibrate([results(record([-v for v in VALUES]))], tmp_path / "gates.toml")
    assert table(cells)[0].endswith("no gate: not 3 standard errors above 0, which a random map has (was 0.42)")
    assert "net" not in {gate.model for gate in read_gates(tmp_path / "gates.toml")}


def test_a_waiver_stays(results, tmp_path):
    path = tmp_path / "gates.toml"
    calibrate([results(record())], path)
    path.write_text(path.read_text() + 'expect = "fail"\nuntil = "2099-01-01"\n')
    calibrate([results(record())], path)
    assert [gate.expect for gate in read_gates(path)][-2:] == ["fail", "pass"]


def test_a_comment_below_the_marker_stays(results, tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text(f"{MARKER}\n# ask Ann before you change these\n")
    for _ in range(2):
        calibrate([results(record())], path)
    assert path.read_text().count("# ask Ann before you change these") == 1
    assert len(read_gates(path)) == 1


@pytest.mark.parametrize(
    ("values", "below", "said"),
    [
        (
            VALUES,
            '[[gate]]\nmetric = "fe"\nmin = 0.1\n [[gate]]\nmetric = "asr"\nmin = 0.2\n',
            r"write \[\[gate\]\] at the start of a line",
        ),
        ([-v for v in VALUES], "", "expected .*gate.* tables"),
    ],
)
def test_what_cannot_be_kept_or_written_leaves_the_file_alone(results, tmp_path, values, below, said):
    path = tmp_path / "gates.toml"
    path.write_text(f"{MARKER}\n{below}")
    with pytest.raises(GatesError, match=said):
        calibrate([results(record(values))], path)
    assert path.read_text() == f"{MARKER}\n{below}"


def test_a_link_stays_a_link(results, tmp_path):
    (tmp_path / "link.toml").symlink_to(tmp_path / "gates.toml")
    calibrate([results(record())], tmp_path / "link.toml")
    assert (tmp_path / "link.toml").is_symlink()
    assert len(read_gates(tmp_path / "gates.toml")) == 9  # eight on the run, and the cell


def test_a_file_without_the_marker_is_left_alone(results, tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text('[[gate]]\nmetric = "af"\nmin = 0.5\n')
    with pytest.raises(GatesError, match="has no marker line"):
        calibrate([results(record())], path)
    assert path.read_text() == '[[gate]]\nmetric = "af"\nmin = 0.5\n'


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"seed": 0}, r"two results have one seed \(0 in .*a.json, 0 in .*b.json\); give each run once"),
        ({"seed": 1, "weights": "xyz"}, "are of different weights"),
        ({"seed": 1, "data": "others"}, "are of different images"),
        ({"seed": 1, "values": [*VALUES, 0.5]}, "are of different images"),
    ],
)
def test_results_that_do_not_fit_together(results, tmp_path, second, said):
    files = [results(record(), name="a.json"), results(record(**second), name="b.json")]
    with pytest.raises(GatesError, match=said):
        calibrate(files, tmp_path / "gates.toml")
    assert not (tmp_path / "gates.toml").exists()


@pytest.mark.parametrize(
    ("records", "more", "said"),
    [
        ([record(verdict="error")], {}, r"net\+saliency\+gaussian_noise ended in an error: boom"),
        ([record(VALUES[:9])], {}, "9 images; a threshold needs at least 10"),
        ([record([70.0] * 16)], {}, "an AF lies between -1 and 1"),
        ([record([math.nan] * 16)], {}, "an AF lies between -1 and 1"),
        ([], {}, "no cell with a score 'af'; run the suites first"),
    ],
)
def test_results_that_no_threshold_may_stand_on(results, tmp_path, records, more, said):
    with pytest.raises(GatesError, match=said):
        calibrate([results(*records, **more)], tmp_path / "gates.toml")


@pytest.mark.parametrize(
    ("records", "more", "said"),
    [
        ([record()], {"complete": False}, "is of an interrupted run; thresholds need a complete one"),
        ([record()], {"schema": 99}, "not a results.json of schema 1 but 99"),
        ([{"cell": "net+saliency+black"}], {}, r"results\.json: an entry lacks 'of_run'"),
        ([None], {}, "not as the suites write them"),
    ],
)
def test_results_that_are_not_those_of_a_whole_run(results, tmp_path, records, more, said):
    with pytest.raises(DataError, match=said):
        calibrate([results(*records, **more)], tmp_path / "gates.toml")


def test_results_that_cannot_be_read(tmp_path):
    (tmp_path / "cut.json").write_text('{"schema": 1, "cel')
    for name, said in (("none.json", "No such file"), ("cut.json", "is no JSON")):
        with pytest.raises(DataError, match=said):
            calibrate([tmp_path / name], tmp_path / "gates.toml")


def test_the_command(results, tmp_path, capsys):
    gates = tmp_path / "gates.toml"
    assert cli.main(["calibrate", str(results(record(), record(method="random"))), "-o", str(gates)]) == 0
    out = capsys.readouterr().out
    assert "net+saliency+gaussian_noise 5%  AF +0.500  standard error 0.026  min = 0.42" in out
    assert "net+random+gaussian_noise 5%    AF +0.500  standard error 0.026  no gate: a control" in out
    assert f"1 gates for 2 cells: {gates}" in out


def test_the_command_says_mistakes_in_a_sentence(tmp_path, capsys):
    assert cli.main(["calibrate", str(tmp_path / "none.json"), "-o", str(tmp_path / "gates.toml")]) == 2
    assert capsys.readouterr().err.startswith("xai-assert calibrate: results ")


def test_a_run_alike_is_seldom_red(results, tmp_path):
    """1000 runs on 24 new images each, of the same distribution, as the gate sees them: at most a few per cent red.

    A threshold from 24 images is itself uncertain, so a run differs from it by sqrt(2) standard errors: beyond
    3 / sqrt(2) = 2.1 of a t distribution of 23 lies 2.3 %; 4 % leaves room for the draw of the thresholds.
    """
    random = np.random.default_rng(0)
    red = 0
    for _ in range(20):
        (cell,) = calibrate([results(record(random.uniform(-0.05, 0.65, 24).tolist()))], tmp_path / "gates.toml")
        red += int((random.uniform(-0.05, 0.65, (1000, 24)).mean(1) < cell.threshold).sum())
    assert red / 20_000 < 0.04


def test_the_shipped_file_can_be_calibrated_again():
    assert MARKER in (resources.suites() / "gates.toml").read_text()
