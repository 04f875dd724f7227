"""What a comparison with a baseline found: rows, the lines at the end of a run, the text of a failure."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from xai_assert.explain import NAMES
from xai_assert.reporting.results import NOT_JUDGED

Cell = tuple[str, float | None]  # model+method+perturbation, fraction
Outcome = Literal["regressed", "missing", "undecided", "not comparable", "ok", "new"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RED = OUTCOMES[:4]  # the worst first
SHOWN = 20  # rows at the end of a run; the report has all
ACCEPT = "to accept the new state, copy the new results over {}, in a commit that a person reviews"


@dataclass(frozen=True)
class Row:
    """One metric of one cell. `before` and `after` are means over the `n` images, `drop` how much worse it became.

    `interval` is that of the drop (None under 10 images), `p` of the sign-flip test, `adjusted` after Holm; `worst`
    are the images that fell most: id, before, after.
    """

    cell: str
    fraction: float | None
    metric: str
    outcome: Outcome
    because: str
    n: int = 0
    before: float | None = None
    after: float | None = None
    drop: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    adjusted: float | None = None
    worst: tuple[tuple[int | str, float, float], ...] = ()

    @property
    def name(self) -> str:
        """`net+saliency+black 5% AF`."""
        share = "" if self.fraction is None else f" {100 * self.fraction:g}%"
        return f"{self.cell}{share} {NAMES.get(self.metric, self.metric)}"

    def __str__(self) -> str:
        if self.drop is None:
            return f"{self.name} {self.outcome}: {self.because}"
        interval = " [{:.2f}, {:.2f}]".format(*self.interval) if self.interval else ""
        numbers = f"drop {self.drop:.2f}{interval}, p={self.adjusted:.2g} after Holm"
        return f"{self.name} {self.before:.2f} -> {self.after:.2f} ({numbers}, {self.because})"


@dataclass(frozen=True)
class Comparison:
    """The scores of a run beside those of its baseline; `notes` are differences that do not forbid to compare."""

    rows: tuple[Row, ...]
    baseline: str
    margin: float
    confidence: float
    excused: frozenset[Cell]
    notes: tuple[str, ...]

    @property
    def bad(self) -> list[Row]:
        """The rows that make it red, the worst first."""
        return sorted(filter(self._is_red, self.rows), key=lambda row: (RED.index(row.outcome), -(row.drop or 0)))

    @property
    def red(self) -> bool:
        """Whether a score fell, vanished or could not be judged, or none could be compared."""
        return bool(self.bad) or all(row.drop is None for row in self.rows)

    def lines(self) -> list[str]:
        """For the end of a run: the counts, every row that is red, missing or new, and what else differs."""
        counts = collections.Counter(row.outcome for row in self.rows)
        words = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name]) or "no score of a method"
        bad = self.bad
        told = [*bad, *(row for row in self.rows if row.outcome in ("missing", "new") and row not in bad)]
        lines = [str(row) for row in told[:SHOWN]]
        lines += [f"and {len(told) - SHOWN} more: see results.json"] if len(told) > SHOWN else []
        lines += [*self.notes, *([ACCEPT.format(self.baseline)] if self.red else [])]
        rules = f"margin {self.margin:g}, confidence {self.confidence:g}"
        return [f"baseline {self.baseline}: {words} ({rules})", *(f"  {line}" for line in lines)]

    def records(self) -> dict[str, dict[str, Any]]:
        """The rows as plain JSON types, by name: `"net+saliency+black 5% AF"`."""
        return {row.name: self._plain(row) for row in self.rows}

    def of(self, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The rows of a record of results.json as plain JSON types, by metric; none for what is not compared."""
        if record.get("of_run"):
            return {}
        cell = record.get("cell"), record.get("fraction")
        return {row.metric: self._plain(row) for row in self.rows if (row.cell, row.fraction) == cell}

    def enter(self, document: dict[str, Any]) -> None:
        """Enter it into the results of the run: the rows of each cell, the lines, and the exit status if it is red."""
        for record in document["cells"]:
            record["regression"] = self.of(record)
        document["baseline"] = {"red": self.red, "lines": self.lines(), "rows": self.records()}
        document["notes"] = [*document["notes"], *self.lines()]
        if self.red and document["exit_status"] in (0, NOT_JUDGED):
            document["exit_status"] = 1

    def failure(self) -> str:
        """Why it is red, in at most nine lines of which the first says enough alone."""
        bad = self.bad
        if not bad:
            return f"nothing to compare with {self.baseline}: this run and it share no score of a method"
        first = bad[0]
        known = {(row.cell, row.fraction) for row in self.rows if row.outcome != "new"}
        same = {(row.cell, row.fraction) for row in bad if row.outcome == first.outcome}
        lines = [f"{len(same)} of {len(known)} cells {first.outcome} against {self.baseline}: {first}"]
        lines += [f"also: {row}" for row in bad[1:4]]
        lines += [f"and {len(bad) - 4} more"] if len(bad) > 4 else []
        worst = ", ".join(f"{i} {before:.3f} -> {after:.3f}" for i, before, after in first.worst)
        lines += [f"images that fell most: {worst}"] if worst else []
        lines += ["; ".join(self.notes)] if self.notes else []
        return "\n  ".join([*lines, ACCEPT.format(self.baseline)])

    def _is_red(self, row: Row) -> bool:
        return row.outcome in RED and not (row.outcome == "missing" and (row.cell, row.fraction) in self.excused)

    def _plain(self, row: Row) -> dict[str, Any]:
        plain = dataclasses.asdict(row) | {"worst": [list(image) for image in row.worst]}
        plain["interval"] = list(row.interval) if row.interval else None
        return plain | {
            "red": self._is_red(row),
            "text": str(row),
            "margin": self.margin,
            "confidence": self.confidence,
        }
