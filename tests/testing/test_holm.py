"""`beats` over many cells: what passes alone and not among all of its run is a failed test at the end."""

import json

import pytest

from xai_assert.reporting.merge import merge

PLUGIN = """
import torch, xai_assert as xa

@xa.register_method("weak", replace=True)
def weak(model, images, target, *, rank: int = 1):
    # the weights, right about every pixel; the rank only makes it another method
    return model.module.weight.detach().expand(len(images), -1, -1) + 0 * rank

@xa.parametrize_with_gates(methods=[f"weak(rank={i})" for i in range(CELLS)], perturbations=["gaussian_noise"])
def test_release(gate):
    gate.check()
"""
GATES = '[[gate]]\nmetric = "af"\nbeats = "random"\nreason = "better than chance"\n'
CELL = "net-v7+weak(rank=0)+gaussian_noise"


@pytest.fixture
def many(project):
    """A run of so many cells on so many images; each image alone shows every method to be better than random."""

    def run(cells, *arguments, gates=GATES, images=5, **options):
        project.path.joinpath("mine.toml").write_text(gates)
        project.path.joinpath("test_release.py").write_text(f"CELLS = {cells}\n{PLUGIN}")
        return project.run_gates(f"--xai-images={images}", "--xai-report-images=none", *arguments, **options)

    run.results = project.results
    run.path = project.path
    return run


def gates_of(document):
    return [gate for cell in document["cells"] for gate in cell["gates"]]


def test_one_cell_needs_no_correction(many):
    assert many(1).ret == 0
    (gate,) = gates_of(many.results())
    assert (gate["beats"], gate["control"], gate["n"]) == ("random", 0.0, 5)
    assert gate["p"] == gate["p_holm"] == 1 / 32


def test_what_passes_alone_and_not_among_all_is_a_failed_test_of_its_own(many):
    result = many(3)
    assert result.ret == 1
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(
        [
            "cells: 3 undecided",
            f"Holm: {CELL} af: cannot be shown to beat random among 3 tests with 5 images; at least 6 are needed "
            "(p=0.031, after Holm 0.094 > 0.05)",
            f"FAILED xai-holm::{CELL}-af - AssertionError: *",
        ]
    )
    document = many.results()
    assert document["exit_status"] == 1
    assert [cell["verdict"] for cell in document["cells"]] == ["undecided"] * 3
    assert [gate["p_holm"] for gate in gates_of(document)] == [3 / 32] * 3


def test_the_number_of_images_that_is_needed_is_enough(many):
    assert many(3, images=6).ret == 0


def test_workers_share_one_family(many):
    pytest.importorskip("xdist")
    result = many(3, "-n2", inprocess=False)
    assert result.ret == 1
    assert [gate["p_holm"] for gate in gates_of(many.results())] == [3 / 32] * 3
    assert result.stdout.str().count("FAILED xai-holm::") == 3


def test_shards_are_one_family_when_they_are_merged(many):
    for shard in (1, 2):
        result = many(3, f"--xai-shard={shard}/2", f"--xai-report=shard{shard}")
        assert result.ret == 0
        result.stdout.fnmatch_lines(["* tests against controls are corrected (Holm) by `xai-assert merge`"])
    content, status = merge([many.path / "shard1", many.path / "shard2"], many.path / "merged")
    assert status == 1
    assert [gate["p_holm"] for gate in gates_of(content)] == [3 / 32] * 3
    assert sum(note.startswith("Holm: ") for note in content["notes"]) == 3
    assert json.loads((many.path / "merged" / "results.json").read_text())["summary"]["undecided"] == 3


def test_a_waived_gate_claims_nothing_and_does_not_count(many):
    waived = GATES + 'method = "weak(rank=0)"\nexpect = "fail"\nuntil = "2999-01-01"\nmin = 2.0\n'
    other = GATES + 'method = "weak(rank=1)"\n'
    assert many(2, gates=waived + other).ret == 0


def test_another_method_may_be_what_is_to_be_beaten(many):
    result = many(1, gates=GATES.replace('"random"', '"edges"'))
    assert result.ret == 0
    (gate,) = gates_of(many.results())
    assert (gate["beats"], gate["p"]) == ("edges", 1 / 32)
    assert -1 <= gate["control"] < 1
    assert gate["difference"] > 0


def test_any_metric_may_have_to_beat_random(many):
    """Of FE what random scores is measured: the mean of eight maps."""
    result = many(1, gates=GATES.replace('"af"', '"fe"'))
    assert result.ret == 0
    (gate,) = gates_of(many.results())
    assert gate["p"] == 1 / 32
    assert abs(gate["control"]) < 0.5


class TestEarlyGates:
    EARLY = '[[gate]]\nmetric = "af"\nmin = 0.2\nconfidence = 0.95\nearly = true\n'

    def test_a_method_ends_when_its_last_gate_is_decided(self, many):
        result = many(1, gates=self.EARLY, images=24)
        assert result.ret == 0
        (cell,) = many.results()["cells"]
        (gate,) = cell["gates"]
        assert gate["outcome"] == "pass"
        assert gate["because"].startswith(f"decided after {cell['scores']['af']['n']} of 24 images")
        assert cell["scores"]["fe"]["n"] == cell["scores"]["af"]["n"] < 24

    def test_a_gate_that_is_not_early_needs_all_images(self, many):
        both = self.EARLY + '[[gate]]\nmetric = "fe"\nmin = -1.0\n'
        assert many(1, gates=both, images=24).ret == 0
        (cell,) = many.results()["cells"]
        assert cell["scores"]["af"]["n"] == 24
        assert " of 24 images" in cell["gates"][0]["because"]

    def test_a_baseline_compares_all_images(self, many):
        assert many(1, "--xai-report=accepted", gates=self.EARLY.replace("early = true", ""), images=24).ret == 0
        assert many(1, "--xai-baseline=accepted/results.json", gates=self.EARLY, images=24).ret == 0
        (cell,) = many.results()["cells"]
        assert cell["scores"]["af"]["n"] == 24
