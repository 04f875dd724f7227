"""The table for a step summary (Markdown), what is red first, cut below the size that its readers take."""

from __future__ import annotations

from collections.abc import Sequence

from xai_assert.reporting import fillers
from xai_assert.reporting.record import Record
from xai_assert.reporting.terminal import HEAD, measured, row

LIMIT = 512 * 1024  # bytes; GitHub drops a step summary of over 1 MiB as a whole, and other steps may share the file
URGENT = ("error", "fail", "undecided")


def step_summary(records: Sequence[Record], notes: Sequence[str], limit: int = LIMIT) -> str:
    """A heading, the notes, where the sign of AF depends on the perturbation, and a row a cell.

    >>> step_summary([], ["cells: 1 pass"]).splitlines()[0]
    '### Explanations'
    """
    turns = fillers.turns(records)
    turned = fillers.turned(turns)
    lines = ["### Explanations", "", *(f"- {_escaped(note)}" for note in [*notes, *fillers.lines(turns)]), ""]
    explained = [record for record in records if not record.get("of_run") or record["verdict"] in URGENT]
    more = measured([record for record in explained if not record.get("of_run")])
    explained.sort(key=lambda record: URGENT.index(record["verdict"]) if record["verdict"] in URGENT else len(URGENT))
    rows = [HEAD, *(row(record, turned=id(record) in turned) for record in explained)] if explained else []
    for table in (rows, more):
        lines += _cut(table, limit - len("\n".join(lines).encode()) - 200)  # room for the words on what is left out
    return "\n".join(lines) + "\n"


def _cut(rows: Sequence[Sequence[str]], size: int) -> list[str]:
    """A table of at most so many bytes, and how many rows had no place."""
    lines = ["| " + " | ".join(map(_escaped, cells)) + " |" for cells in rows]
    lines[1:1] = ["|" + "---|" * len(rows[0])] if rows else []
    for number, line in enumerate(lines):
        size -= len(line.encode()) + 1
        if size < 0 and number > 1:
            return [*lines[:number], f"\n{len(lines) - number} more cells are left out here: see results.json"]
    return [*lines, ""] if lines else []


def _escaped(text: str) -> str:
    """Text as it is, in a table cell: no markup of Markdown or HTML."""
    for letter in "\\`*_{}[]<>|~":
        text = text.replace(letter, f"&#{ord(letter)};")
    return " ".join(text.split())
