"""No way around a gate: caught, skipped, misspelt, empty or stopped, it is never green for nothing."""

import shlex
import textwrap

import pytest
import torch

import xai_assert


def rewrite(project, body):
    project.makepyfile(test_release="import pytest, xai_assert as xa\n\n" + textwrap.dedent(body))


ONE_CELL = '@xa.parametrize_with_gates(methods=["random"], perturbations=["gaussian_noise"])\n'


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(gate):\n    try:\n        gate.check()\n    except AssertionError as e:\n        print(e)\n",
        "@pytest.mark.xfail(strict=False)\ndef test_it(gate):\n    gate.check()\n",
    ],
    ids=["caught", "xfail"],
)
def test_a_red_cell_cannot_be_made_green_in_the_test(project, test):
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmin = 0.9\n')
    rewrite(project, ONE_CELL + test)
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["1 RED CELLS and no failed test (caught, or xfail)*waive a gate in the gates file"])


def test_a_gate_that_is_never_checked_is_not_green(project):
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmin = -1\n')
    rewrite(project, ONE_CELL + "def test_it(gate):\n    gate.score()\n")
    result = project.run_gates()
    assert result.ret == 5
    result.stdout.fnmatch_lines(["*not run*the test never called gate.check()*", "NO GATE WAS EVALUATED*"])


def test_a_gate_that_no_test_judges_is_an_error(project):
    mine = project.path / "mine.toml"
    mine.write_text(mine.read_text() + '\n[[gate]]\nmetric = "passes"\nmax = 0.1\n')
    result = project.run_gates()
    assert result.ret == 4
    text = "gate metric='passes' * is judged by no test of this run; add one with @xa.parametrize_with_gates(metrics=*"
    result.stderr.fnmatch_lines([f"*{text}*"])


def test_a_misspelt_gate_is_noticed_by_tests_of_named_metrics_too(project):
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "finite"\nmethod = "salency"\nmin = 1\n')
    rewrite(project, '@xa.parametrize_with_gates(metrics=["finite"])\ndef test_it(gate):\n    gate.check()\n')
    result = project.run_gates()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*matches no cell; unknown method 'salency'*"])


def test_workers_say_what_is_wrong_with_a_gate(project):
    pytest.importorskip("xdist")
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmodel = "net-v8"\nmin = 0\n')
    result = project.run_gates("-n2", inprocess=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*matches no cell; unknown model 'net-v8'; did you mean 'net-v7'?*"])


@pytest.mark.parametrize("name", ["data", "gates", "model", "seed"])
def test_an_empty_option_is_not_the_default(project, name):
    result = project.run_gates(f"--xai-{name}=", gates=name != "gates")
    assert result.ret not in (0, 1, 5)
    assert f"--xai-{name} is empty" in result.stdout.str() + result.stderr.str()


def test_two_models_must_not_share_a_name(project):
    result = project.run_gates("--xai-model=usermodel:build")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*two models are called 'net-v7'; give one another name: --xai-model ALIAS=SPEC*"])


def test_a_stopped_run_is_not_complete(project):
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmin = 0.99\n')
    assert project.run_gates("-x").ret == 1
    assert project.results()["complete"] is False
    assert len(project.results()["cells"]) == 1


def test_an_assertion_that_a_test_expects_to_fail_is_no_red_cell(project):
    rewrite(
        project,
        """
        def test_it(xai_model, xai_images):
            with pytest.raises(AssertionError):
                xa.assert_attribution_fidelity(xai_model, "random", xai_images, min_af=0.9)
        """,
    )
    result = project.run_gates(gates=False)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["net-v7 *random *caught*", "cells: 1 caught"])


def test_a_metric_of_ones_own_fails_like_ours(project):
    project.makeconftest(
        """
        import torch, xai_assert as xa

        @xa.register_metric("rows", replace=True)
        def rows(evaluation, method, perturbation, fraction):
            return xa.Score(torch.tensor([0.1, 0.2]), ("row0", "row1"), "rows")

        @xa.register_metric("broken", replace=True)
        def broken(evaluation, method, perturbation, fraction):
            return 0.5
        """
    )
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "rows"\nmin = 0.9\n')
    rewrite(project, ONE_CELL + "def test_it(gate):\n    gate.check()\n")
    result = project.run_gates(inprocess=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E *AssertionError: rows is 0.150 on 2 images, below min=0.900 (by 0.750)"])
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "broken"\nmin = 0.9\n')
    result = project.run_gates(inprocess=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*metric 'broken' returned a float, not an xa.Score*"])


def test_a_model_that_fails_late_could_not_run(project):
    late = """

    def late(self, images):
        self.calls = getattr(self, "calls", 0) + 1
        assert self.calls < 3, "late"
        return images.mean(1, keepdim=True) * self.weight

    Net.forward = late
    """
    model = project.path / "usermodel.py"
    model.write_text(model.read_text() + textwrap.dedent(late))
    rewrite(project, ONE_CELL + "def test_it(gate):\n    gate.check()\n")
    result = project.run_gates("--xai-gates=mine.toml", inprocess=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E *ModelOutputError: the model net-v7 failed on images (4, 3, 16, 16) of *: late"])
    assert project.results()["cells"][0]["verdict"] == "error"


def test_the_bias_of_a_random_map_is_on_the_normal_scale_for_any_number_of_images(monkeypatch):
    import scipy.stats

    from xai_assert.scores.named import bias

    values = torch.tensor([0.1, 0.2, 0.6, 0.1], dtype=torch.float64)
    t = float(values.mean() / (values.std() / 2))
    subject = xai_assert.describe(torch.nn.Conv2d(3, 1, 1), name="net", task="depth")
    ev = xai_assert.Evaluation(subject, torch.rand(4, 3, 8, 8))
    score = ev.attribution_fidelity("random")
    object.__setattr__(score, "values", values)
    monkeypatch.setattr(ev, "attribution_fidelity", lambda *a, **k: score)
    found = bias(ev, "random", xai_assert.perturbation("gaussian_noise"), 0.05).value
    p = scipy.stats.t.sf(t, 3)  # Student's t of 4 images has heavier tails: the same p is nearer on the normal scale
    assert scipy.stats.norm.sf(found) == pytest.approx(p, rel=1e-6)
    assert found < t


def test_the_printed_line_runs_the_failure_again(project):
    project.path.joinpath("mine.toml").write_text(
        '[[gate]]\nmetric = "af"\nmin = 0.99\n[[gate]]\nmetric = "finite"\nmin = 0.5\n'
    )
    both = '@xa.parametrize_with_gates(metrics=["finite"])\ndef test_run(gate):\n    gate.check()\n'
    rewrite(project, "def test_nothing():\n    pass\n")
    project.makepyfile(test_a="import xai_assert as xa\n" + ONE_CELL + "def test_it(gate):\n    gate.check()\n")
    project.makepyfile(test_b="import xai_assert as xa\n" + both)
    options = ["--xai-perturbation=gaussian_noise", "--xai-method=random"]
    result = project.run_gates(*options)
    assert result.ret == 1
    lines = [line.removeprefix("E").strip() for line in result.stdout.lines]
    headline = next(line for line in lines if line.startswith("AssertionError: AF of net-v7 / random"))
    words = shlex.split(next(line for line in lines if line.startswith("reproduce: pytest ")))[2:]
    again = project.runpytest_subprocess("-p", "no:cacheprovider", *words)
    assert again.ret == 1
    again.stdout.fnmatch_lines([f"E *{headline}"])


def test_doing_less_than_the_cells_need_is_noticed_as_well_as_more(monkeypatch):
    from xai_assert.batching import Passes
    from xai_assert.scores.named import passes

    ev = xai_assert.Evaluation(torch.nn.Conv2d(3, 1, 1), torch.rand(4, 3, 8, 8), task="depth")
    noise = xai_assert.perturbation("gaussian_noise")
    assert passes(ev, "edges", noise, 0.05).value == 1
    for spent, ratio in ((Passes(6, 0), 0.5), (Passes(18, 0), 1.5)):  # 1 clean forward and 2 perturbed ones, 4 images
        monkeypatch.setattr(ev, "passes_of", lambda method, spent=spent: spent)
        assert passes(ev, "edges", noise, 0.05).value == ratio


def test_a_gate_that_xfail_kept_from_running_is_red_with_a_sentence(project):
    rewrite(
        project, "@pytest.mark.xfail(run=False, reason='later')\n" + ONE_CELL + "def test_it(gate):\n    gate.check()\n"
    )
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["error: net-v7 random: xfail without a run (*later*); waive a gate in the gates file*"]
    )


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "RuntimeError", "KeyError"])
def test_a_broken_factory_shows_its_traceback(project, error):
    project.makepyfile(
        usermodel=f"""
        def build():
            return read_weights()

        def read_weights():
            raise {error}("the registry of models is down")
        """
    )
    result = project.run_gates()
    assert result.ret not in (0, 5)
    result.stdout.fnmatch_lines(
        ["*usermodel.py:2: in build", "*return read_weights()", f"E *{error}: *the registry of models is down*"]
    )
