"""What was promised, judged from the data: a figure and yes or no for every line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import CAPTUM, OURS
from benchmarks.measuring import BARE, ratios
from benchmarks.memory import GRADIENT, IG
from benchmarks.tokens import PRODUCT, TOLERANCE

Results = Mapping[str, Any]
Figures = Iterator[tuple[str, float]]  # (of which network, how much)


@dataclass(frozen=True)
class Verdict:
    """A line judged: the worst figure, whose it is, and whether it is kept. What was not measured is not kept."""

    line: str
    bound: float
    at_most: bool
    figures: dict[str, float]

    @property
    def worst(self) -> tuple[str, float] | None:
        pick = max if self.at_most else min
        return pick(self.figures.items(), key=lambda item: item[1]) if self.figures else None

    @property
    def kept(self) -> bool:
        if self.worst is None:
            return False
        return self.worst[1] <= self.bound if self.at_most else self.worst[1] >= self.bound

    def as_record(self) -> dict[str, Any]:
        """As plain JSON types."""
        figures = {"figures": self.figures, "worst": self.worst and list(self.worst)}
        return {"line": self.line, "bound": self.bound, "at_most": self.at_most, **figures, "kept": self.kept}


def over_bare(work: str) -> Callable[[Results], Figures]:
    """Time of ours over that of the bare passes, by network."""

    def figures(results: Results) -> Figures:
        for case in results["cases"]:
            ours = case["contenders"].get(OURS, {})
            if case["work"] == work and "ratio" in ours:
                yield case["network"], ours["ratio"]["median"]

    return figures


def table_over_captum(results: Results) -> Figures:
    """Time of our table over that of its cells one by one, of the networks that have the paper's nine."""
    for case in results["cases"]:
        ours, captum = (case["contenders"].get(name, {}) for name in (OURS, CAPTUM))
        nine = case["work"] == "table" and case["title"].startswith("whole table, 9 ")
        if nine and "seconds" in ours and "seconds" in captum:
            each = (relative(one, case["contenders"][BARE]) for one in (ours, captum))
            yield case["network"], ratios(*each)["median"]


def relative(contender: Mapping[str, Any], bare: Mapping[str, Any]) -> list[float]:
    """Seconds of each round over those of its bare passes: its own where they were woven in."""
    base = contender.get("base_seconds", bare["seconds"])
    return [one / other for one, other in zip(contender["seconds"], base, strict=True)]


def memory_of_ig(results: Results) -> Figures:
    """Peak of our IG over that of one gradient batch of the same images."""
    peaks = {(one["network"], one["what"], one["who"]): one.get("bytes") for one in results["memory"]}
    for (network, what, who), found in peaks.items():
        base = peaks.get((network, GRADIENT, BARE))
        if (what, who) == (IG, OURS) and found is not None and base:
            yield network, found / base


def rollout_gain(results: Results) -> Figures:
    """Time of the product of matrices over ours at 1024 tokens, if both give the same map."""
    for curve in results["growth"]:
        for point in curve["points"]:
            ours, product = (point["contenders"].get(name, {}) for name in (OURS, PRODUCT))
            if curve["along"] == "tokens" and point["x"] == 1024 and "seconds" in ours and "seconds" in product:
                same = point["apart"] <= TOLERANCE
                gain = ratios(product["seconds"], ours["seconds"])["median"]
                yield "ViT, 1024 tokens" + ("" if same else ", another result"), gain if same else 0.0


LINES: list[tuple[str, float, bool, Callable[[Results], Figures]]] = [
    ("saliency: time over the bare gradient pass", 1.05, True, over_bare("saliency")),
    ("IG-200: time over the bare gradient passes", 1.05, True, over_bare("ig")),
    ("one fidelity cell: time over the bare passes", 1.10, True, over_bare("cell")),
    ("whole table, FE apart: time over the bare passes", 1.10, True, over_bare("table")),
    ("IG-200: peak memory over one gradient batch", 1.2, True, memory_of_ig),
    ("whole table over its cells one by one, with Captum and a plain loop", 0.4, True, table_over_captum),
    ("rollout at 1024 tokens: times faster than the product of matrices, equal result", 5.0, False, rollout_gain),
]


def judge(results: Results) -> list[Verdict]:
    """Every line, in the order of the promises."""
    return [Verdict(line, bound, at_most, dict(figures(results))) for line, bound, at_most, figures in LINES]
