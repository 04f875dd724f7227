"""The record of what was measured. It imports no pytest: a ContextVar connects it to whoever runs the tests."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import xai_assert
from xai_assert.evidence import Evidence, Keep
from xai_assert.metrics import FidelityScore, Score

Record = dict[str, Any]


class RunningTest(Protocol):
    """Who listens: the records of one test, of which images pictures are wanted, the command that runs it again."""

    reproduce: str
    pictures: Keep
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


def pictures_wanted(otherwise: Keep) -> Keep:
    """Of which images the running test wants pictures."""
    listener = current()
    return listener.pictures if listener else otherwise


def strips(evidence: Sequence[Evidence]) -> list[Record]:
    """The worst and the best image of a cell, or all, as pictures; whoever writes the report puts them into files."""
    from xai_assert.reporting.pictures import strip  # matplotlib, which a run without pictures does not need

    roles = ["worst", *[""] * (len(evidence) - 2), "best"]
    return [
        {"image_id": str(e.image_id), "value": e.value, "role": role, "webp": base64.b64encode(strip(e)).decode()}
        for role, e in zip(roles, evidence, strict=False)
    ]


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
