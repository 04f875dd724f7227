"""The record of what was measured. It imports no pytest: a ContextVar connects it to whoever runs the tests."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import xai_assert
from xai_assert.evaluation import Evaluation
from xai_assert.evidence import Evidence, Keep, Kept, Print
from xai_assert.metrics import FidelityScore, Score
from xai_assert.verdicts import Contest

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


def want_pictures(evaluation: Evaluation) -> None:
    """Have an evaluation keep what the running test wants pictures of."""
    listener = current()
    if listener:
        evaluation.keep, evaluation.develop = listener.pictures, developed


def developed(evidence: Evidence) -> bytes:
    """A strip; of evidence that cannot be drawn nothing, for a picture must not end a measurement."""
    from xai_assert.reporting.pictures import strip  # matplotlib, which a run without pictures does not need

    try:
        return strip(evidence)
    except Exception:
        return b""


def strips(kept: Sequence[Kept]) -> list[Record]:
    """The worst and the best image of a cell, or all, as pictures; whoever writes the report puts them into files.

    Raises:
        ValueError: one could not be made.
    """
    from xai_assert.reporting.pictures import strip

    roles = ["worst", *[""] * (len(kept) - 2), "best"]
    found = []
    for role, one in zip(roles, kept, strict=False):
        webp = one.webp if isinstance(one, Print) else strip(one)
        if not webp:
            raise ValueError(f"image {one.image_id} could not be drawn")
        about: Record = {"image_id": str(one.image_id), "value": one.value, "role": role}
        found.append(about | {"webp": base64.b64encode(webp).decode()})
    return found


def gate_record(metric: str, bound: str, outcome: str, because: str, **more: Any) -> Record:
    """What one bound said of one score."""
    return {"metric": metric, "bound": bound, "outcome": outcome, "because": because} | more


def contest_record(contest: Contest | None) -> Record:
    """What a gate's record says of the control that was to be beaten; nothing where none was."""
    if contest is None:
        return {}
    return {
        "beats": contest.control,
        "control": contest.value,
        "difference": contest.difference,
        "n": contest.count,
        "alpha": contest.alpha,
        "p": contest.p,
        "p_holm": None,
    }


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
