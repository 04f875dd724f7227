"""Who runs which tests: groups, shards, and workers that lose and repeat nothing, and one that crashes."""

import types

import pytest
import torch

pytest.importorskip("xdist", reason="needs pytest-xdist")
from xdist.scheduler import LoadScheduling

from xai_assert import cli
from xai_assert.testing import Scheduling, workers
from xai_assert.testing.scheduling import CellScheduling

CELLS = [
    f"suites/test_fidelity.py::test_fidelity[{model}+{method}+{perturbation}]"
    for model in ("light", "deep-2.1")
    for method in ("saliency", "random")
    for perturbation in ("black", "gaussian_noise-sigma-0.4", "fgsm+0.1")
]
EDGES = [f"suites/test_edges.py::test_edges[{model}]" for model in ("light", "deep-2.1")]
LATENCY = [f"suites/test_latency.py::test_latency[{model}+saliency]" for model in ("light", "deep-2.1")]
OTHERS = ["tests/test_a.py::test_a", "tests/test_a.py::test_b[1+1]", "tests/test_a.py::TestC::test_d[x]"]


def test_the_tests_of_a_model_belong_together():
    found = workers.groups([*CELLS, *EDGES, *LATENCY, *OTHERS], 2)
    assert {found[i] for i in CELLS if "[light" in i} == {("light",)}
    assert [found[i] for i in EDGES + LATENCY] == [("light",), ("deep-2.1",)] * 2
    assert len({found[i] for i in OTHERS}) == len(OTHERS)


def test_with_fewer_models_than_workers_those_of_a_method_do():
    found = workers.groups([*CELLS, *EDGES, *LATENCY], 3)
    assert {found[i] for i in CELLS} == {
        (model, method) for model in ("light", "deep-2.1") for method in ("saliency", "random")
    }
    assert found[EDGES[0]] == ("light",)
    assert found[LATENCY[0]] == ("light", "saliency")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_test_is_in_exactly_one_shard(count):
    nodeids = [*CELLS, *EDGES, *OTHERS]
    chosen = [workers.in_shard(nodeids, (number, count)) for number in range(1, count + 1)]
    assert [sum(column) for column in zip(*chosen, strict=True)] == [1] * len(nodeids)
    assert chosen[0][: len(CELLS)].count(True) >= len(CELLS) // max(count, 1) // 2


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "2", "1/0", "a/b", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(pytest.UsageError, match=r"--xai-shard must be I/N with I from 1 to N, such as 2/3, not"):
        workers.parse_shard(text)


@pytest.mark.parametrize(("worker", "gpu"), [("gw0", 0), ("gw1", 1), ("gw3", 0)])
def test_a_worker_uses_its_gpu_and_its_cores(monkeypatch, worker, gpu):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: chosen.append(f"{count} threads"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    config = types.SimpleNamespace(workerinput={"workerid": worker, "workercount": 4})
    workers.share_machine(config, torch.device("cuda"))
    assert chosen == [gpu, "2 threads"]
    chosen.clear()
    workers.share_machine(config, torch.device("cuda", 1))  # the user's choice
    workers.share_machine(types.SimpleNamespace(), torch.device("cuda"))  # no worker
    assert chosen == ["2 threads"]


FACTORIES = """
import os, torch, xai_assert as xa
from usermodel import Net

def loaded(name):
    with open(f"loaded-{name}.txt", "a") as file:
        file.write("x")
    colours = {"mean": [0.5] * 3, "std": [0.25] * 3}
    return xa.describe(Net(), name=name, task="depth", unit="m", input_size=(16, 16), **colours)

def one(): return loaded("one")
def two(): return loaded("two")

class Crashes(Net):
    def forward(self, images):
        if os.environ.get("PYTEST_XDIST_WORKER"):
            os._exit(3)
        return super().forward(images)

def crashing():
    colours = {"mean": [0.5] * 3, "std": [0.25] * 3}
    return xa.describe(Crashes(), name="crashing", task="depth", unit="m", input_size=(16, 16), **colours)

@xa.register_method("kills", replace=True)
def kills(model, images, target):
    if os.environ.get("PYTEST_XDIST_WORKER"):
        os._exit(3)
    return images.mean(1).exp()
"""

GATES = """
[[gate]]
metric = "af"
method = "saliency"
perturbation = "gaussian_noise"
min = 0.5
"""


@pytest.fixture
def several(project):
    project.makepyfile(
        factories=FACTORIES,
        test_release="""
        import factories, xai_assert as xa

        @xa.parametrize_with_gates(methods=["saliency", "random", "edges"], perturbations=["gaussian_noise", "mean"])
        def test_release(gate):
            gate.check()

        def test_plain():
            pass
        """,
    )
    project.path.joinpath("mine.toml").write_text(GATES)
    return project


def numbers(project, folder):
    cells = project.results(folder)["cells"]
    return {c["nodeid"]: (c["verdict"], c["scores"]["af"]["values"]) for c in cells}


def test_two_workers_give_the_numbers_of_one_process_and_load_each_model_once(several):
    models = ["--xai-model=one=factories:one", "--xai-model=two=factories:two"]
    alone = several.run_gates(*models, "--xai-report=alone", model=False, inprocess=False)
    assert alone.ret == 0
    for name in ("one", "two"):
        several.path.joinpath(f"loaded-{name}.txt").unlink()
    shared = several.run_gates("-n2", *models, "--xai-report=shared", model=False, inprocess=False)
    assert shared.ret == 0
    assert [several.path.joinpath(f"loaded-{name}.txt").read_text() for name in ("one", "two")] == ["x", "x"]
    assert list(numbers(several, "alone").items()) == list(numbers(several, "shared").items())
    assert several.results("alone")["planned"] == several.results("shared")["planned"]
    shared.stdout.fnmatch_lines(["cells: 2 pass, 10 reported without a verdict"])
    shared.assert_outcomes(passed=13)


def test_a_crashed_worker_loses_only_its_own_unfinished_cells(several):
    several.makepyfile(
        test_release="""
        import factories, xai_assert as xa

        METHODS = ["saliency", "kills", "random"]

        @xa.parametrize_with_gates(methods=METHODS, perturbations=["gaussian_noise", "mean"])
        def test_release(gate):
            gate.check()
        """
    )
    result = several.run_gates("-n2", inprocess=False)
    assert result.ret == 1
    verdicts = {(c["method"], c["perturbation"]): c["verdict"] for c in several.results()["cells"]}
    assert verdicts == {
        ("saliency", "gaussian_noise"): "pass",
        ("saliency", "mean"): "report",
        ("random", "gaussian_noise"): "report",
        ("random", "mean"): "report",
        ("kills", "gaussian_noise"): "error",
        ("kills", "mean"): "error",
    }
    lines = result.stdout.str()
    assert lines.count("replacing crashed worker") == 1  # the cells that share the crash are not tried again
    result.stdout.fnmatch_lines(["error: net-v7 kills: the worker of pytest-xdist that was to measure it crashed"])


def test_cells_that_were_not_to_run_are_not_lost(several):
    several.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmethod = "random"\nmin = 0.9\n')
    stopped = several.run_gates("-n2", "-x", "--xai-report=stopped", inprocess=False)
    assert stopped.ret != 0
    results = several.results("stopped")
    assert results["complete"] is False
    assert "error" not in results["summary"]


def test_other_projects_and_a_scheduling_that_was_chosen_are_left_alone(several):
    several.makepyfile(test_release="import pytest\n@pytest.mark.parametrize('i', range(8))\ndef test_plain(i): pass\n")
    result = several.run_gates("-n2", "--dist=worksteal", "-v", model=False, gates=False, inprocess=False)
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["scheduling tests via WorkStealingScheduling"])


@pytest.mark.parametrize(("collection", "kind"), [(OTHERS, LoadScheduling), (CELLS, CellScheduling)])
def test_only_runs_with_cells_are_scheduled_by_model(collection, kind):
    class Node:
        gateway = types.SimpleNamespace(id="gw0")

    config = types.SimpleNamespace(getvalue={"tx": ["popen", "popen"]}.get, getoption=lambda name: None)
    found = Scheduling(config, None)
    node = Node()
    found.add_node(node)
    assert type(found._inner) is LoadScheduling
    found.add_node_collection(node, collection)
    assert type(found._inner) is kind
    assert found.nodes == [node]


def test_the_shards_of_a_run_are_the_run(several, capsys):
    assert several.run_gates("--xai-report=whole").ret == 0
    whole = several.results("whole")
    found = {}
    for number in (1, 2):
        shard = several.run_gates(f"--xai-shard={number}/2", f"--xai-report=shard{number}")
        part = several.results(f"shard{number}")
        assert part["shard"] == f"{number}/2"
        assert part["planned"] == whole["planned"]
        assert shard.ret == (0 if part["summary"]["judged"] else 5)
        mine = numbers(several, f"shard{number}")
        assert not found.keys() & mine.keys()
        found |= mine
    assert found == numbers(several, "whole")

    assert cli.main(["merge", "shard1", "shard2/results.json", "-o", "merged", "--baseline", "whole/results.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "report: merged/report.html, exit status 0"
    assert "baseline whole/results.json: 3 ok (margin 0.05, confidence 0.95)" in lines  # AF twice and FE of saliency
    assert numbers(several, "merged") == numbers(several, "whole")
    merged = several.results("merged")
    assert merged["summary"] == whole["summary"]
    for cell in merged["cells"]:
        assert [(several.path / "merged" / p["file"]).is_file() for p in cell["pictures"]] == [True, True]
    assert (several.path / "merged" / "report.html").read_text().count("data:image/webp") == 2 * len(merged["cells"])

    assert cli.main(["merge", "shard2", "-o", "half"]) == 1
    out = capsys.readouterr().out
    assert "no results of shard 1/2" in out
    assert "CELLS OF GATES RAN NOWHERE: af net-v7+saliency+gaussian_noise" in out
    assert cli.main(["merge", "shard1", "shard1", "-o", "twice"]) == 2
    assert "are both of shard 1/2" in capsys.readouterr().err


def test_a_shard_without_cells_leaves_its_results_too_and_is_missed(several, capsys):
    for number in (1, 2, 3, 4, 5):
        shard = several.run_gates(f"--xai-shard={number}/5", f"--xai-report=part{number}")
        assert shard.ret in (0, 5)
    empty = several.results("part5")
    assert (empty["cells"], empty["exit_status"]) == ([], 5)
    shard.stdout.fnmatch_lines(["no cell falls to shard 5/5: fewer shards would do"])
    parts = [f"part{number}" for number in (1, 2, 3, 4, 5)]
    assert cli.main(["merge", *parts, "-o", "all"]) == 0
    assert cli.main(["merge", *parts[:4], "-o", "some"]) == 1
    assert "no results of shard 5/5" in capsys.readouterr().out
