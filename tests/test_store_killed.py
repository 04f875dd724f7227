"""`kill -9` at ten random moments of a run with the store on: the next run finishes, equal to an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import xai_assert as xa
from xai_assert import map_keys
from xai_assert.store import ENTRY, PART, Store

IMAGES, BATCH, KILLS = 80, 2, 10
AHEAD = 4  # batches at most that a run finishes before it is killed; KILLS * AHEAD < IMAGES / BATCH, so all are killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


class Squares(torch.nn.Module):
    """Pixel by pixel, so that the size of a batch rounds nothing differently."""

    def forward(self, images):
        return images.square().sum(1, keepdim=True)


def slow_saliency(model, images, target):
    """Notes each image that is begun, in one write, before anything is computed."""
    with open(os.environ["XAI_TEST_LOG"], "ab", buffering=0) as log:
        log.write(b"x" * len(images))
    time.sleep(0.01)
    return xa.method("saliency").function(model, images, target)


def slow_write(path, content):
    """Eight pieces with a pause between, so that many a kill falls into a write."""
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(content), -(-len(content) // 8)):
            file.write(content[start : start + -(-len(content) // 8)])
            time.sleep(0.002)


def evaluate(folder, found):
    """One whole run; what it measured goes to the file `found`."""
    images = torch.randn(IMAGES, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    ev = xa.Evaluation(Squares(), images, batch_size=BATCH, task="depth", mean=[0.5] * 3, std=[0.25] * 3)
    ev.store = Store(folder) if folder else None
    score = ev.attribution_fidelity(slow_saliency, perturbation="gaussian_noise").to_dict()
    score["marks"] = [mark for mark in score["marks"] if "store" not in mark]
    score["provenance"].pop("served", None)
    counts = {"broken": ev.store.broken, "served": ev.store.served} if folder else {}
    found.write_text(json.dumps({"score": score, **counts}))


def fork(*arguments):
    """`evaluate` in a process of its own, in which everything is imported already."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        evaluate(*arguments)
        status = 0
    finally:
        os._exit(status)


def drive(folder):
    """Start, kill, start again; at last let one finish. Prints what it saw."""
    log, maps = folder / "log", folder / "maps"
    os.environ["XAI_TEST_LOG"] = str(log)
    log.touch()
    rng, killed, begun = random.Random(0), 0, []
    Path.write_bytes = slow_write
    map_keys._our_code = lambda: "of this test"  # which somebody may be editing
    for _ in range(KILLS):
        wanted, child = log.stat().st_size + BATCH * rng.randrange(AHEAD), fork(maps, folder / "killed")
        while log.stat().st_size < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        begun.append(log.stat().st_size)
    left = [path.name for path in maps.iterdir()]
    finished = os.waitpid(fork(maps, folder / "last"), 0)[1]
    begun.append(log.stat().st_size)
    again = os.waitpid(fork(maps, folder / "again"), 0)[1]
    begun.append(log.stat().st_size)
    undisturbed = os.waitpid(fork(None, folder / "undisturbed"), 0)[1]
    print(json.dumps({"killed": killed, "begun": begun, "left": left, "status": [finished, again, undisturbed]}))


def test_killed_ten_times(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, __file__, str(tmp_path)]
    seen = json.loads(subprocess.check_output(script, text=True, timeout=120, env=environment))
    assert seen["status"] == [0, 0, 0]
    assert seen["killed"] == KILLS
    assert not tmp_path.joinpath("killed").exists()  # none of them had finished
    last, again, undisturbed = (json.loads((tmp_path / n).read_text()) for n in ("last", "again", "undisturbed"))
    assert last["score"] == again["score"] == undisturbed["score"]
    *kills, finished, once_more = seen["begun"]
    assert kills[-1] > 0
    assert IMAGES <= finished <= IMAGES + KILLS * BATCH  # again only what was in flight, one batch a kill
    assert last["served"] >= kills[-1] - KILLS * BATCH
    assert (once_more, again["served"], last["broken"]) == (finished, IMAGES, 0)
    assert any(PART.fullmatch(name) for name in seen["left"])  # some kills did fall into a write
    assert all(ENTRY.fullmatch(name) or PART.fullmatch(name) for name in seen["left"])


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
