"""Peak memory of the works, over what was there before: on CUDA as torch counts it, on a CPU in a process of its own.

There glibc is told to give every block of 64 KiB back at once, and the kernel to forget the last peak, so that the
growth of VmHWM over VmRSS is what the work needed at its worst, whoever allocated it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import bare, rivals
from benchmarks.cases import CAPTUM, OURS, attribute, evaluation, ig
from benchmarks.measuring import reason
from benchmarks.networks import NETWORKS, Setup, prepare, quick

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
GRADIENT, IG = "one gradient batch", "IG"
FEW = 16  # steps of Captum's default, which keeps the graphs of all of them: at 200 it needs 12 times as much
TRIES = 3


def works(setup: Setup, steps: int) -> list[tuple[str, str, Callable[[], object]]]:
    """(what, by whom, run)."""
    found: list[tuple[str, str, Callable[[], object]]] = [
        ("one forward batch", "bare", partial(bare.forward, setup)),
        (GRADIENT, "bare", partial(bare.gradient, setup)),
        ("saliency", OURS, partial(attribute, setup, "saliency")),
        (IG, OURS, partial(attribute, setup, ig(steps))),
        ("one fidelity cell", OURS, lambda: evaluation(setup).attribution_fidelity("saliency")),
    ]
    if setup.network.attention:
        found.append(("attention rollout", OURS, partial(attribute, setup, "attention_rollout")))
    if rivals.installed(CAPTUM):
        single = replace(setup, images=setup.images[:1])
        found += [
            (IG, CAPTUM, partial(rivals.captum_ig, setup, steps)),
            ("one gradient, one image", "bare", partial(bare.gradient, single)),
            (f"IG-{FEW} as it comes, one image", CAPTUM, partial(rivals.captum_ig, single, FEW, at_once=True)),
        ]
    return found


def measured(setup: Setup, steps: int) -> list[dict[str, Any]]:
    """A record of each work: bytes, the least of three peaks; a long IG runs once."""
    records = []
    for what, who, run in works(setup, steps):
        record = {"network": setup.network.name, "what": what, "who": who, "batch": setup.batch}
        if what == IG:
            record["steps"] = steps
        try:
            if what != IG:
                run()
            tries = 1 if what == IG else TRIES
            records.append(record | {"bytes": min(peak(run, setup.images.device) for _ in range(tries))})
        except Exception as error:
            records.append(record | {"missing": reason(error)})
    return records


def peak(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that the work needed at its worst, over what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    FORGET.write_text("5")
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise OSError(f"{STATUS} has no {name}")
    return int(found[1]) * 1024


def of_network(name: str, steps: int, *, device: torch.device, small: bool) -> list[dict[str, Any]]:
    """All works on a network; on a CPU in a child process."""
    if device.type == "cuda":
        return _here(name, steps, device, small)
    if not os.access(FORGET, os.W_OK):
        return [{"network": name, "what": "all", "who": "", "missing": f"cannot write {FORGET}"}]
    command = [sys.executable, "-m", "benchmarks.memory", name, str(steps), str(torch.get_num_threads()), str(small)]
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | MALLOC, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        return [{"network": name, "what": "all", "who": "", "missing": done.stderr.strip().splitlines()[-1]}]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _here(name: str, steps: int, device: torch.device, small: bool) -> list[dict[str, Any]]:
    network = next(one for one in NETWORKS if one.name == name)
    network = quick(network) if small else network
    return measured(prepare(network, device, images=network.short), steps)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(_here(sys.argv[1], int(sys.argv[2]), torch.device("cpu"), sys.argv[4] == "True")))
