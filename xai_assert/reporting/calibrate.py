"""Thresholds from what was measured: results.json of one run or several, to the gates of the next."""

from __future__ import annotations

import collections
import dataclasses
import glob
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xai_assert import resources
from xai_assert.attributions.controls import CONTROLS
from xai_assert.errors import GatesError
from xai_assert.gates import Gate, parse_gates
from xai_assert.reporting.read import as_written, check_complete, read_results
from xai_assert.reporting.results import replace_file

ERRORS = 3  # standard errors between a threshold and the mean that it comes from
FEWEST = 10  # images; below this a standard error means little
METRIC = "af"
KEY = ("metric", "model", "method", "perturbation", "fraction")
MARKER = "# --- below: written by `xai-assert calibrate`, which replaces what it measures anew ---"

Key = tuple[str, str, str, str, float]


@dataclass(frozen=True)
class Calibrated:
    """AF of one cell over images and seeds. `values` is (seeds, images)."""

    key: Key
    values: np.ndarray
    seeds: tuple[int, ...]
    marks: tuple[str, ...]
    weights: str
    fingerprint: str
    day: str
    before: float | None = None  # the threshold so far

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def error(self) -> float:
        """Standard error of a run's mean: by the choice of the images, and by the seed."""
        images = self.values.mean(0).std(ddof=1) / math.sqrt(self.values.shape[1])
        seeds = self.values.mean(1).std(ddof=1) if len(self.seeds) > 1 else 0.0
        return float(np.hypot(images, seeds))

    @property
    def threshold(self) -> float:
        """Rounded away from the mean."""
        return math.floor(100 * (self.mean - ERRORS * self.error)) / 100

    @property
    def no_gate(self) -> str:
        """Why this cell gets no gate; empty if it gets one."""
        if self.key[2].partition("(")[0] in CONTROLS:
            return "a control"
        if self.weights.startswith("random"):
            return "random weights"
        if self.marks:
            return ", ".join(self.marks)
        return "" if self.threshold > 0 else f"not {ERRORS} standard errors above 0, which a random map has"

    @property
    def patterns(self) -> Key:
        """The key as a gate has it: names in which no character is a pattern's."""
        metric, model, method, perturbation, fraction = self.key
        return metric, glob.escape(model), glob.escape(method), glob.escape(perturbation), fraction

    @property
    def figures(self) -> str:
        count, seeds = self.values.shape[1], ", ".join(map(str, self.seeds))
        return (
            f"mean {self.mean:.3f}, standard error {self.error:.3f}, {count} images, "
            f"seed{'s' * (len(self.seeds) > 1)} {seeds}, weights {self.fingerprint[:12]}"
        )

    def toml(self) -> str:
        """The gate as a table of gates.toml."""
        lines = [
            f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in zip(KEY, self.patterns, strict=True)
        ]
        reason = json.dumps(f"calibrated {self.day}: {self.figures}", ensure_ascii=False)
        return "\n".join(
            ["[[gate]]", *lines, f"min = {self.threshold:.2f}", 'beats = "random"', f"reason = {reason}", ""]
        )


def calibrate(results: Sequence[str | Path], gates: str | Path) -> list[Calibrated]:
    """Write gates for the cells of `results`: each threshold lies 3 standard errors under the mean AF.

    The error is that of images and, with results of several seeds, of seeds. No gate is written for the controls, for
    cells with a mark (circular, saturated, unequal change), and where the threshold would not be above 0. What stands
    in `gates` above the marker line stays, and so do calibrated gates of cells that were not measured anew.

    Args:
        results: results.json of complete runs; of one cell with the same weights on the same images.
        gates: the file to write; if it is there, it must hold the marker line.

    Returns:
        All cells, those without a gate too.

    Raises:
        DataError: results that cannot be read, or are of an interrupted run.
        GatesError: results that do not fit together; a gates file without the marker line.
    """
    with as_written(*results):
        cells = [combine(key, found) for key, found in measured(results).items()]
    head, old = existing(Path(gates))
    before = {tuple(getattr(gate, name) for name in KEY): gate.bound.min for gate, _ in old if gate.expect == "pass"}
    cells = [dataclasses.replace(cell, before=before.get(cell.patterns)) for cell in cells]
    replaced = {cell.patterns for cell in cells} & set(before)
    kept = [text for gate, text in old if tuple(getattr(gate, name) for name in KEY) not in replaced]
    waivers = [text for gate, text in old if gate.expect == "fail" and text not in kept]
    text = "\n".join([head, *kept, *waivers, *(cell.toml() for cell in cells if not cell.no_gate)])
    parse_gates(text, gates)  # before the old file is touched
    replace_file(Path(gates).resolve(), text)
    return cells


def measured(results: Sequence[str | Path]) -> dict[Key, list[Mapping[str, Any]]]:
    """The records of each cell that has an AF, from all files, each with the day of its file."""
    found: dict[Key, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for path in results:
        document = read_results(path)
        check_complete(document, path, "thresholds need")
        for record in document["cells"]:
            if "cell" not in record or record["of_run"]:
                continue
            if record["verdict"] == "error":
                raise GatesError(f"{path}: {record['cell']} ended in an error: {record['error']}; mend that first")
            if METRIC in record["scores"]:
                key = (METRIC, record["model"], record["method"], record["perturbation"], record["fraction"])
                found[key].append({**record, "path": path, "day": document["created"][:10]})
    if not found:
        raise GatesError(f"{', '.join(map(str, results))}: no cell with a score {METRIC!r}; run the suites first")
    return found


def combine(key: Key, records: Sequence[Mapping[str, Any]]) -> Calibrated:
    """One cell of all files: the same weights and images, a seed each."""
    name, first = f"{key[1]}+{key[2]}+{key[3]}", records[0]["scores"][METRIC]
    for record in records[1:]:
        score = record["scores"][METRIC]
        for what, mine, other in (
            ("weights", first["provenance"]["fingerprint"], score["provenance"]["fingerprint"]),
            ("images", (records[0]["data"], first["image_ids"]), (record["data"], score["image_ids"])),
        ):
            if mine != other:
                raise GatesError(f"{name}: {records[0]['path']} and {record['path']} are of different {what}")
    by_seed = {record["seed"]: record for record in records}
    if len(by_seed) < len(records):
        seeds = ", ".join(f"{record['seed']} in {record['path']}" for record in records)
        raise GatesError(f"{name}: two results have one seed ({seeds}); give each run once, with its own --xai-seed")
    values = np.array([record["scores"][METRIC]["values"] for record in by_seed.values()], float)
    if not (np.abs(values) <= 1).all():
        raise GatesError(f"{name}: an AF lies between -1 and 1; {records[0]['path']} or another file holds others")
    if len(first["values"]) < FEWEST:
        raise GatesError(f"{name}: {len(first['values'])} images; a threshold needs at least {FEWEST}")
    return Calibrated(
        key=key,
        values=values,
        seeds=tuple(by_seed),
        marks=tuple(dict.fromkeys(mark.partition(" (")[0] for record in records for mark in record["marks"])),
        weights=first["provenance"]["weights"],
        fingerprint=first["provenance"]["fingerprint"],
        day=max(record["day"] for record in records),
    )


def existing(path: Path) -> tuple[str, list[tuple[Gate, str]]]:
    """The file down to the marker, and the gates below it; of a file that is not there, ours without its gates."""
    source = path if path.exists() else resources.suites() / "gates.toml"
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GatesError(f"gates file {path}: {error}") from None
    lines = text.splitlines(keepends=True)
    marked = [number for number, line in enumerate(lines, 1) if line.strip() == MARKER]
    if not marked:
        raise GatesError(
            f"gates file {path} has no marker line, so it is not clear what may be replaced; add this line at its end, "
            f"or write to another file:\n{MARKER}"
        )
    head, *blocks = re.split(r"^(?=\[\[gate\]\])", "".join(lines[marked[-1] :]), flags=re.MULTILINE)
    head = "".join(lines[: marked[-1]]) + (head.rstrip("\n") + "\n" if head.strip() else "")
    if source != path:
        return "".join(lines[: marked[-1]]), []
    above, gates = parsed(head, path), parsed(text, path)
    if len(above) + len(blocks) != len(gates):
        raise GatesError(f"gates file {path}: below the marker line, write [[gate]] at the start of a line of its own")
    return head, list(zip(gates[len(above) :], (block.rstrip() + "\n" for block in blocks), strict=True))


def parsed(text: str, path: Path) -> list[Gate]:
    """The gates in a text, which may be none yet."""
    return parse_gates(text, path) if re.search(r"^\s*\[", text, flags=re.MULTILINE) else []


def table(cells: Sequence[Calibrated]) -> list[str]:
    """One line a cell: its figures, then its threshold or why it has none."""
    named = [("+".join(map(str, cell.key[1:4])) + f" {100 * cell.key[4]:g}%", cell) for cell in cells]
    width = max(len(name) for name, _ in named)
    return [
        f"{name:{width}}  AF {cell.mean:+.3f}  standard error {cell.error:.3f}  "
        + (f"no gate: {cell.no_gate}" if cell.no_gate else f"min = {cell.threshold:.2f}")
        + ("" if cell.before is None else f" (was {cell.before:.2f})")
        for name, cell in named
    ]
