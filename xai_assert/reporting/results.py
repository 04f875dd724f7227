"""results.json: everything that a run measured, in a versioned schema (docs/results.md)."""

from __future__ import annotations

import collections
import datetime
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xai_assert.provenance import versions
from xai_assert.reporting.record import Record

SCHEMA = 1
RED = ("fail", "undecided", "error")
NOT_JUDGED = 5  # "could not judge" is told apart from "judged, and worse" (1); pytest's status for no tests
NOWHERE = "no shard ran this cell"


def summary(records: Sequence[Record]) -> collections.Counter[str]:
    """How many cells got which verdict, and `judged`: those that a gate spoke on."""
    counts = collections.Counter(record["verdict"] for record in records)
    counts["judged"] = sum(bool(record["gates"]) for record in records)
    return counts


def caveats(records: Sequence[Record]) -> dict[str, str]:
    """By metric, what it says of itself that it cannot tell; of those measured."""
    found = (item for record in records for item in record["scores"].items())
    return {metric: score["caveat"] for metric, score in found if score.get("caveat")}


def is_red(record: Record) -> bool:
    """Whether a cell makes its run red: by its verdict, or because a gate asked for it and no shard ran it."""
    return record["verdict"] in RED or (record["error"] == NOWHERE and bool(record.get("asked")))


def exit_status(records: Sequence[Record], *, strict: bool = False) -> tuple[int, str]:
    """What the verdicts on the cells ask for, and why: 0; 1 for a red one; 5 if nothing was judged.

    With `strict` a gate that was skipped asks for 5 too.

    >>> exit_status([{"cell": "net+saliency+black", "verdict": "pass", "gates": [{}], "error": None}])
    (0, '')
    """
    cells = [record for record in records if "cell" in record]
    red = sum(map(is_red, cells))
    if red:
        return 1, f"{red} RED CELLS"
    if not summary(records)["judged"]:
        return NOT_JUDGED, "NO GATE WAS EVALUATED: nothing was judged, so this run is not green (exit status 5)"
    skipped = [cell["cell"] for cell in cells if cell.get("asked") and not cell["gates"]]
    if strict and skipped:
        words = "GATES WERE SKIPPED, which --xai-strict refuses (exit status 5)"
        return NOT_JUDGED, f"{words}: {', '.join(skipped[:5])}"
    return 0, ""


def document(records: Sequence[Record], *, complete: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The whole file as plain JSON types. `complete` is False for an interrupted run."""
    return {
        "schema": SCHEMA,
        "complete": complete,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "precision": "as the model's tensors unless marked as accelerated; TF32 and the caller's autocast are off",
        "options": dict(options),
        "summary": dict(summary(records)),
        "cells": list(records),
    }


def write(content: Mapping[str, Any], path: Path) -> Path:
    """Write to a temporary file and rename it, so that what stood there before is whole until the new one is.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        ValueError: a number is NaN or infinite.
    """
    return replace_file(path, json.dumps(content, indent=1, allow_nan=False, default=str))  # provenance may hold a path


def replace_file(path: Path, text: str) -> Path:
    """Write to a temporary file beside it, and rename that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
