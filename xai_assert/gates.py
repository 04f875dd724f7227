"""gates.toml: the thresholds of a release, and which cells they are for."""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_assert import registry
from xai_assert.errors import GatesError, UnknownNameError
from xai_assert.metrics import Score
from xai_assert.slices import Slice, failing, words
from xai_assert.verdicts import Bound, Contest, Control, judge

PATTERNS = ("model", "method", "perturbation")
RANKING = ("fail", "undecided", "waived", "pass")  # the verdict on a cell is the first of these among its gates


@dataclass(frozen=True)
class CellName:
    """How a gate sees a cell: names with their parameters, as `gaussian_noise(sigma=0.4)`."""

    model: str
    method: str
    perturbation: str
    fraction: float

    def __str__(self) -> str:
        return f"{self.model}+{self.method}+{self.perturbation}"


@dataclass(frozen=True)
class Gate:
    """One [[gate]] table: a bound on a metric of the cells that its patterns (fnmatch) match.

    `expect="fail"` with `until` is a waiver: the gate must fail, and may do so until that day.
    """

    metric: str
    bound: Bound
    model: str = "*"
    method: str = "*"
    perturbation: str = "*"
    fraction: float | None = None
    reason: str = ""
    expect: str = "pass"
    until: datetime.date | None = None

    def matches(self, cell: CellName) -> bool:
        """Whether this gate judges that cell."""
        names = all(fnmatch.fnmatchcase(getattr(cell, name), getattr(self, name)) for name in PATTERNS)
        return names and (self.fraction is None or math.isclose(self.fraction, cell.fraction, rel_tol=1e-9))

    def waived(self, today: datetime.date) -> bool:
        """Whether failing is what is expected of it on that day."""
        return self.expect == "fail" and self.until is not None and today <= self.until

    def about(self) -> dict[str, Any]:
        """Which gate this is, as plain JSON types."""
        where = {name: getattr(self, name) for name in (*PATTERNS, "fraction", "reason", "expect")}
        return where | {"until": self.until.isoformat() if self.until else None}

    def __str__(self) -> str:
        where = " ".join(f"{name}={getattr(self, name)!r}" for name in PATTERNS)
        return f"gate metric={self.metric!r} {where}"


KEYS = {"metric", *PATTERNS, "fraction", "min", "max", "confidence", "beats", "early", "reason", "expect", "until"}


def read_gates(path: str | Path) -> list[Gate]:
    """Read a gates file.

    Raises:
        GatesError: the file cannot be read, a key is unknown, a value is impossible, or a gate has no bound.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise GatesError(f"gates file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise GatesError(f"gates file {path} is not TOML: {error}") from None
    return parse_gates(text, path)


def parse_gates(text: str, path: str | Path) -> list[Gate]:
    """The gates of a file's text; `path` is for errors, which are those of `read_gates`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GatesError(f"gates file {path} is not TOML: {error}") from None
    tables = content.get("gate")
    if set(content) != {"gate"} or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise GatesError(f"gates file {path}: expected [[gate]] tables and nothing else, found {sorted(content)}")
    return [_gate(table, f"{path}, gate {number}") for number, table in enumerate(tables, 1)]


def _gate(table: Mapping[str, Any], where: str) -> Gate:
    values = dict(table)
    for key in values:
        if key not in KEYS:
            raise GatesError(f"{where}: {UnknownNameError('key', key, KEYS)}")
    if "metric" not in values:
        raise GatesError(f"{where}: needs metric=; known: {', '.join(registry.metrics.names())}")
    for name in ("metric", *PATTERNS, "reason"):
        if not isinstance(values.get(name, ""), str):
            raise GatesError(f"{where}: {name} must be text, not {values[name]!r}")
    fraction = values.get("fraction")
    if fraction is not None and not (isinstance(fraction, float) and 0 < fraction <= 0.5):
        raise GatesError(f"{where}: fraction must be above 0 and at most 0.5, not {fraction!r}")
    if values.get("expect", "pass") not in ("pass", "fail"):
        raise GatesError(f"{where}: expect must be 'pass' or 'fail', not {values['expect']!r}")
    until = values.get("until")
    if isinstance(until, str):
        try:
            values["until"] = datetime.date.fromisoformat(until)
        except ValueError:
            raise GatesError(f"{where}: until must be a date such as 2027-06-30, not {until!r}") from None
    elif until is not None and type(until) is not datetime.date:
        raise GatesError(f"{where}: until must be a date such as 2027-06-30, not {until!r}")
    if (until is not None) != (values.get("expect") == "fail"):
        raise GatesError(f"{where}: expect = 'fail' and until = a day go together: a waiver expires")
    try:
        facts = registry.metrics.get(values["metric"]).facts
        early = values.pop("early", False)
        limits = {name: values.pop(name, None) for name in ("min", "max", "confidence", "beats")}
        bound = Bound(**limits, early=early)
        if bound.early and facts is not None and not all(map(math.isfinite, facts.range)):
            words = "early needs a metric with a known range, such as af"
            raise ValueError(f"{words}; of {facts.name} it is {facts.range}")
    except (TypeError, ValueError) as error:
        raise GatesError(f"{where}: {error}") from None
    return Gate(bound=bound, **values)


def check_gates_match(
    gates: Sequence[Gate], cells: Iterable[CellName], *, narrowed: Mapping[str, Iterable[str]], path: str | Path
) -> None:
    """Refuse a gate that no cell of this run can ever meet: most likely a misspelt name.

    Args:
        gates: of one file.
        cells: of this run.
        narrowed: for the dimensions that the user narrowed in this run, all names that exist besides.
        path: of the file, for the text.

    Raises:
        GatesError: naming the gate and the nearest name.
    """
    cells = list(cells)
    for gate in gates:
        loose: dict[str, Any] = {"fraction": None} if "fraction" in narrowed else {}
        for name in PATTERNS:
            pattern = getattr(gate, name).partition("(")[0]  # names are known without parameters
            if any(fnmatch.fnmatchcase(known, pattern) for known in narrowed.get(name, ())):
                loose[name] = "*"
        wide = dataclasses.replace(gate, **loose)
        if not any(wide.matches(cell) for cell in cells):
            raise GatesError(f"gates file {path}: {gate} matches no cell; {_misfit(wide, cells)}")


def _misfit(gate: Gate, cells: Sequence[CellName]) -> str:
    for name in PATTERNS:
        known = sorted({getattr(cell, name) for cell in cells})
        if not any(fnmatch.fnmatchcase(value, getattr(gate, name)) for value in known):
            return str(UnknownNameError(name, getattr(gate, name), known))
    fractions = sorted({cell.fraction for cell in cells})
    return f"fraction {gate.fraction} is not among those of this run: {', '.join(map(str, fractions))}"


def worst(outcomes: Iterable[str]) -> str:
    """The verdict on a cell from those of its gates; "report" if it has none.

    >>> worst(["pass", "undecided"])
    'undecided'
    """
    return min(outcomes, key=RANKING.index, default="report")


@dataclass(frozen=True)
class Judged:
    """A gate's word on a cell. `outcome`: pass, fail, undecided, or waived (failed as expected)."""

    gate: Gate
    outcome: str
    because: str = ""
    contest: Contest | None = None

    @property
    def red(self) -> bool:
        return self.outcome not in ("pass", "waived")


def judge_gate(
    gate: Gate,
    score: Score,
    today: datetime.date | None = None,
    control: Control | None = None,
    *,
    sliced: Sequence[Slice] = (),
    column: str = "",
) -> Judged:
    """The verdict on a score, with the waiver: expected failures that do not fail are failures.

    `control` measures another method in the same way, for `beats`. `sliced` are the slices of the score by `column`: a
    gate that passes on the whole fails if one of them surely misses its bound.
    """
    __tracebackhide__ = True
    today = today or datetime.date.today()
    verdict = judge(score, gate.bound, control)
    outcome, because = str(verdict.outcome), verdict.because
    worst_slice = failing(sliced, gate.bound)
    if outcome == "pass" and worst_slice:
        outcome, because = "fail", words(worst_slice, score, gate.bound, column)
    if gate.waived(today):
        met = f"meets {gate.bound} although expect = 'fail': remove the waiver"
        outcome, because = ("fail", met) if outcome == "pass" else ("waived", because)
    elif gate.expect == "fail" and because:
        because += f"; the waiver ended on {gate.until}"
    return Judged(gate, outcome, because, verdict.contest)
