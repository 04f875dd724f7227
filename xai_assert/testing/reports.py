"""From test reports to what a run leaves behind: records, JUnit properties, results.json, the exit status."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from xai_assert.reporting.baseline import compare
from xai_assert.reporting.family import correct, tests_in
from xai_assert.reporting.folder import write_folder
from xai_assert.reporting.markdown import step_summary
from xai_assert.reporting.record import Record, make_record, strips
from xai_assert.reporting.results import NOT_JUDGED, document, exit_status, summary
from xai_assert.testing import session_of
from xai_assert.testing.flags import OPTIONS, option, option_path, report_folder
from xai_assert.testing.gates import GateParam, param_of
from xai_assert.testing.snapshots import snapshot_section

PROPERTY = "xai_"
VERDICTS = ("pass", "fail", "undecided", "waived", "error", "not run", "not applicable", "caught")
CRASHED = "the worker of pytest-xdist that was to measure it crashed"
FEW = 10  # assertions about one method in one test that are all recorded; of more (a property's examples) the worst is
UNTRAINED = (
    "its weights are random, and AF on an untrained network says nothing of a release; "
    "give trained ones: --xai-model NAME@FILE"
)


def make_report(
    item: pytest.Item, call: pytest.CallInfo[None], records: list[Record], is_gate: bool
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Around pytest's own: hang on the report what was measured, and under a failure what to look at."""
    records = complete(item, call, records, is_gate)
    if call.when == "call":  # before the report exists: JUnit reads the teardown report's copy
        set_properties(item, records)
    section = None
    if call.excinfo is not None and "heatmap_snapshot" in getattr(item, "fixturenames", ()):
        section = snapshot_section(item, call.excinfo.value, report_folder(item.config))
    report = yield
    if section:
        report.sections.append(("xai_assert", section))
    if records and (call.when == "call" or report.outcome != "passed"):
        if report.outcome == "passed":
            for record in records:  # an assertion that the test expected to fail is nobody's red cell
                if "cell" not in record and record["verdict"] in ("fail", "undecided"):
                    record["verdict"] = "caught"
        vars(report)["xai_records"] = [record | {"nodeid": item.nodeid} for record in records]
        records.clear()
    return report


def complete(item: pytest.Item, call: pytest.CallInfo[None], records: list[Record], is_gate: bool) -> list[Record]:
    """The records of this test; a gate that never came to measure gets one too, so that no cell is lost."""
    records[:] = worst_of_many(records)
    for record in records:
        add_pictures(record)
    param = param_of(item)
    if records or not is_gate or not param or call.when == "teardown":
        return records
    if call.excinfo is None:
        return (
            records if call.when == "setup" else [_unmeasured(param, "not run", "the test never called gate.check()")]
        )
    if call.excinfo.errisinstance(pytest.skip.Exception):
        return [_unmeasured(param, "not run", str(call.excinfo.value))]
    if call.excinfo.errisinstance(pytest.xfail.Exception):
        words = f"xfail without a run ({call.excinfo.value}); waive a gate in the gates file, where it expires"
        return [_unmeasured(param, "error", words)]
    return [_unmeasured(param, "error", call.excinfo.exconly())]


def worst_of_many(records: list[Record]) -> list[Record]:
    """All records of a test, but of many assertions about one method (the examples of a property) only the worst."""
    kinds: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        kinds.setdefault((tuple(record["scores"]), record["model"], record["method"], record.get("cell")), []).append(
            record
        )
    kept: list[Record] = []
    for same in kinds.values():
        kept += same if len(same) <= FEW else [min(same, key=_goodness) | {"measurements": len(same)}]
    return kept


def _goodness(record: Record) -> tuple[bool, float]:
    score = next(iter(record["scores"].values()))
    return record["verdict"] == "pass", score["value"] if score["higher_is_better"] else -score["value"]


def add_pictures(record: Record) -> None:
    """Turn what a record keeps for its pictures into pictures; one that cannot be made must not end the run."""
    evidence, record["pictures"] = record.get("pictures") or [], []
    if evidence and isinstance(evidence[0], dict):  # an assertion of a fixture, seen in setup already
        record["pictures"] = evidence
        return
    try:
        record["pictures"] = strips(evidence)
    except Exception as error:
        record["pictures_error"] = f"{type(error).__name__}: {error}"


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
    config: pytest.Config,
    records: list[Record],
    status: int,
    cells: tuple[list[Record], list[str], list[tuple[str, float]]],
    *,
    stopped: bool = False,
) -> tuple[list[str], int]:
    """Write the report folder and the step summary; lines for the end of the run, and its exit status.

    Args:
        cells: every planned one of the whole run; the tests that were to run in this one, which may be a shard, or
            narrowed; and the cells that were deselected.
        stopped: the run ended before all of them did.
    """
    planned, here, deselected = cells
    if config.pluginmanager.hasplugin("dsession") and status in (0, 1) and not stopped:
        records += lost(records, [plan for plan in planned if plan["nodeid"] in set(here)])
    place = {plan["nodeid"]: number for number, plan in enumerate(planned)}
    records.sort(key=lambda record: place.get(record.get("nodeid"), len(place)))  # workers finish in any order
    overturned, words = over_cells(config, records)
    status = int(pytest.ExitCode.TESTS_FAILED) if overturned and status in (0, NOT_JUDGED) else status
    notes = [*verdict_notes(records, config), *words]
    options = {name: option(config, name) or default for name, (_, default, _) in OPTIONS.items()}
    status, words = judged(config, records, status)
    notes += words
    failed = [r["pictures_error"] for r in records if "pictures_error" in r]
    notes += [f"pictures of {len(failed)} cells could not be made ({failed[0]})"] if failed else []
    content = document(records, complete=not stopped and status in (0, 1, NOT_JUDGED), options=options)
    content |= {"shard": option(config, "shard"), "planned": planned, "notes": list(notes), "exit_status": status}
    if option(config, "baseline"):
        notes += (
            against_baseline(config, content, deselected)
            if content["complete"]
            else ["NOT COMPARED with the baseline: the run is not complete"]
        )
        status = content["exit_status"]
    if not records and option(config, "shard"):
        notes.append(f"no cell falls to shard {option(config, 'shard')}: fewer shards would do")
    if option(config, "shard") or [r for r in records if "cell" in r] or (records and option(config, "report")):
        folder = report_folder(config)
        written: list[Path] = []
        try:
            for path in write_folder(content, folder):
                written.append(path)
                notes.append(f"{path.stem}: {_shown(path, config)}")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            what = "REPORT.HTML" if written else "RESULTS"
            notes.append(f"{what} NOT WRITTEN to {folder}: {why}; the table above is complete")
            status = status or int(pytest.ExitCode.TESTS_FAILED)
    notes += add_step_summary(records, notes)
    return notes, status


def judged(config: pytest.Config, records: list[Record], status: int) -> tuple[int, list[str]]:
    """The exit status that the verdicts ask for, and why, where the tests themselves passed."""
    if status:
        return status, []
    found, words = exit_status(records, strict=bool(option(config, "strict")))
    if found == int(pytest.ExitCode.TESTS_FAILED):
        words += " and no failed test (caught, or xfail): waive a gate in the gates file"
    return found, [words] if words else []


def against_baseline(config: pytest.Config, content: dict[str, Any], deselected: list[tuple[str, float]]) -> list[str]:
    """Compare the run with the accepted one; each score that makes it red is a failed test of its own."""
    session = session_of(config)
    before = len(content["notes"])
    if session.baseline is None:
        return []
    try:
        excused = {(cell, fraction) for cell, fraction in deselected}
        found = compare(content, os.path.relpath(session.baseline), margin=session.margin, excused=excused)
    except ValueError as error:
        content["exit_status"] = content["exit_status"] or int(pytest.ExitCode.TESTS_FAILED)
        return [f"NOT COMPARED with {session.baseline}: {error}"]
    found.enter(content)
    for row in found.bad:
        failed_test(config, f"xai-baseline::{row.cell}-{row.metric}", f"{row.outcome}: {row}")
    return list(content["notes"][before:])


def over_cells(config: pytest.Config, records: list[Record]) -> tuple[bool, list[str]]:
    """Correct the tests against controls for their number; each that no longer passes is a failed test of its own.

    A shard sees only some of them, so `xai-assert merge` does it for all.
    """
    if option(config, "shard"):
        tests = tests_in(records)
        return False, [f"{tests} tests against controls are corrected (Holm) by `xai-assert merge`"] if tests else []
    overturned = correct(records)
    for found in overturned:
        failed_test(config, found.name, str(found))
    return bool(overturned), [f"Holm: {found}" for found in overturned]


def failed_test(config: pytest.Config, name: str, text: str) -> None:
    """Report what only the end of a run can tell as a failed test."""
    where = (name.partition("::")[0], None, name)
    report = pytest.TestReport(name, where, {}, "failed", f"AssertionError: {text}", "call")
    config.hook.pytest_runtest_logreport(report=report)


def lost(records: list[Record], planned: list[Record]) -> list[Record]:
    """Records of the cells that a crashed worker of pytest-xdist took with it."""
    measured = {record.get("nodeid") for record in records}
    missing = [plan for plan in planned if plan["nodeid"] not in measured]
    return [make_record({}, [], "error", data=None, **(plan | {"error": CRASHED})) for plan in missing]


def add_step_summary(records: list[Record], notes: list[str]) -> list[str]:
    """Append to the step summary of GitHub's CI, where there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return []
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(step_summary(records, notes))
    except OSError as error:
        return [f"step summary not written to {path}: {error.strerror or error}"]
    return []


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
