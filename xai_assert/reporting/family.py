"""The tests of a run against controls (`beats`) are one family: each alone is wrong by chance now and then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assert.gates import worst
from xai_assert.reporting.record import Record
from xai_assert.significance import holm, images_needed, smallest_p


@dataclass(frozen=True)
class Overturned:
    """A gate whose test passed alone, and does not among all of its run.

    >>> Overturned("net+saliency+black", "af", "does not beat random").name
    'xai-holm::net+saliency+black-af'
    """

    cell: str
    metric: str
    because: str

    @property
    def name(self) -> str:
        """That of the failed test which stands for it."""
        return f"xai-holm::{self.cell}-{self.metric}"

    def __str__(self) -> str:
        return f"{self.cell} {self.metric}: {self.because}"


def words(gate: Mapping[str, Any]) -> str:
    """What a gate with `beats` found: the control, how much better the score is, and p; empty for others.

    >>> words({"beats": "edges", "difference": 0.314, "p": 2e-4, "p_holm": None})
    'edges +0.31, p=0.0002'
    """
    if gate.get("p") is None:
        return ""
    adjusted = gate.get("p_holm")
    after = "" if adjusted is None else f", Holm {adjusted:.2g}"
    return f"{gate['beats']} {gate['difference']:+.2g}, p={gate['p']:.2g}{after}"


def correct(records: Sequence[Record]) -> list[Overturned]:
    """Enter `p_holm` for every gate with `beats`, and turn those red that pass alone and not after Holm.

    Waived gates claim nothing, so they do not count. What was not adjusted stays None.

    >>> gates = [{"metric": "af", "beats": "random", "p": p, "alpha": 0.05, "n": 12, "outcome": "pass", "because": ""}
    ...          for p in (0.01, 0.03)]
    >>> records = [{"cell": name, "gates": [gate], "verdict": "pass"} for name, gate in zip("ab", gates)]
    >>> correct(records), records[0]["gates"][0]["p_holm"]
    ([], 0.02)
    """
    family = list(_tests(records))
    adjusted = holm(np.array([gate["p"] for _, gate in family]))
    found = []
    for (record, gate), p in zip(family, adjusted.tolist(), strict=True):
        gate["p_holm"] = p
        if gate["outcome"] == "pass" and p > gate["alpha"]:
            gate["outcome"], gate["because"] = _outcome(gate, len(family))
            record["verdict"] = worst(other["outcome"] for other in record["gates"])
            found.append(Overturned(record["cell"], gate["metric"], gate["because"]))
    return found


def tests_in(records: Sequence[Record]) -> int:
    """How many tests against controls there are.

    >>> tests_in([{"cell": "net+saliency+black", "gates": []}])
    0
    """
    return sum(1 for _ in _tests(records))


def _tests(records: Sequence[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    for record in records:
        for gate in record["gates"] if "cell" in record else ():
            if gate.get("p") is not None and gate["outcome"] != "waived":
                yield record, gate


def _outcome(gate: dict[str, Any], tests: int) -> tuple[str, str]:
    numbers = f"p={gate['p']:.2g}, after Holm {gate['p_holm']:.2g} > {gate['alpha']:.2g}"
    if tests * smallest_p(gate["n"]) > gate["alpha"]:
        needed = images_needed(tests, gate["alpha"])
        enough = f"at least {needed} are needed" if needed else "no number of images is enough: judge fewer cells"
        words = f"cannot be shown to beat {gate['beats']} among {tests} tests with {gate['n']} images; {enough}"
        return "undecided", f"{words} ({numbers})"
    return "fail", f"does not beat {gate['beats']} among the {tests} tests of this run ({numbers})"
