"""Where the sign of AF depends on the perturbation: such a method has no verdict that is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]

MARK = "sign turns"
WHY = (
    "Under some perturbations AF lies above 0 and under others below, each with its whole 95% interval. A filler may "
    "change one end more than the other, or show the network what it never saw; gaussian_noise changes both alike. "
    "Report which perturbation a verdict stands on, or change the method."
)


@dataclass(frozen=True)
class Turn:
    """The cells of one model x method x fraction whose AF is surely above 0, and those where it is surely below."""

    above: tuple[Record, ...]
    below: tuple[Record, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        return self.above + self.below

    def __str__(self) -> str:
        first = self.above[0]
        fraction = f" at {100 * first['fraction']:.3g}%" if first.get("fraction") is not None else ""
        above, below = (", ".join(map(_said, side)) for side in (self.above, self.below))
        return f"{first['model']} {first['method']}{fraction}: AF above 0 under {above}; below 0 under {below}"


def turns(records: Sequence[Record]) -> list[Turn]:
    """Where AF changes its sign between perturbations of the same model, method, fraction and images.

    An AF counts as above (below) 0 if its whole 95% interval is; without an interval it does not count.

    Example:
        >>> def cell(perturbation, low, high):
        ...     af = {"value": (low + high) / 2, "interval95": [low, high]}
        ...     about = {"model": "net", "method": "saliency", "perturbation": perturbation, "fraction": 0.05}
        ...     return about | {"scores": {"af": af}}
        >>> found = turns([cell("gaussian_noise", 0.25, 0.75), cell("black", -0.5, -0.25), cell("mean", -0.5, 0.5)])
        >>> print(*found)
        net saliency at 5%: AF above 0 under gaussian_noise (+0.50); below 0 under black (-0.38)
    """
    groups: dict[tuple[Any, ...], dict[int, list[Record]]] = {}
    for record in records:
        af = record["scores"].get("af")
        if record.get("of_run") or not af or not af.get("interval95"):
            continue
        low, high = af["interval95"]
        sides = groups.setdefault(_same(record, af), {1: [], -1: []})
        if low > 0 or high < 0:
            sides[1 if low > 0 else -1].append(record)
    return [Turn(tuple(sides[1]), tuple(sides[-1])) for sides in groups.values() if sides[1] and sides[-1]]


def lines(found: Sequence[Turn], most: int = 10) -> list[str]:
    """A line each, for people; of many the first ones, and how many more there are."""
    said = [f"the sign of AF depends on the perturbation: {turn}" for turn in found[:most]]
    left = len(found) - most
    return [*said, f"and so for {left} more: see results.json"] if left > 0 else said


def turned(found: Sequence[Turn]) -> set[int]:
    """The `id` of each record that gets the mark."""
    return {id(record) for turn in found for record in turn.records}


def _same(record: Record, af: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be alike for two AF to be compared."""
    names = ("model", "method", "fraction", "seed", "data")
    return (*(record.get(name) for name in names), af.get("reference"), af.get("aggregate"))


def _said(record: Record) -> str:
    return f"{record['perturbation']} ({record['scores']['af']['value']:+.2f})"
