"""The shards of one run (`--xai-shard I/N`) become one results.json, as a single machine would have written it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_assert.errors import DataError
from xai_assert.reporting.family import correct
from xai_assert.reporting.folder import PICTURES, RESULTS
from xai_assert.reporting.read import as_written, read_results
from xai_assert.reporting.record import Record, make_record
from xai_assert.reporting.results import NOT_JUDGED, NOWHERE, exit_status, summary, write

OWN = ("report", "shard")  # options that each shard has for itself


@dataclass(frozen=True)
class Shard:
    """The results of one shard: number `index` of `count`, from 1."""

    path: Path
    content: dict[str, Any]
    index: int
    count: int

    @classmethod
    def read(cls, path: Path) -> Shard:
        """From a results.json, or the folder that holds it."""
        path = path / RESULTS if path.is_dir() else path
        content = read_results(path)
        found = re.fullmatch(r"(\d+)/(\d+)", str(content.get("shard")))
        if not found:
            raise DataError(f"results {path} are not of a shard; run each machine's part with --xai-shard I/N")
        return cls(path, content, int(found[1]), int(found[2]))

    @property
    def shared(self) -> dict[str, Any]:
        """What all shards of a run have in common."""
        options = {name: value for name, value in self.content["options"].items() if name not in OWN}
        return {
            "number of shards": self.count,
            **{f"--xai-{name}": value for name, value in options.items()},
            **{f"versions of {name}": value for name, value in self.content["versions"].items()},
            "planned cells": self.content["planned"],
        }


def merge(results: Sequence[str | Path], output: str | Path) -> tuple[dict[str, Any], int]:
    """Join the results of the shards of one run; write results.json and the pictures to the folder `output`.

    A planned cell that no shard measured gets the verdict "not run". The exit status is that of the run as one: 1 if a
    cell is red, a gate asked for a cell that no shard ran, or a shard was interrupted or red itself; 5 if nothing was
    judged. Notes on what is missing are in the document.

    Args:
        results: each shard's results.json, or its folder.
        output: a folder, none of the shards' own.

    Raises:
        DataError: results that cannot be read, are not of one run, or hold a shard or a test twice.
        ValueError: no results, or the output folder is a shard's.
        OSError: the output folder cannot be written.
    """
    shards = sorted((Shard.read(Path(path)) for path in results), key=lambda shard: shard.index)
    output = Path(output)
    if not shards:
        raise ValueError("results is empty; give the results.json of each shard")
    if output.resolve() in {shard.path.parent.resolve() for shard in shards}:
        raise ValueError(f"output {output} holds the results of a shard; write to another folder")
    with as_written(*(shard.path for shard in shards)):
        _check(shards)
        content, status = _joined(shards)
        notes = _take_pictures(shards, output)
    content["notes"] += notes
    write(content, output / RESULTS)
    return content, status


def _check(shards: Sequence[Shard]) -> None:
    """Refuse shards that are not of one run."""
    first = shards[0]
    tests: dict[str, Shard] = {}
    numbers: dict[int, Shard] = {}
    for shard in shards:
        for name in dict.fromkeys([*first.shared, *shard.shared]):
            mine, other = first.shared.get(name), shard.shared.get(name)
            if mine != other:
                values = "" if name == "planned cells" else f" ({mine!r} and {other!r})"
                raise DataError(f"{first.path} and {shard.path} are not of one run: other {name}{values}")
        other_shard = numbers.setdefault(shard.index, shard)
        if other_shard is not shard:
            raise DataError(f"{other_shard.path} and {shard.path} are both of shard {shard.index}/{shard.count}")
        for nodeid in {str(record["nodeid"]) for record in shard.content["cells"]}:
            if tests.setdefault(nodeid, shard) is not shard:
                raise DataError(f"{tests[nodeid].path} and {shard.path} both ran {nodeid}")


def _joined(shards: Sequence[Shard]) -> tuple[dict[str, Any], int]:
    """One document, and its exit status."""
    first = shards[0].content
    records: list[Record] = [record for shard in shards for record in shard.content["cells"]]
    ran = {record["nodeid"] for record in records}
    nowhere = [_not_run(plan) for plan in first["planned"] if plan["nodeid"] not in ran]
    place = {plan["nodeid"]: number for number, plan in enumerate(first["planned"])}
    records = sorted(records + nowhere, key=lambda record: place.get(record["nodeid"], len(place)))
    overturned = correct(records)
    interrupted = [shard for shard in shards if not shard.content["complete"]]
    failed = [shard for shard in shards if shard.content["exit_status"] not in (0, NOT_JUDGED)]
    status, words = exit_status(records, strict=bool(first["options"].get("strict")))
    asked = [f"{'/'.join(record['asked'])} {record['cell']}" for record in nowhere if record.get("asked")]
    missing = sorted(set(range(1, shards[0].count + 1)) - {shard.index for shard in shards})
    notes = [*([words] if words else []), *(f"Holm: {found}" for found in overturned)]
    notes += [f"no results of shard {number}/{shards[0].count}" for number in missing]
    notes += [f"{shard.path} is of an interrupted run" for shard in interrupted]
    notes += [f"{shard.path}: exit status {shard.content['exit_status']}" for shard in failed]
    notes += [f"{len(asked)} CELLS OF GATES RAN NOWHERE: {_listed(asked)}"] if asked else []
    content = first | {
        "complete": not (interrupted or nowhere or missing),
        "created": max(shard.content["created"] for shard in shards),
        "options": first["options"] | dict.fromkeys(OWN),
        "shard": None,
        "summary": dict(summary(records)),
        "cells": records,
        "notes": notes,
        "exit_status": 1 if interrupted or failed or missing else status,
    }
    return content, content["exit_status"]


def _not_run(plan: Mapping[str, Any]) -> Record:
    return make_record({}, [], "not run", data=None, **(dict(plan) | {"error": NOWHERE}))


def _listed(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _take_pictures(shards: Iterable[Shard], output: Path) -> list[str]:
    """Copy the pictures, under the names that the records then have, and take those of an earlier run away."""
    home = output / PICTURES
    for old in home.glob("*.webp"):
        old.unlink()
    notes = []
    for shard in shards:
        pictures = [picture for record in shard.content["cells"] for picture in record.get("pictures") or []]
        lost = [picture for picture in pictures if not _copy(picture, shard, home)]
        notes += [f"{len(lost)} pictures are not beside {shard.path}"] if lost else []
        for record in shard.content["cells"]:
            if record.get("pictures"):
                record["pictures"] = [picture for picture in record["pictures"] if picture not in lost]
    return notes


def _copy(picture: dict[str, Any], shard: Shard, home: Path) -> bool:
    """Copy a picture and note its new name; False if it is not there."""
    folder = shard.path.parent.resolve()
    source = (folder / picture["file"]).resolve()
    if not source.is_relative_to(folder):
        raise DataError(f"results {shard.path}: picture {picture['file']} lies outside of its folder")
    if not source.is_file():
        return False
    home.mkdir(parents=True, exist_ok=True)
    name = f"{shard.index}-{source.name}"
    shutil.copyfile(source, home / name)
    picture["file"] = f"{PICTURES}/{name}"
    return True
