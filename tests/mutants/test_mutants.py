"""The catalogue of planted faults: each can be planted, leaves nothing behind, and the quick suites catch it.

`python -m mutants.measure` runs all suites on all of them.
"""

import contextlib
import functools
import importlib.util
import inspect
import itertools
import sys
import warnings

import pytest
import torch
from mutants.catalogue import CATALOGUE
from mutants.page import page

import xai_assert as xa
from xai_assert import registry, resources
from xai_assert.metrics import prepared
from xai_assert.metrics.fidelity import fidelity
from xai_assert.perturbations.selection import Ranking
from xai_assert.tasks import Depth

BY_NAME = {mutant.name: mutant for mutant in CATALOGUE}
ELSEWHERE = {"rollout_with_shifted_windows"}  # caught on a real network alone, by its stored heatmaps


def suite(name):
    file = resources.suites() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"suites_{name}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where planting finds what it imported by name
    spec.loader.exec_module(module)
    return module


@functools.cache
def quick():
    return [suite(name) for name in ("test_methods_are_sound", "test_protocol_is_sound")]


def calls(module):
    """Every test of a suite with every of its parameters, as functions without arguments."""
    for name, test in list(vars(module).items()):
        if not name.startswith("test_"):
            continue
        choices = []
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize":
                choices.append([{mark.args[0]: value} for value in mark.args[1]])
        for combination in itertools.product(*choices):
            given = functools.reduce(dict.__or__, combination, {})
            fixtures = [n for n in inspect.signature(test).parameters if n not in given]
            yield functools.partial(test, **given, **{n: fixture(module, n) for n in fixtures})


def fixture(module, name):
    return getattr(module, name).__wrapped__()


def red(module):
    """Whether a test of the suite fails."""
    for call in calls(module):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", xa.TiedHeatmapWarning)
                call()
        except Exception:
            return True
    return False


@pytest.mark.parametrize("name", [m.name for m in CATALOGUE if m.where != "models" and m.name not in ELSEWHERE])
def test_a_planted_fault_is_caught_by_the_quick_suites(name):
    modules = quick()
    with BY_NAME[name].planted(), torch.random.fork_rng(devices=()):
        order = modules if BY_NAME[name].where == "methods" else modules[::-1]
        assert any(red(module) for module in order), BY_NAME[name].description


def test_the_quick_suites_are_green_without_a_fault():
    for module in quick():
        assert not red(module)


def test_a_fault_is_gone_afterwards():
    before = (fidelity, Ranking.ends, Depth.error, prepared.rank, registry.methods.get("saliency"))
    for mutant in CATALOGUE:
        with contextlib.suppress(ZeroDivisionError), mutant.planted():
            raise ZeroDivisionError
    assert before == (
        sys.modules["xai_assert.metrics.fidelity"].fidelity,
        Ranking.ends,
        Depth.error,
        prepared.rank,
        registry.methods.get("saliency"),
    )


@pytest.mark.parametrize("name", [m.name for m in CATALOGUE if m.where == "models"])
def test_a_faulty_network_predicts_something_else(name):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        honest = xa.load_model("meter-xxs-scenes", "scenes", device="cpu").eval()(images)
        with BY_NAME[name].planted():
            faulty = xa.load_model("meter-xxs-scenes", "scenes", device="cpu").eval()(images)
    assert not torch.allclose(honest, faulty, rtol=1e-3)


def test_names_are_unique_and_there_are_at_least_25():
    assert len(BY_NAME) == len(CATALOGUE) >= 25


def test_the_page_names_what_no_gate_catches():
    first, second = CATALOGUE[:2]
    text = page({first.name: {"test_heatmaps": "test_heatmaps"}, second.name: {"test_heatmaps": None}}, {})
    assert "**1 of 2 faults are caught.**" in text
    assert f"No gate catches: `{second.name}`" in text
