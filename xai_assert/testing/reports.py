"""From test reports to what a run leaves behind: records, JUnit properties, results.json, the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from xai_assert.reporting.record import Record, make_record
from xai_assert.reporting.results import document, summary, write
from xai_assert.testing import OPTIONS, option

NO_GATE = int(pytest.ExitCode.NO_TESTS_COLLECTED)  # "could not judge" is told apart from "judged, and worse" (1)
PROPERTY = "xai_"


def complete(item: pytest.Item, call: pytest.CallInfo[None], records: list[Record], is_gate: bool) -> list[Record]:
    """The records of this test; a gate that never came to measure gets one too, so that no cell is lost."""
    if records or not is_gate or call.excinfo is None:
        return records
    callspec = getattr(item, "callspec", None)
    param = callspec.params.get("gate") if callspec else None
    if param is None:
        return records
    skipped = call.excinfo.errisinstance(pytest.skip.Exception)
    text = str(call.excinfo.value) if skipped else call.excinfo.exconly()
    about = {"model": param.name.model, "method": param.name.method, "perturbation": param.name.perturbation}
    about |= {"fraction": param.name.fraction, "of_run": param.of_run, "data": None}
    return [make_record({}, [], "not run" if skipped else "error", cell=str(param.name), error=text, **about)]


def set_properties(item: pytest.Item, records: list[Record]) -> None:
    """Measurements as properties of the test, which JUnit XML and every other report carry."""
    kept = [(name, value) for name, value in item.user_properties if not name.startswith(PROPERTY)]  # of a rerun
    found: list[tuple[str, object]] = []
    for record in records:
        for metric, score in record["scores"].items():
            found.append((PROPERTY + metric, round(score["value"], 6)))
            if "asr" in score:
                rel, irr = (sum(score[f"{side}_error"]) / score["n"] for side in ("relevant", "irrelevant"))
                found += [(f"{PROPERTY}asr", round(score["asr"], 6))]
                found += [(f"{PROPERTY}relevant_error", round(rel, 6)), (f"{PROPERTY}irrelevant_error", round(irr, 6))]
        found += [(f"{PROPERTY}mark", mark) for mark in record["marks"]]
        found.append((f"{PROPERTY}verdict", record["verdict"]))
    item.user_properties[:] = [*kept, *found]


def finish(config: pytest.Config, records: list[Record], status: int) -> tuple[list[str], int]:
    """Write results.json; lines for the end of the run, and its exit status."""
    notes = verdict_notes(records, config)
    counts = summary(records)
    gates = [r for r in records if "cell" in r]
    if status == 0 and not counts["judged"]:
        notes.append("NO GATE WAS EVALUATED: nothing was judged, so this run is not green (exit status 5)")
        status = NO_GATE
    if gates or option(config, "report"):
        folder = Path(option(config, "report") or config.rootpath / "xai-report")
        options = {name: option(config, name) or default for name, (_, default, _) in OPTIONS.items()}
        content = document(records, complete=status in (0, 1, NO_GATE), options=options)
        try:
            path = write(content, folder / "results.json")
            notes.append(f"results: {_shown(path, config)}")
        except OSError as error:
            notes.append(f"RESULTS NOT WRITTEN to {folder}: {error.strerror or error}; the table above is complete")
            status = status or 1
    return notes, status


def verdict_notes(records: list[Record], config: pytest.Config) -> list[str]:
    """The count of verdicts, and why some models got none."""
    counts = summary(records)
    words = [f"{counts[name]} {name}" for name in ("pass", "fail", "undecided", "waived", "error") if counts[name]]
    words += [f"{counts[name]} {name}" for name in ("not run", "not applicable") if counts[name]]
    words += [f"{counts['report']} reported without a verdict"] if counts["report"] else []
    notes = [f"cells: {', '.join(words)}"] if words else []
    unjudged = dict.fromkeys(r["model"] for r in records if r["verdict"] == "report")
    path = _shown(Path(option(config, "gates") or "suites/gates.toml"), config)
    for model in unjudged:
        if any(r["gates"] and not r.get("of_run") for r in records if r["model"] == model):
            continue
        weights = {s["provenance"]["weights"] for r in records if r["model"] == model for s in r["scores"].values()}
        random = any(w.startswith("random") for w in weights)
        why = (
            "its weights are random, and AF on an untrained network says nothing of a release; "
            "give trained ones: --xai-model NAME@FILE"
            if random
            else "add a [[gate]] for it"
        )
        notes.append(f"no method gets a verdict on {model}: no gate in {path} matches its cells ({why})")
    return notes


def _shown(path: Path, config: pytest.Config) -> str:
    """A path as short as it can be said."""
    try:
        return str(path.resolve().relative_to(config.invocation_params.dir.resolve()))
    except ValueError:
        return str(path)
