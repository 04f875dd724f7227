"""The record of what was measured. It imports no pytest: a ContextVar connects it to whoever runs the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import xai_assert
from xai_assert.metrics import FidelityScore, Score

Record = dict[str, Any]


class RunningTest(Protocol):
    """Who listens: the records of one test, and the command that runs it again."""

    reproduce: str
    records: list[Record]


def current() -> RunningTest | None:
    """The running test, if somebody listens."""
    found: RunningTest | None = xai_assert._running_test.get()
    return found


def add(make: Callable[[], Record]) -> None:
    """Tell the running test; outside of one nothing happens, and no record is made."""
    listener = current()
    if listener:
        listener.records.append(make())


def gate_record(metric: str, bound: str, outcome: str, because: str, **more: Any) -> Record:
    """What one bound said of one score."""
    return {"metric": metric, "bound": bound, "outcome": outcome, "because": because} | more


def make_record(scores: Mapping[str, Score], gates: list[Record], verdict: str, **more: Any) -> Record:
    """One cell as plain JSON types: its scores, the gates that judged them, and the verdict."""
    first = next(iter(scores.values()), None)
    about = first.provenance if first else {}
    record: Record = {name: about.get(name) for name in ("model", "method", "perturbation", "fraction", "seed")}
    fidelity = next((s for s in scores.values() if isinstance(s, FidelityScore)), None)
    record |= {
        "scores": {name: score.to_dict() for name, score in scores.items()},
        "marks": fidelity.marks if fidelity else [],
        "gates": gates,
        "verdict": verdict,
        "error": None,
    }
    return record | more
