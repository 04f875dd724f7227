"""The plugin as a user meets it: exit status, table, results.json, JUnit, and what it says when something is wrong."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from xai_assert.testing.flags import OPTIONS

CELLS = ["net-v7+saliency+gaussian_noise", "net-v7+random+gaussian_noise"]


def test_a_gate_that_passes_is_green_and_everything_is_written(project):
    result = project.run_gates("--junitxml=junit.xml")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*explanations*",
            "model *method *perturbation *rel *irr *FE *ASR *AF *95% interval *verdict*",
            "net-v7 *saliency *gaussian_noise 5% *+0.9*pass*",
            "net-v7 *random *gaussian_noise 5%*report*",
            "*in m",
            "cells: 1 pass, 1 reported without a verdict",
            "results: xai-report/results.json",
        ]
    )
    found = project.results()
    assert (found["schema"], found["complete"]) == (1, True)
    assert [cell["cell"] for cell in found["cells"]] == CELLS
    af = found["cells"][0]["scores"]["af"]
    assert len(af["values"]) == len(af["image_ids"]) == af["n"] == 12
    assert af["value"] == pytest.approx(sum(af["values"]) / 12)
    assert af["provenance"]["seed"] == 0
    gate = found["cells"][0]["gates"][0]
    assert (gate["outcome"], gate["bound"], gate["reason"]) == ("pass", "min=0.5", "worked out on paper")
    case = ElementTree.parse(project.path / "junit.xml").find(".//testcase")
    properties = {p.get("name"): p.get("value") for p in case.findall(".//property")}
    assert float(properties["xai_af"]) == pytest.approx(af["value"], abs=1e-6)
    assert properties["xai_verdict"] == "pass"
    assert {"xai_fe", "xai_asr", "xai_relevant_error", "xai_irrelevant_error"} <= set(properties)


def test_a_gate_that_fails_is_red_and_explains_itself(project):
    project.path.joinpath("mine.toml").write_text(
        '[[gate]]\nmetric = "af"\nmethod = "random"\nmin = 0.4\nreason = "why"\n'
    )
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E *AssertionError: AF of net-v7 / random under gaussian_noise at 5% "
            "is *on 12 images, below min=0.400 (by *)",
            "E *images below the bound: * of 12 (*%); worst: *",
            "E *mean error in m after perturbing R: *, I: *; ASR *",
            "E *seed 0; errors against the prediction; weights as given (*); torch * on cpu",
            "E *reproduce: pytest 'test_release.py::test_release[[]net-v7+random+gaussian_noise[]]' --xai-model=*",
            "E *gate: why",
            "net-v7 *random *FAIL*",
        ]
    )
    assert "control on the same images" not in result.stdout.str()  # it is the control
    assert project.results()["cells"][1]["verdict"] == "fail"


def test_an_undecided_gate_is_red_and_says_how_many_images_would_decide(project):
    gate = '[[gate]]\nmetric = "af"\nmethod = "random"\nmin = -0.05\nconfidence = 0.95\n'
    project.path.joinpath("mine.toml").write_text(gate)
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*not decided against min=-0.050 (95% interval [[]*[]])*about * images would decide*"])
    assert project.results()["cells"][1]["verdict"] == "undecided"


def test_a_run_that_judged_nothing_is_not_green(project):
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmethod = "edges"\nmin = 0\n')
    result = project.run_gates()
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        [
            "*2 reported without a verdict*",
            "no method gets a verdict on net-v7: no gate in mine.toml matches its cells (add a *gate* for it)",
            "NO GATE WAS EVALUATED*",
        ]
    )


def test_skipped_gates_are_not_green(project):
    project.makepyfile(
        test_release="""
        import pytest, xai_assert as xa

        @pytest.mark.skip(reason="no GPU here")
        @xa.parametrize_with_gates(methods=["saliency"], perturbations=["gaussian_noise"])
        def test_release(gate):
            gate.check()
        """
    )
    result = project.run_gates()
    assert result.ret == 5
    result.stdout.fnmatch_lines(["*cells: 1 not run*", "NO GATE WAS EVALUATED*"])


def test_an_error_in_a_cell_is_a_red_cell_and_the_others_stand(project):
    project.makepyfile(
        test_release="""
        import torch, xai_assert as xa

        def constant(model, images, target):
            return torch.ones_like(images[:, 0])

        @xa.parametrize_with_gates(methods=[constant, "saliency"], perturbations=["gaussian_noise"])
        def test_release(gate):
            gate.check()
        """
    )
    result = project.run_gates()
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    cells = {cell["method"]: cell for cell in project.results()["cells"]}
    assert cells["constant"]["verdict"] == "error"
    assert cells["constant"]["error"].startswith("DegenerateHeatmapError: the heatmap of constant is constant for")
    assert cells["saliency"]["verdict"] == "pass"


def test_a_method_that_does_not_apply_is_skipped_with_the_reason(project):
    methods = ("--xai-method=saliency", "--xai-method=attention_rollout")
    result = project.run_gates(*methods, "-rs", *suite("test_fidelity"))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["SKIPPED*attention rollout does not apply to net-v7: Net shows no attention*"])
    verdicts = {(c["method"], c["verdict"]) for c in project.results()["cells"]}
    assert ("attention_rollout", "not applicable") in verdicts


def test_further_metrics_are_measured_in_every_cell_and_shown_with_intervals(project):
    result = project.run_gates("--xai-metric=asr", "--xai-metric=srg")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["model *task *method *perturbation *af *fe *asr *srg", "net-v7 *depth *saliency *5% *]"]
    )
    for cell in project.results()["cells"]:
        assert set(cell["scores"]) == {"af", "fe", "asr", "srg"}
        for score in cell["scores"].values():
            low, high = score["interval95"]
            assert low <= score["value"] <= high
    saliency, random = (cell["scores"]["srg"]["value"] for cell in project.results()["cells"])
    assert saliency > random
    gates = [cell["gates"] for cell in project.results()["cells"]]
    assert [[gate["metric"] for gate in found] for found in gates] == [["af"], []]


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("depth", ["meter-xxs-scenes", "pixelformer-nano"]),
        ("classification", ["nearest-object-nano"]),
        ("segmentation", ["segmenter-nano"]),
        ("all", ["pixelformer-nano", "nearest-object-nano", "segmenter-nano"]),
    ],
)
def test_a_task_chooses_among_the_projects_networks(project, task, names):
    options = [f"--xai-task={task}", "--xai-method=random", "--xai-perturbation=black", "--xai-images=1"]
    result = project.run_gates(*options, *suite("test_fidelity"), model=False, gates=False)
    assert result.ret == 5  # of the control nothing is asked
    cells = project.results()["cells"]
    assert [cell["model"] for cell in cells] == names
    tasks = {"meter-xxs-scenes": "depth", "pixelformer-nano": "depth", "nearest-object-nano": "classification"}
    for cell in cells:
        assert cell["scores"]["af"]["provenance"]["task"] == tasks.get(cell["model"], "segmentation")


def suite(*names):
    """Arguments that run these suites; by default those that look at the model of the run."""
    from xai_assert import resources

    names = names or ("test_fidelity", "test_heatmaps", "test_latency", "test_model_is_sound", "test_soundness")
    return ["--rootdir=.", "--import-mode=importlib", *(str(resources.suites() / f"{name}.py") for name in names)]


def test_the_suites_run_on_a_users_model(project):
    methods = ["--xai-method=saliency", "--xai-method=random", "--xai-perturbation=gaussian_noise"]
    result = project.run_gates(*methods, *suite(), gates=False)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "soundness: 7 of 7 gates on the run itself pass",
            "no method gets a verdict on net-v7: no gate in suites/gates.toml matches its cells (add*",
        ]
    )
    cells = [c for c in project.results()["cells"] if c["method"] == "random" and c.get("of_run")]
    assert {g["metric"] for c in cells for g in c["gates"]} == {
        "finite",
        "passes",
        "bias",
        "passes_per_image",
    }


@pytest.mark.parametrize(
    ("gates", "text"),
    [
        ('[[gate]]\nmetric = "af"\nmethdo = "saliency"\nmin = 0\n', "unknown key 'methdo'; did you mean 'method'?"),
        (
            '[[gate]]\nmetric = "af"\nmodel = "net-v8"\nmin = 0\n',
            "matches no cell; unknown model 'net-v8'; did you mean 'net-v7'?",
        ),
        (
            '[[gate]]\nmetric = "af"\nmethod = "salency"\nmin = 0\n',
            "matches no cell; unknown method 'salency'; did you mean",
        ),
        (
            '[[gate]]\nmetric = "af"\nfraction = 0.2\nmin = 0\n',
            "matches no cell; fraction 0.2 is not among those of this run: 0.05",
        ),
        ('[[gate]]\nmetric = "af"\n', "an assertion needs a bound"),
        ("gate = 3", "expected [[gate]] tables and nothing else"),
    ],
)
def test_a_wrong_gates_file_ends_the_run_with_a_sentence(project, gates, text):
    project.path.joinpath("mine.toml").write_text(gates)
    result = project.run_gates()
    assert result.ret not in (0, 1)
    everything = result.stdout.str() + result.stderr.str()
    assert text in everything
    assert "Traceback" not in everything


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--xai-shard=3/2"], "--xai-shard must be I/N with I from 1 to N, such as 2/3, not '3/2'"),
        (["--xai-margin=-1"], "--xai-margin must be at least 0"),
        (["--xai-method=salency"], "unknown method 'salency'; did you mean 'saliency'?"),
        (["--xai-metric=sgr"], "unknown metric 'sgr'; did you mean 'srg'?"),
        (["--xai-metric=finite"], "--xai-metric must be one of an explanation, not 'finite'"),
        (["--xai-task=depth"], "--xai-task depth chooses among the project's networks; leave it out with --xai-model"),
        (["--xai-perturbation=blak"], "unknown perturbation 'blak'; did you mean 'black'?"),
        (["--xai-seed=one"], "--xai-seed must be a number, not 'one'"),
        (["--xai-images=0"], "--xai-images must be at least 1"),
        (["--xai-data=nowhere"], "nowhere"),
        (["--xai-data=nyu(path='nowhere')"], "nowhere: does not exist"),
        (["--xai-data=kitti(path='.', split='test')"], "data 'kitti' takes no parameter 'split'"),
        (["--xai-model=@file"], "not of the form [ALIAS=]SPEC[@WEIGHTS]"),
        (["--xai-device=cuda:99"], "cuda:99"),
    ],
)
def test_a_wrong_option_ends_the_run_with_a_sentence(project, arguments, text):
    result = project.run_gates(*arguments, *suite("test_fidelity"))
    assert result.ret not in (0, 5)
    assert text in result.stdout.str() + result.stderr.str()


def test_an_interrupted_run_keeps_what_it_measured(project):
    project.makepyfile(test_z="def test_interrupt(): raise KeyboardInterrupt")
    result = project.run_gates("test_release.py", "test_z.py", inprocess=False)
    assert result.ret == 2
    found = project.results()
    assert found["complete"] is False
    assert [cell["cell"] for cell in found["cells"]] == CELLS


def test_a_full_disk_is_said_and_loses_nothing(project, monkeypatch):
    assert project.run_gates().ret == 0
    before = (project.path / "xai-report" / "results.json").read_text()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["RESULTS NOT WRITTEN to *: No space left on device; the table above is complete"])
    assert (project.path / "xai-report" / "results.json").read_text() == before
    assert sorted(os.listdir(project.path / "xai-report")) == ["pictures", "report.html", "results.json"]


def test_workers_lose_and_repeat_nothing(project):
    pytest.importorskip("xdist")
    alone = project.run_gates("--xai-report=one", inprocess=False)
    assert alone.ret == 0
    shared = project.run_gates("-n2", "--xai-report=two", inprocess=False)
    assert shared.ret == 0

    def numbers(folder):
        return {c["cell"]: c["scores"]["af"]["values"] for c in project.results(folder)["cells"]}

    assert numbers("one") == numbers("two")
    assert len(project.results("two")["cells"]) == 2


@pytest.mark.parametrize("arguments", [[], ["-n1"]], ids=["alone", "controller of xdist"])
def test_an_unrelated_run_imports_nothing_heavy(tmp_path, arguments):
    code = (
        "import sys, pytest\n"
        "class Look:\n"
        "    def pytest_unconfigure(self):\n"
        "        print('OURS', *sorted(m for m in sys.modules if m.split('.')[0] == 'xai_assert'))\n"
        "        heavy = {'torch', 'timm', 'numpy', 'scipy', 'PIL', 'h5py', 'matplotlib', 'jinja2', 'captum'}\n"
        "        print('HEAVY', *sorted({m.split('.')[0] for m in sys.modules} & heavy))\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{arguments}], plugins=[Look()]))\n"
    )
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "OURS xai_assert xai_assert.testing xai_assert.testing.flags" in lines
    assert "HEAVY" in lines
    assert "explanations" not in done.stdout


def test_a_run_without_our_tests_keeps_its_exit_status(project):
    project.makepyfile(test_release="def test_plain(): pass")
    result = project.run_gates(model=False, gates=False)
    assert result.ret == 0
    assert "explanations" not in result.stdout.str()


def test_a_plan_says_passes_and_minutes_and_runs_nothing(project):
    result = project.run_gates("--xai-plan")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            # 12 images: a clean pass, 2 for AF, 16 for FE; saliency's gradient
            "net-v7 saliency: 216 forward and 12 gradient passes, about 0.0 min",
            "net-v7 random: 228 forward and 0 gradient passes, about 0.0 min",
            "in all about 0.0 min in one process, beside loading; nothing was run (--xai-plan)",
        ]
    )
    assert "passed" not in result.stdout.str()
    assert not (project.path / "xai-report").exists()


def test_a_plan_says_which_model_cannot_be_planned(project):
    project.path.joinpath("broken.py").write_text("def build():\n    raise RuntimeError('boom')\n")
    result = project.run_gates("--xai-plan", "--xai-model=broken=broken:build")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["net-v7 saliency: 216 forward*", "broken cannot be planned: RuntimeError: boom"])


def test_a_plan_is_made_in_one_process(project):
    result = project.run_gates("--xai-plan", "-n2", inprocess=False)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--xai-plan runs in one process; leave -n out"])


def test_a_run_is_clean_under_strict_settings(project):
    pytester_ini = "[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config\n"
    project.path.joinpath("pytest.ini").write_text(pytester_ini)
    result = project.run_gates("-W", "error", *suite(), "--xai-method=saliency", "--xai-method=random", gates=False)
    assert result.ret == 0
    assert "warning" not in result.stdout.str().lower()


def test_every_option_is_in_the_help_under_its_own_group(project):
    lines = project.run_gates("--help").stdout.lines
    start = lines.index("xai-assert: tests for explanations:")
    end = start + 1 + next(n for n, line in enumerate(lines[start + 1 :]) if line and not line.startswith(" "))
    group = " ".join(lines[start:end])
    assert set(re.findall(r"--xai-([a-z-]+)[ =]", group)) == set(OPTIONS)
