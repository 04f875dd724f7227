"""The examples, as a user runs them; and with a planted method that knows nothing, which each must refuse."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm  # noqa: F401  (torch and what is built on it cannot be imported twice)

with contextlib.suppress(ImportError):
    import transformers  # noqa: F401

ROOT = Path(__file__).parents[2]
PREPARE = {"timm_classifier": "fine_tune.py", "transformers_depth": "save_network.py", "two_inputs": None}
OPTIONS = {"timm_classifier": ["--xai-gates=gates.toml", f"--xai-data={ROOT / 'fixtures' / 'scenes.h5'}"]}


@pytest.fixture(scope="module", params=PREPARE)
def example(request, tmp_path_factory):
    """A copy of it, with what its training makes."""
    if request.param == "transformers_depth":
        pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("examples") / request.param
    shutil.copytree(ROOT / "examples" / request.param, folder, ignore=shutil.ignore_patterns("network", "release.*"))
    if PREPARE[request.param]:
        subprocess.run([sys.executable, PREPARE[request.param]], cwd=folder, check=True, capture_output=True)
    return folder


def test_all_are_tried():
    assert {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()} == set(PREPARE)


@pytest.mark.parametrize("planted", [False, True])
def test_an_example(example, project, planted):
    project.path.joinpath("test_release.py").unlink()
    for path in example.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, project.path / path.name)
    tests = project.path / "test_explanations.py"
    if planted:
        text = tests.read_text()
        assert text.count('"saliency"') == 1
        tests.write_text(text.replace('"saliency"', '"random"'))
        gates = project.path / "gates.toml"
        if gates.exists():
            gates.write_text(gates.read_text().replace('"saliency"', '"random"'))
    result = project.run_gates(*OPTIONS.get(example.name, []), "--xai-images=24", model=False, gates=False)
    assert result.ret == int(planted)
    result.assert_outcomes(passed=int(not planted), failed=int(planted))
    if planted:
        result.stdout.fnmatch_lines(
            ["E *AssertionError: AF of * / random under gaussian_noise at 5% *does not beat random*"]
        )
    if example.name in OPTIONS:  # a gate of a run, whose results are written
        (cell,) = project.results()["cells"]
        assert cell["verdict"] == ("fail" if planted else "pass")
        assert cell["scores"]["af"]["provenance"]["task"] == "classification"
