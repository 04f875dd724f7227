"""`--xai-baseline` in a run: what fell is a failed test, and runs that cannot be compared are not green."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

BLUR = """
import torch, xai_assert as xa

@xa.register_method("ours", replace=True)
def ours(model, images, target):
    # right about every pixel, or with WRONG about none
    weight = model.module.weight.detach().expand(len(images), -1, -1)
    return weight.max() - weight if WRONG else weight

@xa.parametrize_with_gates(methods=["ours", "random"], perturbations=["gaussian_noise", "mean"])
def test_release(gate):
    gate.check()
"""
GATES = '[[gate]]\nmetric = "af"\nmethod = "ours"\nmin = -1.0\nreason = "anything goes"\n'


@pytest.fixture
def accepted(project):
    project.path.joinpath("mine.toml").write_text(GATES)
    project.write = lambda wrong: project.path.joinpath("test_release.py").write_text(f"WRONG = {wrong}\n{BLUR}")
    project.write(False)
    assert project.run_gates("--xai-report=accepted").ret == 0
    return project


def test_a_run_that_is_as_good_is_green(accepted):
    result = accepted.run_gates("--xai-baseline=accepted/results.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["baseline accepted/results.json: 3 ok (margin 0.05, confidence 0.95)", "  net-v7: the same weights (*"]
    )
    cells = {(c["method"], c["perturbation"]): c for c in accepted.results()["cells"]}
    assert cells["ours", "mean"]["regression"]["af"]["outcome"] == "ok"
    assert cells["random", "mean"]["regression"] == {}


def test_what_fell_is_a_failed_test_of_its_own(accepted):
    accepted.write(True)
    result = accepted.run_gates("--xai-baseline=accepted/results.json", "--junitxml=junit.xml")
    assert result.ret == 1
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines(
        [
            "baseline *: 3 regressed (margin 0.05, confidence 0.95)",
            "  net-v7+ours+gaussian_noise 5% AF 0.* -> -0.* (drop * [[]*[]], p=* after Holm, margin 0.05)",
            "FAILED xai-baseline::net-v7+ours+gaussian_noise-af - AssertionError: regress*",
        ]
    )
    failures = ElementTree.parse(accepted.path / "junit.xml").findall(".//failure")
    assert len(failures) == 3
    document = accepted.results()
    assert document["exit_status"] == 1
    assert document["baseline"]["red"] is True
    page = (accepted.path / "xai-report" / "report.html").read_text()
    assert "2 of 2 judged cells are red, and the baseline is not met (3 regressed)" in page
    assert page.count('class="badge v-regressed"') >= 2
    result.stdout.fnmatch_lines(["net-v7 *ours *mean 5% *fell below the baseline"])


def test_a_margin_forgives(accepted):
    accepted.write(True)
    assert accepted.run_gates("--xai-baseline=accepted/results.json", "--xai-margin=2").ret == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--xai-seed=1"], "3 not comparable"),
        (["--xai-images=11"], "3 not comparable"),
    ],
)
def test_another_seed_or_other_images_are_not_comparable(accepted, arguments, words):
    result = accepted.run_gates(*arguments, "--xai-baseline=accepted/results.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"baseline *: {words} *"])


def test_a_cell_that_vanished_is_red_unless_it_was_deselected(accepted):
    path = accepted.path / "test_release.py"
    path.write_text(path.read_text().replace('["gaussian_noise", "mean"]', '["gaussian_noise"]'))
    result = accepted.run_gates("--xai-baseline=accepted/results.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["baseline *: 1 missing, 2 ok *"])
    # a cell that is gone stays red however the run is narrowed; one that was deselected is excused
    assert accepted.run_gates("--xai-baseline=accepted/results.json", "-m", "not slow").ret == 1
    assert accepted.run_gates("--xai-baseline=accepted/results.json", "-k", "gaussian_noise").ret == 1
    accepted.write(False)
    narrowed = accepted.run_gates("--xai-baseline=accepted/results.json", "-k", "gaussian_noise")
    assert narrowed.ret == 0
    narrowed.stdout.fnmatch_lines(["baseline *: 1 missing, 2 ok *"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "is no JSON"),
        ("[]", "not a results.json of schema"),
        ("interrupted", "a baseline must be a complete one"),
    ],
)
def test_a_baseline_that_cannot_be_read_ends_the_run_before_it_starts(accepted, content, words):
    path = accepted.path / "old.json"
    if content == "interrupted":
        path.write_text(json.dumps(accepted.results("accepted") | {"complete": False}))
    elif content is not None:
        path.write_text(content)
    result = accepted.run_gates("--xai-baseline=old.json")
    assert result.ret not in (0, 1, 5)
    assert words in result.stdout.str() + result.stderr.str()


def test_shards_are_compared_when_they_are_merged(accepted):
    result = accepted.run_gates("--xai-baseline=accepted/results.json", "--xai-shard=1/2")
    assert result.ret not in (0, 1, 5)
    result.stdout.fnmatch_lines(["*give the baseline to `xai-assert merge --baseline`*"])
