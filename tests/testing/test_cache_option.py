"""`--xai-cache`: the second run of a user is served, says so, and under --xai-strict is red unless asked for."""

import json

import pytest

from xai_assert import map_keys

PASSES = """
[[gate]]
metric = "passes"
method = "saliency"
min = 0.999
max = 1.001
reason = "each pass once, but for the stored"
"""

TESTS = """
import xai_assert as xa

@xa.parametrize_with_gates(methods=["saliency", "random"], perturbations=["gaussian_noise"])
def test_release(gate):
    gate.check()

@xa.parametrize_with_gates(methods=["saliency"], perturbations=["gaussian_noise"], metrics=["passes"])
def test_passes(gate):
    gate.check()
"""


@pytest.fixture
def cached(project, monkeypatch):
    """The user's project, whose gates also count passes."""
    monkeypatch.setattr(map_keys, "_our_code", lambda: "of these tests")  # which somebody may be editing
    mine = project.path / "mine.toml"
    mine.write_text(mine.read_text() + PASSES)
    project.makepyfile(test_release=TESTS)
    return project


def scores(project):
    cells = project.results()["cells"]
    return {(cell["method"], name): score for cell in cells for name, score in cell["scores"].items()}


def test_the_second_run_is_served_and_says_so(cached):
    assert cached.run_gates("--xai-cache=maps").ret == 0
    first = scores(cached)
    result = cached.run_gates("--xai-cache=maps")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*saliency *gaussian_noise*from the store 12/12*"])
    result.stdout.no_fnmatch_line("*random *from the store*")
    second = scores(cached)
    assert second.keys() == first.keys()
    assert [score["values"] for score in second.values()] == [score["values"] for score in first.values()]
    assert second["saliency", "af"]["provenance"]["served"] == 12
    assert "served" not in first["saliency", "af"]["provenance"]
    assert len(list(cached.path.joinpath("maps").iterdir())) == 12


def test_strict_refuses_maps_of_earlier_runs_unless_asked(cached):
    assert cached.run_gates("--xai-cache=maps", "--xai-strict").ret == 0  # all of this run
    result = cached.run_gates("--xai-cache=maps", "--xai-strict")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*is of an earlier run*which --xai-strict refuses*--xai-strict-cache*"])
    verdicts = {(c["method"], c["of_run"]): c["verdict"] for c in cached.results()["cells"]}
    assert verdicts == {("saliency", False): "error", ("random", False): "report", ("saliency", True): "error"}
    assert cached.run_gates("--xai-cache=maps", "--xai-strict", "--xai-strict-cache").ret == 0
    assert cached.run_gates("--xai-cache=maps").ret == 0


def test_nothing_is_stored_unless_asked(cached, monkeypatch):
    monkeypatch.setenv("XAI_ASSERT_HOME", str(cached.path / "home"))
    assert cached.run_gates().ret == 0
    assert not cached.path.joinpath("home").exists()
    assert cached.run_gates("--xai-cache=auto").ret == 0
    assert len(list(cached.path.joinpath("home", "attributions").iterdir())) == 12


def test_the_ini_file_and_the_size(cached):
    cached.makeini("[pytest]\nxai_cache = maps\nxai_cache_size = 0.01\n")
    assert cached.run_gates().ret == 0
    files = list(cached.path.joinpath("maps").iterdir())
    assert 0 < len(files) < 12
    assert sum(path.stat().st_size for path in files) <= 0.01 * 2**20


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--xai-cache-size=0"], "--xai-cache-size must be above 0 MB, not 0"),
        (["--xai-cache-size=much"], "--xai-cache-size must be a number, not 'much'"),
        (["--xai-cache=mine.toml"], "the store * is a file; give a folder"),
        (["--xai-cache="], "--xai-cache is empty; leave it out, or say what you want"),
    ],
)
def test_mistakes_are_said(cached, options, text):
    result = cached.run_gates("--xai-cache=maps", *options)
    assert result.ret in (2, 4)
    pytest.LineMatcher(result.outlines + result.errlines).fnmatch_lines([f"*{text}*"])


def test_workers_are_one_run(cached):
    """Each stores the maps of its method, and none takes those of the other for an earlier run's."""
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    words = {"saliency": '"saliency"', "random": 'xa.method("integrated_gradients", steps=2)'}
    text = TESTS.replace('methods=["saliency", "random"]', f"methods=[{', '.join(words.values())}]")
    cached.makepyfile(test_release=text)
    result = cached.run_gates("--xai-cache=maps", "--xai-strict", "-n2", inprocess=False)
    assert result.ret == 0
    runs = set()
    for path in cached.path.joinpath("maps").iterdir():
        content = path.read_bytes()
        runs.add(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["run"])
    assert len(runs) == 1
    assert len(list(cached.path.joinpath("maps").iterdir())) == 24
