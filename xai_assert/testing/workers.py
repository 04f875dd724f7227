"""Who runs which tests: shards of a run over several machines, workers of pytest-xdist, their GPUs and cores.

The tests of a model belong together, because they share its loading, and those of a method share its attributions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

from xai_assert.testing import CELL

PART = re.compile(r"\[([\w.-]+)(?:\+([\w.-]+))?\]$")  # other tests of a model, or of a model and a method

Group = tuple[str, ...]


def models_of(nodeids: Iterable[str]) -> set[str]:
    """The models whose cells are among these tests."""
    return {found[1] for found in map(CELL.search, nodeids) if found}


def groups(nodeids: Sequence[str], count: int) -> dict[str, Group]:
    """What belongs together if `count` share the tests: a model's, or with fewer models than that a method's of it.

    A test of no model is a group of its own.
    """
    models = models_of(nodeids)
    by_model = len(models) >= count

    def group(nodeid: str) -> Group:
        found = CELL.search(nodeid) or PART.search(nodeid)
        if not found or found[1] not in models:
            return ("", nodeid)
        return (found[1],) if by_model or not found[2] else (found[1], found[2])

    return {nodeid: group(nodeid) for nodeid in nodeids}


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N`: which shard, from 1, of how many."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise pytest.UsageError(f"--xai-shard must be I/N with I from 1 to N, such as 2/3, not {text!r}")
    return int(found[1]), int(found[2])


def in_shard(nodeids: Sequence[str], shard: tuple[int, int]) -> list[bool]:
    """Which of these tests belong to the shard: groups are dealt out in turn, those of models and the others apart."""
    of = groups(nodeids, shard[1])
    turn: dict[Group, int] = {}
    for ours in (True, False):
        for number, group in enumerate(dict.fromkeys(g for g in of.values() if bool(g[0]) is ours)):
            turn[group] = number % shard[1] + 1
    return [turn[of[nodeid]] == shard[0] for nodeid in nodeids]


def share_machine(config: pytest.Config, device: torch.device) -> None:
    """Give this worker of xdist its share: GPU number k mod count, and its part of the cores.

    Threads that wait for a core slow torch down far more than fewer threads do.
    """
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        return
    if str(device) == "cuda":  # without a number: the user chose none
        torch.cuda.set_device(int(worker["workerid"].removeprefix("gw")) % torch.cuda.device_count())
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // worker["workercount"]))
