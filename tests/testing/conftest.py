"""A project of a user: a small model with a factory, its gates, and a test file that runs all cells."""

import json

import h5py  # noqa: F401  (imported before pytester restores sys.modules: torch refuses a second import)
import hypothesis.strategies  # noqa: F401
import numpy  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch  # noqa: F401

import xai_assert.testing.reports
import xai_assert.testing.session  # noqa: F401

FACTORY = """
import torch, xai_assert as xa

class Net(torch.nn.Module):
    # one weight a pixel, growing down the picture: what is relevant is known
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.1, 2, 256).reshape(16, 16))

    def forward(self, images):
        return images.mean(1, keepdim=True) * self.weight

def build():
    colours = {"mean": [0.5] * 3, "std": [0.25] * 3}
    return xa.describe(Net(), name="net-v7", task="depth", unit="m", input_size=(16, 16), **colours)
"""

GATES = """
[[gate]]
metric = "af"
method = "saliency"
perturbation = "gaussian_noise"
min = 0.5
reason = "worked out on paper"
"""

TESTS = """
import xai_assert as xa

@xa.parametrize_with_gates(methods=["saliency", "random"], perturbations=["gaussian_noise"])
def test_release(gate):
    gate.check()
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """The user's folder; `project.run(...)` runs pytest in it with `--xai-model usermodel:build` and its gates."""
    pytester.makepyfile(usermodel=FACTORY, test_release=TESTS)
    pytester.makefile(".toml", mine=GATES)
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # the user's run is no worker, though this one may be
    plugins = ["-p", "no:cacheprovider", "-p", "no:randomly"]

    def run(*arguments, model=True, gates=True, inprocess=True):
        options = [*plugins, *(["--xai-model=usermodel:build"] if model else [])]
        options += ["--xai-gates=mine.toml"] if gates else []
        start = pytester.runpytest_inprocess if inprocess else pytester.runpytest_subprocess
        return start(*options, "--xai-images=12", *arguments)

    pytester.run_gates = run
    pytester.results = lambda folder="xai-report": json.loads((pytester.path / folder / "results.json").read_text())
    return pytester
