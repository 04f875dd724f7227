"""The table for a step summary (Markdown), what is red first, cut below the size that its readers take."""

from __future__ import annotations

from collections.abc import Sequence

from xai_assert.reporting import fillers
from xai_assert.reporting.record import Record
from xai_assert.reporting.terminal import HEAD, row

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
    explained.sort(key=lambda record: URGENT.index(record["verdict"]) if record["verdict"] in URGENT else len(URGENT))
    if explained:
        lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    size = len("\n".join(lines).encode())
    for number, record in enumerate(explained):
        line = "| " + " | ".join(map(_escaped, row(record, turned=id(record) in turned))) + " |"
        size += len(line.encode()) + 1
        if size > limit - 200:  # room for the last line
            lines.append(f"\n{len(explained) - number} more cells are left out here: see results.json")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text as it is, in a table cell: no markup of Markdown or HTML."""
    for letter in "\\`*_{}[]<>|~":
        text = text.replace(letter, f"&#{ord(letter)};")
    return " ".join(text.split())
