"""results.json on the disk: whole, or as it was."""

import json
import os

import pytest

from xai_assert.reporting.results import document, summary, write


def test_what_is_written_is_what_is_read(tmp_path):
    content = document([{"verdict": "pass", "gates": [1]}], complete=True, options={"seed": "0"})
    path = write(content, tmp_path / "deep" / "results.json")
    assert json.loads(path.read_text()) == content
    assert content["summary"] == {"pass": 1, "judged": 1}
    assert os.stat(path).st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = write({"old": True}, tmp_path / "results.json")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write({"new": True}, path)
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["results.json"]


def test_not_a_number_is_refused_rather_than_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write({"value": float("nan")}, tmp_path / "results.json")
    assert os.listdir(tmp_path) == []


def test_verdicts_are_counted_and_report_is_not_judged():
    records = [{"verdict": "report", "gates": []}, {"verdict": "fail", "gates": [1]}, {"verdict": "error", "gates": []}]
    counts = summary(records)
    assert (counts["report"], counts["fail"], counts["error"], counts["judged"], counts["pass"]) == (1, 1, 1, 1, 0)
