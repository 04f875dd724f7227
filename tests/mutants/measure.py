"""Which shipped gate catches which fault, and do they stay green on the clean originals? Writes docs/mutants.md.

    PYTHONPATH=tests python -m mutants.measure              # every mutant, the suites that are about it
    PYTHONPATH=tests python -m mutants.measure --all        # every mutant, all quick suites: an hour and more
    PYTHONPATH=tests python -m mutants.measure --gates      # those too that no quick suite caught: AF of real networks
    PYTHONPATH=tests python -m mutants.measure --seeds 200  # the clean originals over 200 seeds
    PYTHONPATH=tests python -m mutants.measure --table docs/mutants.md

What was measured is kept in the folder of --out and not measured again, so it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from mutants.catalogue import CATALOGUE
from mutants.planting import Mutant

import xai_assert as xa
from xai_assert.attributions import Method
from xai_assert.datasets import bundled_images
from xai_assert.evaluation import Evaluation
from xai_assert.gates import read_gates
from xai_assert.resources import suites
from xai_assert.verdicts import judge

ROOT = Path(__file__).parents[2]
ASKED = {  # by where the fault is: the suites that are about that
    "methods": ("test_methods_are_sound", "test_heatmaps"),
    "models": ("test_model_is_sound", "test_heatmaps", "test_fidelity"),
    "protocol": ("test_protocol_is_sound", "test_methods_are_sound"),
}
ALL = (
    "test_methods_are_sound",
    "test_protocol_is_sound",
    "test_heatmaps",
    "test_model_is_sound",
    "test_perturbation_edge_cases",
)
GATES = ("test_fidelity", "test_soundness")
NARROWED = ("saliency", "attention_rollout", "random")  # integrated gradients take minutes and are judged on paper
CLEAN = "clean original"
MODELS = {"meter-xxs-scenes": ("saliency",), "pixelformer-nano": ("saliency", "integrated_gradients")}


class Seen:
    """A pytest plugin: the first test that was red."""

    red: str | None = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.red is None:
            self.red = report.nodeid.partition("::")[2].partition("[")[0]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.red is None:
            self.red = "collection"


def run_suite(mutant: Mutant | None, suite: str, sender: Any) -> None:
    """Run one suite with the fault planted; in a process of its own, so that nothing of it remains."""
    torch.set_num_threads(1)
    seen = Seen()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "", "--benchmark-disable"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # modules are imported before the fork, to be quick
    if suite in GATES:
        options += [f"--xai-method={name}" for name in NARROWED] + ["--xai-perturbation=gaussian_noise"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if mutant:
            stack.enter_context(mutant.planted())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        path = str(suites() / f"{suite}.py")
        pytest.main([path, f"--rootdir={ROOT}", f"--xai-report={folder}", "--xai-device=cpu", *options], [seen])
    sender.send(seen.red)


def caught_by(mutant: Mutant | None, suite: str) -> tuple[str | None, float]:
    """The test of this suite that is red, or None, and the seconds."""
    start, fork = time.monotonic(), multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=run_suite, args=(mutant, suite, sender))
    process.start()
    sender.close()
    try:
        red = receiver.recv()
    except EOFError:
        red = "crash"
    process.join()
    return red, time.monotonic() - start


def measure(found: dict[str, dict[str, Any]], store: Path, everything: bool, gates: bool) -> None:
    """Every mutant against the suites that it has not met yet, the clean originals first."""
    subjects: list[tuple[str, Mutant | None]] = [(CLEAN, None), *((m.name, m) for m in CATALOGUE)]
    for name, mutant in subjects:
        row = found.setdefault(name, {})
        suites_asked = ALL if everything or mutant is None else ASKED[mutant.where]
        wanted = [*suites_asked, *(GATES if gates and (mutant is None or not any(row.values())) else ())]
        for suite in wanted:
            if suite not in row:
                row[suite], seconds = caught_by(mutant, suite)
                if row[suite] and (mutant is None or row[suite] in ("crash", "collection")):
                    raise RuntimeError(f"{suite} is red for want of a fault, or did not run: {name}, {row[suite]}")
                print(f"{name:36} {suite:30} {row[suite] or '-'} ({seconds:.0f} s)", flush=True)
                store.write_text(json.dumps(found, indent=1))


def reseeded(seeds: int, store: Path) -> dict[str, Any]:
    """By gate, how often the clean originals were red over so many seeds; each heatmap is computed once."""
    done = json.loads(store.read_text()) if store.is_file() else {}
    gates = [gate for gate in read_gates(suites() / "gates.toml") if gate.metric == "af"]
    for name, methods in MODELS.items():
        subject = xa.load_model(name, "scenes", device="cpu")
        images = bundled_images(subject.card)
        stacked = torch.stack([images[i].image for i in range(len(images))])  # read once
        kept = [stored(subject, stacked, images.ids, method) for method in methods]
        for seed in range(seeds):
            if str(seed) in done.get(name, {}):
                continue
            ev, row = Evaluation(subject, stacked, image_ids=list(images.ids), seed=seed), {}
            for method in [*kept, xa.method("random")]:
                score = ev.attribution_fidelity(method, perturbation="gaussian_noise", fraction=0.05)
                row[method.name] = {
                    "af": score.value,
                    "bias": bias(score),
                    "red": [
                        str(gate)
                        for gate in gates
                        if gate.model == name
                        and gate.method == method.name
                        and judge(score, gate.bound).outcome != "pass"
                    ],
                }
            done.setdefault(name, {})[str(seed)] = row
            store.write_text(json.dumps(done))
            print(name, seed, {m: round(r["af"], 3) for m, r in row.items()}, flush=True)
    return done


def bias(score: Any) -> float:
    """Distance of the mean AF from 0 on the normal scale, as the gate's."""
    t = abs(score.mean) / score.standard_error
    return float(scipy.stats.norm.isf(scipy.stats.t.sf(t, len(score) - 1)))


def stored(subject: xa.Subject, images: torch.Tensor, ids: Any, name: str) -> Method:
    """The method with its heatmaps computed once; they do not depend on the seed."""
    maps = dict(zip(map(str, ids), xa.heatmap(subject, images, name, image_ids=list(ids)), strict=True))

    def function(model: Any, shown: torch.Tensor, target: Any, *, image_ids: Any) -> torch.Tensor:
        return torch.stack([maps[str(one)] for one in image_ids])

    return Method(name, function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutants", help="folder of what was measured")
    parser.add_argument("--all", action="store_true", help="every suite on every mutant: an hour and more")
    parser.add_argument("--gates", action="store_true", help="the AF gates too, for what no quick suite caught")
    parser.add_argument("--seeds", type=int, default=0, help="reseeded runs of the clean originals")
    parser.add_argument("--table", type=Path, help="write the page here, and measure nothing")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    store, seeds = asked.out / "caught.json", asked.out / "seeds.json"
    found = json.loads(store.read_text()) if store.is_file() else {}
    torch.set_num_threads(1)
    os.chdir(ROOT)
    if asked.table:
        from mutants.page import page

        asked.table.write_text(page(found, json.loads(seeds.read_text()) if seeds.is_file() else {}))
    elif asked.seeds:
        reseeded(asked.seeds, seeds)
    else:
        measure(found, store, asked.all, asked.gates)


if __name__ == "__main__":
    main()
