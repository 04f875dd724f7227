"""Time and passes of several ways to do one work: by turns, so that a ratio compares neighbours in time.

A turn is the work alone; in a long one the bare passes are woven in, see `benchmarks/weaving.py`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import torch
from torch import nn

from xai_assert.batching import Passes, counted

BARE = "bare"
SHORT = 2.5  # seconds of a first round that is thrown away: in a longer one, what is done once does not show
MOST = 100  # rounds
Clock = Callable[[], float]


@dataclass(frozen=True)
class Contender:
    """One way to do the work; `missing` says why there is nothing to run."""

    name: str
    run: Callable[[], object] | None
    missing: str | None = None


@dataclass
class Timed:
    """Seconds of each round, its bare passes' where they were woven in, and the passes of the last one, in images."""

    seconds: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    missing: str | None = None


class Turn(NamedTuple):
    """What one turn took: seconds, passes in images, and the seconds of its bare passes where they were woven in."""

    seconds: float
    passes: Passes
    base: float | None = None


Take = Callable[[Callable[[], object]], Turn]  # run the work and measure it


class Rounds(TypedDict, total=False):
    """How many rounds: the arguments of `alternate`."""

    seconds: float
    fewest: int
    exact: int | None
    left: float


def clock_of(device: torch.device) -> Clock:
    """A clock that waits for what the device still has to do."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def order(names: Sequence[str], round_number: int) -> list[str]:
    """Each round begins with another one, every other runs backwards: nobody always follows the same neighbour.

    >>> [order(["a", "b", "c"], i) for i in range(3)]
    [['a', 'b', 'c'], ['c', 'b', 'a'], ['b', 'c', 'a']]
    """
    start = round_number // 2 % len(names)
    turned = [*names[start:], *names[:start]]
    return turned[::-1] if round_number % 2 else turned


def alone(module: nn.Module, clock: Clock = time.perf_counter) -> Take:
    """Turns that run the work and nothing else. The same hook counts the passes of each, so it costs them alike."""

    def take(run: Callable[[], object]) -> Turn:
        passes = Passes()
        with counted(module, passes):
            begun = clock()
            run()
            spent = clock() - begun
        return Turn(spent, passes)

    return take


def alternate(
    contenders: Sequence[Contender],
    take: Take,
    *,
    seconds: float,
    fewest: int = 3,
    exact: int | None = None,
    left: float = math.inf,
) -> dict[str, Timed]:
    """Run all contenders in rounds, as many as fit into `seconds`, at least `fewest`; or `exact`ly so many.

    More than one only while they fit into the seconds `left` to the whole run.

    A first round that is short is a warm-up and thrown away. A contender that raises is out, and says why; the bare
    passes may not.
    """
    timed = {one.name: Timed(missing=one.missing) for one in contenders}
    runs = {one.name: one.run for one in contenders if one.run is not None}
    if not runs:
        return timed
    first = _round(runs, timed, take, order(list(runs), 0))
    if first < SHORT:
        for one in timed.values():
            one.seconds.clear()
            one.base.clear()
        first = _round(runs, timed, take, order(list(runs), 0)) if runs else 0.0
    rounds = exact or max(fewest, min(MOST, int(seconds / first) if first else MOST))
    rounds = min(rounds, int(left / first)) if first and left < math.inf else rounds
    for number in range(1, rounds if runs else 0):
        _round(runs, timed, take, order(list(runs), number))
    return timed


def _round(runs: dict[str, Callable[[], object]], timed: dict[str, Timed], take: Take, names: list[str]) -> float:
    """One turn each; the seconds of all."""
    total = 0.0
    for name in names:
        one = timed[name]
        if name not in runs:
            continue
        try:
            turn = take(runs[name])
        except Exception as error:
            if name == BARE:
                raise
            one.missing, one.seconds, one.base = reason(error), [], []
            del runs[name]
            continue
        one.seconds.append(turn.seconds)
        one.passes = turn.passes
        if turn.base is not None:
            one.base.append(turn.base)
        total += turn.seconds + (turn.base or 0.0)
    return total


def reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:160]}{'...' if len(text) > 160 else ''}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'q1': 2.0, 'q3': 4.0}
    """
    if len(values) == 1:
        return {"median": values[0], "q1": values[0], "q3": values[0]}
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "q1": first, "q3": third}


def ratios(seconds: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratio in each round.

    >>> ratios([2.0, 6.0, 8.0], [1.0, 2.0, 2.0])["median"]
    3.0
    """
    return spread([one / other for one, other in zip(seconds, base, strict=True)])


def as_record(timed: dict[str, Timed], images: int) -> dict[str, Any]:
    """The contenders of a case as plain JSON types; passes an image, `base_seconds` of bare passes woven in."""
    base, record = timed.get(BARE), dict[str, Any]()
    for name, one in timed.items():
        if not one.seconds:
            record[name] = {"missing": one.missing or "did not run"}
            continue
        record[name] = {
            "seconds": one.seconds,
            "median_seconds": statistics.median(one.seconds),
            "passes": {"forward": one.passes.forward / images, "gradient": one.passes.gradient / images},
        }
        if one.base:
            record[name]["base_seconds"] = one.base
        if base is not None and base.seconds:
            record[name]["ratio"] = ratios(one.seconds, one.base or base.seconds)
    return record
