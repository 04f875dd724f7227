"""The shards of a run as one: nothing is lost, nothing counts twice, and what ran nowhere is not green."""

import json

import pytest

from xai_assert.errors import DataError
from xai_assert.reporting.merge import merge
from xai_assert.reporting.results import NOWHERE, exit_status

METHODS = ("saliency", "edges", "random")


def plan(method, asked=("af",)):
    return {
        "cell": f"net+{method}+black", "model": "net", "method": method, "perturbation": "black", "fraction": 0.05,
        "of_run": False, "nodeid": f"test_it.py::test_it[net+{method}+black]", "asked": list(asked),
    }  # fmt: skip


def record(method, verdict="pass", **more):
    gates = [{"metric": "af"}] if verdict in ("pass", "fail", "undecided") else []
    return plan(method) | {"scores": {}, "marks": [], "gates": gates, "verdict": verdict, "error": None, **more}


@pytest.fixture
def shard(tmp_path):
    """A function that writes the folder of a shard, and returns it."""

    def write(text, *records, planned=None, options=None, **more):
        folder = tmp_path / f"shard{text[0]}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        options = {"seed": "0", "report": str(folder), "shard": text, "strict": None, **(options or {})}
        content = {
            "schema": 1, "complete": True, "created": f"2026-11-2{text[0]}T00:00:00+00:00",
            "versions": {"torch": "2.15"}, "options": options, "summary": {}, "cells": list(records),
            "shard": text, "exit_status": 0, "notes": ["of its own"],
            "planned": [plan(method) for method in METHODS] if planned is None else planned,
        } | more  # fmt: skip
        (folder / "results.json").write_text(json.dumps(content))
        return folder

    return write


def test_shards_become_one_run_in_its_own_order(shard, tmp_path):
    folders = [shard("2/2", record("edges")), shard("1/2", record("random", "report"), record("saliency"))]
    content, status = merge(folders, tmp_path / "merged")
    assert [cell["method"] for cell in content["cells"]] == list(METHODS)
    assert (status, content["exit_status"], content["complete"], content["shard"]) == (0, 0, True, None)
    assert content["summary"] == {"pass": 2, "report": 1, "judged": 2}
    assert content["options"] == {"seed": "0", "report": None, "shard": None, "strict": None}
    assert content["created"].startswith("2026-11-22")
    assert content["notes"] == []
    assert json.loads((tmp_path / "merged" / "results.json").read_text()) == content


def test_a_file_is_as_good_as_its_folder(shard, tmp_path):
    files = [shard("1/1", *map(record, METHODS)) / "results.json"]
    assert merge(files, tmp_path / "merged")[1] == 0


def test_a_gate_that_ran_nowhere_is_red(shard, tmp_path):
    content, status = merge([shard("1/3", record("saliency")), shard("2/3", record("edges"))], tmp_path / "merged")
    lost = content["cells"][-1]
    assert (lost["cell"], lost["verdict"], lost["error"]) == ("net+random+black", "not run", NOWHERE)
    assert (status, content["complete"]) == (1, False)
    assert content["summary"] == {"pass": 2, "not run": 1, "judged": 2}
    assert content["notes"] == [
        "1 RED CELLS", "no results of shard 3/3", "1 CELLS OF GATES RAN NOWHERE: af net+random+black",
    ]  # fmt: skip


def test_a_cell_without_a_gate_that_ran_nowhere_is_told(shard, tmp_path):
    planned = [plan("saliency"), plan("random", asked=())]
    content, status = merge([shard("1/2", record("saliency"), planned=planned)], tmp_path / "merged")
    assert (status, content["complete"]) == (1, False)  # nobody knows what that shard found
    assert content["summary"] == {"pass": 1, "not run": 1, "judged": 1}
    assert content["notes"] == ["no results of shard 2/2"]


@pytest.mark.parametrize(
    ("more", "status", "complete"),
    [
        ({}, 0, True),
        ({"complete": False}, 1, False),
        ({"exit_status": 1}, 1, True),  # a test that is no cell failed there
        ({"exit_status": 5}, 0, True),  # nothing was judged there, but elsewhere
    ],
)
def test_a_shard_that_was_interrupted_or_red(shard, tmp_path, more, status, complete):
    folders = [shard("1/2", record("saliency"), record("edges")), shard("2/2", record("random", "report"), **more)]
    content, found = merge(folders, tmp_path / "merged")
    assert (found, content["complete"]) == (status, complete)
    said = {"complete": "is of an interrupted run", "exit_status": "exit status 1"}
    assert len(content["notes"]) == status
    assert all(f"{folders[1]}/results.json" in note and said[next(iter(more))] in note for note in content["notes"])


@pytest.mark.parametrize(
    ("verdict", "options", "status"),
    [
        ("pass", {}, 0),
        ("fail", {}, 1),
        ("undecided", {}, 1),
        ("error", {}, 1),
        ("report", {}, 5),
        ("not run", {}, 5),
    ],
)
def test_the_exit_status_is_that_of_a_run(shard, tmp_path, verdict, options, status):
    folders = [shard("1/1", *(record(method, verdict) for method in METHODS), options=options)]
    assert merge(folders, tmp_path / "merged")[1] == status


def test_strict_holds_for_the_merged_run(shard, tmp_path):
    cells = [record("saliency"), record("edges", "not applicable"), record("random")]
    assert merge([shard("1/1", *cells)], tmp_path / "a")[1] == 0
    content, status = merge([shard("1/1", *cells, options={"strict": True})], tmp_path / "b")
    assert status == 5
    assert content["notes"] == ["GATES WERE SKIPPED, which --xai-strict refuses (exit status 5): net+edges+black"]


def test_an_assertion_that_is_no_cell_does_not_decide():
    """Its test did, whose own verdict may be that it was to fail."""
    alone = {name: value for name, value in record("saliency", "fail").items() if name != "cell"}
    assert exit_status([alone, record("saliency")]) == (0, "")
    assert exit_status([record("saliency", "fail")]) == (1, "1 RED CELLS")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            ("2/3",),
            r"shard10/results\.json and .*/results\.json are not of one run: other number of shards \(2 and 3\)",
        ),
        (("1/2",), r"results\.json are both of shard 1/2"),
        (("2/2", {"options": {"seed": "1"}}), r"not of one run: other --xai-seed \('0' and '1'\)"),
        (("2/2", {"versions": {"torch": "2.16"}}), r"other versions of torch \('2\.15' and '2\.16'\)"),
        (("2/2", {"planned": [plan("mine")]}), r"are not of one run: other planned cells$"),
        (("2/2", {"shard": None}), r"are not of a shard; run each machine's part with --xai-shard I/N"),
        (("2/2", {"schema": 7}), r"not a results\.json of schema 1 but 7"),
        (("2/2", {"cells": [record("saliency")]}), r"both ran test_it\.py::test_it\[net\+saliency\+black\]"),
    ],
)
def test_what_is_not_of_one_run_is_refused(shard, tmp_path, second, said):
    text, more = second if len(second) == 2 else (*second, {})
    folders = [shard("1/2", record("saliency")), shard(text, **more)]
    with pytest.raises(DataError, match=said):
        merge(folders, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_results_of_an_older_version_say_what_they_lack(shard, tmp_path):
    folder = shard("1/1", *map(record, METHODS))
    content = json.loads((folder / "results.json").read_text())
    del content["exit_status"]
    (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"results\.json: an entry lacks 'exit_status'; run the suites again"):
        merge([folder], tmp_path / "merged")


def test_pictures_of_one_name_do_not_collide(shard, tmp_path):
    picture = {"image_id": "a", "value": 0.5, "role": "worst", "file": "pictures/0000-a.webp"}
    folders = [
        shard("1/2", record("saliency", pictures=[picture]), record("edges")),
        shard("2/2", record("random", pictures=[picture, picture | {"file": "pictures/gone.webp"}])),
    ]
    for folder in folders:
        (folder / "pictures").mkdir()
        (folder / "pictures" / "0000-a.webp").write_text(folder.name)
    home = tmp_path / "merged" / "pictures"
    home.mkdir(parents=True)
    (home / "of-an-earlier-run.webp").write_text("private")
    content, _ = merge(folders, tmp_path / "merged")
    first, none, third = (cell.get("pictures") for cell in content["cells"])
    assert none is None
    assert [p["file"] for p in (*first, *third)] == ["pictures/1-0000-a.webp", "pictures/2-0000-a.webp"]
    assert (tmp_path / "merged" / first[0]["file"]).read_text() == folders[0].name
    assert (tmp_path / "merged" / third[0]["file"]).read_text() == folders[1].name
    assert sorted(path.name for path in home.iterdir()) == ["1-0000-a.webp", "2-0000-a.webp"]
    assert content["notes"] == [f"1 pictures are not beside {folders[1]}/results.json"]


def test_a_picture_from_elsewhere_is_refused(shard, tmp_path):
    (tmp_path / "private.webp").write_text("mine")
    folder = shard("1/1", record("saliency", pictures=[{"file": "../private.webp"}]))
    with pytest.raises(DataError, match=r"picture \.\./private\.webp lies outside of its folder"):
        merge([folder], tmp_path / "merged")


def test_a_shard_is_not_overwritten(shard, tmp_path):
    folder = shard("1/1", *map(record, METHODS))
    before = (folder / "results.json").read_bytes()
    with pytest.raises(ValueError, match="holds the results of a shard; write to another folder"):
        merge([folder], folder)
    assert (folder / "results.json").read_bytes() == before
    with pytest.raises(ValueError, match="results is empty"):
        merge([], folder)
