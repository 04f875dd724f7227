"""The fixtures: shared models are checked, overriding is noticed, Hypothesis and ini files work."""

CELLS = ["net-v7+saliency+gaussian_noise", "net-v7+random+gaussian_noise"]


def test_a_test_that_changes_the_shared_model_is_told_so(project):
    project.makepyfile(
        test_release="""
        import torch

        def test_innocent(xai_model, xai_images):
            assert xai_model(xai_images[0].image[None]).shape == (1, 1, 16, 16)

        def test_culprit(xai_model):
            xai_model.module.weight.data.mul_(2)      # does not bump the version counter

        def test_hook(xai_model):
            xai_model.module.register_forward_hook(lambda *a: None)

        def test_last(xai_model):
            pass
        """
    )
    result = project.run_gates(gates=False)
    assert result.ret == 1
    result.assert_outcomes(passed=4, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*the test changed net-v7, which all tests share: value of weight; work on a copy.deepcopy of it*",
            "*the test changed net-v7, which all tests share: hooks of the model*",
            "*some test changed the weights of net-v7*",
        ]
    )


def test_assertions_in_a_users_own_tests_are_recorded_and_write_no_folder_unasked(project):
    project.makepyfile(
        test_release="""
        import xai_assert as xa

        def test_mine(xai_model, xai_images):
            options = dict(min_af=0.5, confidence=0.95, beats="random")
            xa.assert_attribution_fidelity(xai_model, "saliency", xai_images, **options)
        """
    )
    result = project.run_gates(gates=False)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["net-v7 *saliency *gaussian_noise 5%*pass*"])
    assert not (project.path / "xai-report").exists()
    project.run_gates("--xai-report=out", gates=False)
    assert project.results("out")["cells"][0]["gates"][0]["bound"] == "min_af=0.5, confidence=0.95, beats='random'"


def test_several_models_and_aliases(project):
    project.makepyfile(test_release="def test_it(xai_model): pass")
    result = project.run_gates("--xai-model=second=usermodel:build", "-v", gates=False)
    result.stdout.fnmatch_lines(["*test_it[[]usermodel-build[]] PASSED*", "*test_it[[]second[]] PASSED*"])


def test_the_decorators_own_models_and_images(project):
    project.makepyfile(
        test_release="""
        import pytest, torch, usermodel, xai_assert as xa

        @pytest.fixture(scope="session")
        def xai_images():
            return torch.rand(12, 3, 16, 16)

        names = dict(methods=["saliency"], perturbations=["gaussian_noise"])

        @xa.parametrize_with_gates(models={"v7": usermodel.build}, **names)
        def test_release(gate):
            gate.check()
            assert gate.score("asr").value > 0.9
        """
    )
    result = project.run_gates(model=False)
    assert result.ret == 0
    assert project.results()["cells"][0]["cell"] == "v7+saliency+gaussian_noise"
    assert project.results()["cells"][0]["data"] == "tensor (12, 3, 16, 16)"


def test_an_overridden_model_is_not_judged_under_another_name(project):
    project.makeconftest(
        """
        import pytest, xai_assert as xa, usermodel
        @pytest.fixture(scope="session")
        def xai_model():
            colours = dict(mean=[0.5] * 3, std=[0.25] * 3)
            return xa.describe(usermodel.Net(), name="another", task="depth", input_size=(16, 16), **colours)
        """
    )
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*xai_model gives 'another' where this cell is of 'net-v7'; pass models=*"])


def test_fixtures_work_under_hypothesis(project):
    project.makepyfile(
        test_release="""
        import xai_assert as xa
        from hypothesis import given, settings, strategies as st

        @settings(max_examples=3, deadline=None, database=None)
        @given(step=st.integers(1, 20))
        def test_strength(xai_model, xai_images, step):
            noise = xa.perturbation("gaussian_noise", sigma=step / 10)
            xa.assert_attribution_fidelity(xai_model, "saliency", xai_images, perturbation=noise, min_af=0.5)

        @settings(max_examples=3, deadline=None, database=None)
        @given(step=st.integers(1, 2))
        def test_repr(xai_model, xai_images, step):
            assert step > 5
        """
    )
    result = project.run_gates(gates=False)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    shown = [line for line in text.splitlines() if "xai_model=" in line or "xai_images=" in line]
    assert shown
    assert all(len(line) < 250 for line in shown)


def test_options_have_ini_twins(project):
    project.makeini("[pytest]\nxai_model = usermodel:build\nxai_gates = mine.toml\nxai_images = 10\nxai_seed = 7\n")
    result = project.run_gates("--xai-images=11", model=False, gates=False)
    assert result.ret == 0
    score = project.results()["cells"][0]["scores"]["af"]
    assert (score["n"], score["provenance"]["seed"]) == (11, 7)  # the command line goes before the ini file


def test_the_gate_fixture_without_the_decorator_says_so(project):
    project.makepyfile(test_release="def test_it(gate): gate.check()")
    result = project.run_gates()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*the fixture `gate` goes with @xa.parametrize_with_gates(...)*"])
