"""From test reports to what a run leaves behind: records, JUnit properties, results.json, the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from xai_assert.reporting.record import Record, make_record
from xai_assert.reporting.results import document, summary, write
from xai_assert.testing import OPTIONS, option, option_path
from xai_assert.testing.gates import GateParam

NO_GATE = int(pytest.ExitCode.NO_TESTS_COLLECTED)  # "could not judge" is told apart from "judged, and worse" (1)
PROPERTY = "xai_"
RED = ("fail", "undecided", "error")
VERDICTS = ("pass", "fail", "undecided", "waived", "error", "not run", "not applicable", "caught")
UNTRAINED = (
    "its weights are random, and AF on an untrained network says nothing of a release; "
    "give trained ones: --xai-model NAME@FILE"
)


def complete(item: pytest.Item, call: pytest.CallInfo[None], records: list[Record], is_gate: bool) -> list[Record]:
    """The records of this test; a gate that never came to measure gets one too, so that no cell is lost."""
    callspec = getattr(item, "callspec", None)
    param = callspec.params.get("gate") if callspec else None
    if records or not is_gate or not isinstance(param, GateParam) or call.when == "teardown":
        return records
    if call.excinfo is None:
        return (
            records if call.when == "setup" else [_unmeasured(param, "not run", "the test never called gate.check()")]
        )
    if call.excinfo.errisinstance(pytest.skip.Exception):
        return [_unmeasured(param, "not run", str(call.excinfo.value))]
    return [_unmeasured(param, "error", call.excinfo.exconly())]


def _unmeasured(param: GateParam, verdict: str, error: str) -> Record:
    return make_record({}, [], verdict, error=error, data=None, **param.about())


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


def finish(
    config: pytest.Config, records: list[Record], status: int, *, stopped: bool = False
) -> tuple[list[str], int]:
    """Write results.json; lines for the end of the run, and its exit status."""
    notes = verdict_notes(records, config)
    gates = [r for r in records if "cell" in r]
    red = [r for r in gates if r["verdict"] in RED]
    if status == 0 and red:
        notes.append(f"{len(red)} RED CELLS in tests that passed (caught, or xfail): waive a gate in the gates file")
        status = int(pytest.ExitCode.TESTS_FAILED)
    if status == 0 and not summary(records)["judged"]:
        notes.append("NO GATE WAS EVALUATED: nothing was judged, so this run is not green (exit status 5)")
        status = NO_GATE
    if gates or (records and option(config, "report")):
        folder = option_path(config, "report") or config.rootpath / "xai-report"
        options = {name: option(config, name) or default for name, (_, default, _) in OPTIONS.items()}
        complete = not stopped and status in (0, 1, NO_GATE)
        try:
            path = write(document(records, complete=complete, options=options), folder / "results.json")
            notes.append(f"results: {_shown(path, config)}")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            notes.append(f"RESULTS NOT WRITTEN to {folder}: {why}; the table above is complete")
            status = status or int(pytest.ExitCode.TESTS_FAILED)
    return notes, status


def verdict_notes(records: list[Record], config: pytest.Config) -> list[str]:
    """The count of verdicts, and why some models got none."""
    explained = [r for r in records if not r.get("of_run")]
    counts = summary(explained)
    words = [f"{counts[name]} {name}" for name in VERDICTS if counts[name]]
    words += [f"{counts['report']} reported without a verdict"] if counts["report"] else []
    notes = [f"cells: {', '.join(words)}"] if words else []
    gates = option_path(config, "gates")
    path = _shown(gates, config) if gates else "suites/gates.toml"
    for model in dict.fromkeys(r["model"] for r in explained if r["verdict"] == "report"):
        mine = [r for r in explained if r["model"] == model]
        if any(r["gates"] or r["verdict"] == "error" for r in mine):
            continue
        weights = {s["provenance"]["weights"] for r in mine for s in r["scores"].values()}
        why = UNTRAINED if any(w.startswith("random") for w in weights) else "add a [[gate]] for it"
        notes.append(f"no method gets a verdict on {model}: no gate in {path} matches its cells ({why})")
    return notes


def _shown(path: Path, config: pytest.Config) -> str:
    """A path as short as it can be said."""
    try:
        return str(path.resolve().relative_to(config.invocation_params.dir.resolve()))
    except ValueError:
        return str(path)
