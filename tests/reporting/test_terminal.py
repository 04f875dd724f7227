"""The table at the end of a run."""

import torch
from known_models import Pixelwise, draw

import xai_assert as xa
from xai_assert.reporting.markdown import step_summary
from xai_assert.reporting.record import gate_record, make_record
from xai_assert.reporting.terminal import table


def record(method, verdict="report", **more):
    network = xa.describe(Pixelwise(torch.ones(3, 16, 16)), name="net", task="depth", unit="cm")
    images = 4 * draw(10, 3, 16, 16)  # spread enough that the errors are not saturated
    score = xa.attribution_fidelity(network, method, images)
    return make_record({"af": score}, [gate_record("af", "min=0", verdict, "")], verdict, **more)


def test_columns_line_up_and_empty_ones_are_left_out():
    lines = table([record("edges", "pass"), record("random", "fail")])
    head, first, second, legend = lines
    assert head.split() == ["model", "method", "perturbation", "rel", "irr", "ASR", "AF", "95%", "interval", "verdict"]
    for name in ("rel", "irr", "ASR", "AF"):  # numbers end where their heading ends
        end = head.index(f" {name} ") + len(name) + 1
        assert first[end - 1] != " "
        assert first[end] == " "
    assert first.split()[:4] == ["net", "edges", "gaussian_noise", "5%"]
    assert first.split()[-1] == "pass"
    assert second.split()[-1] == "FAIL"
    assert legend.endswith("in cm")


def test_a_sign_that_depends_on_the_perturbation_is_marked_and_said():
    found = {name: record("edges") for name in ("gaussian_noise", "black", "mean")}
    for (name, one), ends in zip(found.items(), ((0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)), strict=True):
        one["perturbation"], one["scores"]["af"]["interval95"], one["scores"]["af"]["value"] = name, ends, sum(ends) / 2
    head, noise, black, mean, _, said = table(list(found.values()))
    assert head.endswith("marks")
    assert [line.endswith("  sign turns") for line in (noise, black, mean)] == [True, True, False]
    above, below = "AF above 0 under gaussian_noise (+0.20)", "below 0 under black (-0.20)"
    assert said == f"the sign of AF depends on the perturbation: net edges at 5%: {above}; {below}"


def test_gates_on_the_run_are_one_line_that_names_the_red_ones():
    good = record("edges", "pass", of_run=True, cell="net+edges+gaussian_noise")
    bad = record("random", "fail", of_run=True, cell="net+random+gaussian_noise")
    assert table([good, bad]) == [
        "soundness: 1 of 2 gates on the run itself pass; not: af net+random+gaussian_noise",
    ]


def test_a_score_of_ones_own_and_an_error_fit_in():
    mine = make_record({"agreement": xa.Score(torch.tensor([0.5]), ("a",), "agreement")}, [], "pass")
    names = {"model": "net", "method": "saliency", "perturbation": "black"}
    broken = make_record({}, [], "error", error="ValueError: why\nmore", **names)
    lines = table([mine, broken])
    assert lines[2].split()[:3] == ["net", "saliency", "black"]
    assert lines[2].endswith("ERROR")
    assert [line.split() for line in lines[3:6]] == [[], ["agreement"], ["+0.500"]]
    assert lines[6] == "error: net saliency: ValueError: why"


def test_metrics_beside_af_and_fe_have_a_table_with_intervals_and_the_task():
    both = record("edges")
    both["scores"]["asr"] = both["scores"]["af"] | {"value": 0.25, "interval95": [0.125, 0.5]}
    lines = table([record("random"), both])
    assert lines[3] == ""
    assert [line.split() for line in lines[4:6]] == [
        ["model", "task", "method", "perturbation", "af", "asr"],
        ["net", "depth", "edges", "gaussian_noise", "5%", *lines[5].split()[5:8], "+0.250", "[+0.125,", "+0.500]"],
    ]
    assert table([record("random")])[2].startswith("rel, irr")
    assert "| +0.250 &#91;+0.125, +0.500&#93; |" in step_summary([both], [])


def test_what_a_metric_cannot_tell_stands_below_the_table():
    fe = xa.faithfulness_estimate(Pixelwise(draw(3, 8, 8)), "edges", draw(3, 3, 8, 8), task="depth")
    assert fe.caveat.startswith("correlates the map's values")
    lines = table([make_record({"fe": fe}, [], "report", cell="net+edges+noise")])
    assert f"fe: {fe.caveat}" in lines
