"""report.html: results.json and its pictures as one file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from xai_assert.attributions.controls import CONTROLS
from xai_assert.reporting import family, fillers
from xai_assert.reporting.pictures import CAPTIONS, TILE
from xai_assert.reporting.results import caveats
from xai_assert.reporting.terminal import fell

ORDER = ("fail", "regressed", "error", "undecided", "not run", "waived", "pass", "report", "caught", "not applicable")
RED = ORDER[:4]
PLAIN = ("value", "n", "unit", "higher_is_better", "interval95", "asr", "unit_of_error", "reference", "aggregate")
LISTS = ("values", "relevant_error", "irrelevant_error")
MINUS = "\N{MINUS SIGN}"
DIGITS = 6  # of a number on the page; results.json has them all
MARKS = {
    "circular": "An attack along the gradient judges a gradient map by itself.",
    "saturated": "Both errors are so large that they cannot tell regions apart.",
    "unequal change": "The filler changed one region more than the other (mean change of R / of I, in ImageNet "
    "standard deviations), so AF mixes relevance with the size of the change.",
    fillers.MARK: fillers.WHY,
    "accelerated": "Its passes are faster and round otherwise; the number is measured on the first images.",
    "from the store": "The attributions of these images are of an earlier run of the same model, images and code.",
    "unresponsive": "On these images neither region moves the prediction; their AF counts as 0.",
}

Record = Mapping[str, Any]


def render(document: Mapping[str, Any], folder: Path) -> str:
    """The page as text: the verdict table, and behind each row the details of its cell.

    Args:
        document: results.json as plain types (docs/results.md).
        folder: where the files of its pictures lie; one that is not there is named on the page.

    Raises:
        ValueError: a number is NaN or infinite.

    Example:
        >>> page = render({"schema": 1, "complete": True, "summary": {}, "cells": []}, Path("."))
        >>> page.startswith("<!doctype html>")
        True
    """
    records = document["cells"]
    against = document.get("baseline") or {}
    pictures = _Pictures(folder)
    ids: list[Sequence[Any]] = []
    turns = fillers.turns(records)
    turned = fillers.turned(turns)
    cells = [
        _cell(record, name, ids, pictures, more_marks=[fillers.MARK] if id(record) in turned else [])
        for record, name in zip(records, _names(records), strict=True)
        if not _of_run(record)
    ]
    cells.sort(key=lambda cell: _rank(cell["verdict"]))
    for position, cell in enumerate(cells):
        cell["position"] = position
    return _template().render(
        about=_about(document),
        headline=_headline(
            cells,
            [record["verdict"] for record in records if _of_run(record)],
            against,
        ),
        counts=_counts(cells),
        options={name: _plain(value) for name, value in (document.get("options") or {}).items() if value is not None},
        baseline=against.get("lines", []),
        notes=[note for note in document.get("notes") or [] if note not in against.get("lines", [])],
        complete=document.get("complete", True),
        cells=cells,
        turns=list(map(str, turns)),
        why_turns=fillers.WHY,
        caveats=caveats([record for record in records if not _of_run(record)]),
        with_drop=any(cell["regression"] for cell in cells),
        choices={name: _distinct(cells, name) for name in ("verdict", "model", "method", "perturbation")},
        of_run=sorted((_run_gate(r) for r in records if _of_run(r)), key=lambda gate: _rank(gate["verdict"])),
        red=RED,
        pictures=pictures.found,
        data={
            "cells": cells,
            "ids": ids,
            "marks": MARKS,
            "captions": CAPTIONS,
            "controls": list(CONTROLS),
            "order": ORDER,
            "red": RED,
        },
    )


class _Pictures:
    """The files of the pictures as data URIs, each once, numbered in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        self.found: list[str] = []

    def add(self, picture: Mapping[str, Any]) -> dict[str, Any]:
        shown = {name: picture.get(name) for name in ("image_id", "value", "role", "file")}
        path = self._folder / str(picture["file"])
        try:
            with Image.open(path) as image:
                width, height = image.size
                kind = Image.MIME[str(image.format)]
            content = path.read_bytes()
        except OSError as error:  # missing, unreadable, or no picture
            return shown | {"missing": error.strerror or "is no picture"}
        if str(path) not in self._numbers:
            self._numbers[str(path)] = len(self.found)
            self.found.append(f"data:{kind};base64,{base64.b64encode(content).decode()}")
        tiles = max(1, round(width / TILE))
        return shown | {"number": self._numbers[str(path)], "tiles": tiles, "ratio": width / tiles / height}


def _cell(
    record: Record, name: str, ids: list[Sequence[Any]], pictures: _Pictures, more_marks: Sequence[str]
) -> dict[str, Any]:
    """What the page says of a cell; the row of the table without JavaScript, too."""
    scores = {metric: _score(score, ids) for metric, score in record["scores"].items()}
    fidelity = scores.get("af", {})
    first: Mapping[str, Any] = next(iter(record["scores"].values()), {})
    about = first.get("provenance") or {}
    perturbation = record.get("perturbation") or ""
    fraction = record.get("fraction")
    regression = list((record.get("regression") or {}).values())
    return {
        "id": name,
        "verdict": "regressed" if fell(record) and record["verdict"] not in RED else record["verdict"],
        "model": record.get("model") or "",
        "method": record.get("method") or "",
        "perturbation": perturbation + (f" {100 * fraction:.3g}%" if fraction is not None else ""),
        "af": fidelity.get("value"),
        "interval": fidelity.get("interval95"),
        "rel": _mean(fidelity.get("relevant_error")),
        "irr": _mean(fidelity.get("irrelevant_error")),
        "fe": next((scores[metric]["value"] for metric in ("fe", "fe_cumulative") if metric in scores), None),
        "asr": scores["asr"]["value"] if "asr" in scores else fidelity.get("asr"),
        "others": [
            f"{metric} {score['value']:.3g}"
            for metric, score in scores.items()
            if metric not in ("af", "fe", "fe_cumulative", "asr")
        ],
        "drop": max((row["drop"] for row in regression if row["drop"] is not None), default=None),
        "marks": [*(record.get("marks") or []), *more_marks],
        "error": record.get("error"),
        "seed": record.get("seed"),
        "data": record.get("data"),
        "nodeid": record.get("nodeid"),
        "about": {key: _plain(about[key]) for key in ("weights", "fingerprint", "task", "device") if about.get(key)},
        "scores": scores,
        "slices": record.get("slices") or {"column": "", "metrics": {}},
        "gates": [
            {
                key: _plain(gate[key])
                for key in ("metric", "bound", "outcome", "because", "reason", "until")
                if gate.get(key)
            }
            | {"beats": family.words(gate)}
            for gate in record["gates"]
        ],
        "regression": regression,
        "pictures": [pictures.add(picture) for picture in record.get("pictures") or []],
    }


def _score(score: Mapping[str, Any], ids: list[Sequence[Any]]) -> dict[str, Any]:
    """A score as the page needs it; the ids of its images are a number in `ids`, for most cells have the same."""
    shown = {key: score[key] for key in PLAIN if score.get(key) is not None}
    shown |= {key: [_short(value) for value in score[key]] for key in LISTS if score.get(key)}
    if score.get("image_ids"):
        if score["image_ids"] not in ids:
            ids.append(score["image_ids"])
        shown["ids"] = ids.index(score["image_ids"])
    return shown


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _run_gate(record: Record) -> dict[str, Any]:
    """One line on a gate of the run itself: what was asked, what came."""
    said = [f"{gate['metric']}: {gate['bound']}" for gate in record["gates"]]
    values = [f"{metric} = {score['value']:.4g}" for metric, score in record["scores"].items()]
    because = [gate["because"] for gate in record["gates"] if gate.get("because")]
    return {
        "verdict": record["verdict"],
        "cell": record.get("cell") or record.get("nodeid") or "",
        "bounds": "; ".join(said),
        "values": "; ".join(values),
        "why": "; ".join(because) or (record.get("error") or ""),
    }


def _about(document: Mapping[str, Any]) -> dict[str, str]:
    """What was run, on what, when."""
    records = document["cells"]
    provenance = [score.get("provenance") or {} for record in records for score in record["scores"].values()]
    created = document.get("created")
    facts = {
        "models": (record.get("model") for record in records),
        "data": (_data(record) for record in records),
        "seed": (record.get("seed") for record in records),
        "device": (about.get("device") for about in provenance),
        "versions": (f"{name} {value}" for name, value in (document.get("versions") or {}).items() if value),
        "precision": [document.get("precision")],
        "date": [datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M %Z") if created else None],
    }
    joined = {name: ", ".join(dict.fromkeys(str(v) for v in found if v is not None)) for name, found in facts.items()}
    return {name: text for name, text in joined.items() if text}


def _data(record: Record) -> str | None:
    """The images without the model that they were prepared for, which stands beside them."""
    data = record.get("data")
    return re.sub(r"^<(.*?)(, for [^,]*)?>$", r"\1", str(data)) if data else None


def _headline(cells: Sequence[Mapping[str, Any]], of_run: Sequence[str], against: Mapping[str, Any]) -> str:
    judged = sum(bool(cell["gates"]) or cell["verdict"] in RED for cell in cells)
    red = sum(cell["verdict"] in RED for cell in cells)
    words = (
        f"{red or 'None'} of {judged} judged cells {'is' if red < 2 else 'are'} red" if judged else "No cell was judged"
    )
    unsound = sum(verdict in RED for verdict in of_run)
    words += f", {unsound} of {len(of_run)} gates on the run itself red" if unsound else ""
    if not against.get("red"):
        return words
    counts = Counter(row["outcome"] for row in against.get("rows", {}).values() if row["red"])
    missed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"{words}, and the baseline is not met{f' ({missed})' if missed else ''}"


def _counts(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cell in cells:  # sorted, red first
        counts[cell["verdict"]] = counts.get(cell["verdict"], 0) + 1
    return counts


def _rank(verdict: str) -> int:
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def _of_run(record: Record) -> bool:
    return bool(record.get("of_run"))


def _names(records: Sequence[Record]) -> list[str]:
    """An id for each record that a link can carry: of its cell or its test, with a number where that is taken."""
    names: dict[str, None] = {}
    for record in records:
        text = str(record.get("cell") or record.get("nodeid") or "assertion")
        base = name = "cell-" + re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-")
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names[name] = None
    return list(names)


def _distinct(cells: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(cell[name] for cell in cells if cell[name]))


def _mean(values: Sequence[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value)


def _number(form: str, value: float | None) -> str:
    return "" if value is None else f"{value:{form}}".rstrip(".").replace("-", MINUS)


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "default": str, "separators": (",", ":")}
    environment.globals["source"] = lambda name: loader.get_source(environment, name)[0]
    for name, form in (("signed", "+.3f"), ("figures", "#.4g"), ("share", ".2f")):
        environment.filters[name] = functools.partial(_number, form)
    return environment.get_template("report.html.j2")
