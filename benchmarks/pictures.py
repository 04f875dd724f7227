"""Two small pictures of the results: ratios by work, and growth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.cases import CAPTUM, OURS, PLAIN, QUANTUS
from benchmarks.measuring import BARE
from benchmarks.tokens import PRODUCT

WAYS = (OURS, CAPTUM, QUANTUS, PLAIN)
# colours that people with a colour vision deficiency can tell apart (Okabe & Ito), and a marker of its own for each
LOOK = {
    BARE: ("#666666", "s"),
    OURS: ("#0072B2", "o"),
    CAPTUM: ("#D55E00", "^"),
    QUANTUS: ("#009E73", "D"),
    PLAIN: ("#CC79A7", "v"),
    PRODUCT: ("#CC79A7", "v"),
}
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "xai-assert", "font.size": 8, "axes.spines.top": False}
AXES = {"images": "images", "steps": "IG steps", "tokens": "tokens", "fractions": "fractions"}


def ratios(results: Mapping[str, Any]) -> Figure:
    """A panel for each network: a row for each work, a mark for each contender, the quartiles as a line."""
    networks = list(dict.fromkeys(case["network"] for case in results["cases"]))
    works = list(dict.fromkeys(case["work"] for case in results["cases"]))
    figure, panels = plt.subplots(
        1, len(networks), figsize=(1.5 + 2.1 * len(networks), 3.4), sharey=True, squeeze=False
    )
    for panel, network in zip(panels[0], networks, strict=True):
        panel.axvline(1, color=LOOK[BARE][0], linewidth=0.8)
        for case in results["cases"]:
            if case["network"] == network:
                draw_case(panel, works.index(case["work"]), case["contenders"])
        panel.set(title=network, xlabel="time / bare passes", xscale="log")
        panel.set_xticks([1, 2, 4], ["1", "2", "4"])
        panel.minorticks_off()
        panel.set_xlim(0.7, max(5.0, panel.get_xlim()[1]))
    panels[0][0].set_yticks(range(len(works)), [work.replace("_", " ") for work in works])
    panels[0][0].invert_yaxis()
    marks = [Line2D([], [], color=LOOK[who][0], marker=LOOK[who][1], linestyle="", label=who) for who in WAYS]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(WAYS), frameon=False)
    return figure


def draw_case(panel: Axes, row: int, contenders: Mapping[str, Any]) -> None:
    """The marks of one row, a little apart."""
    present = [who for who in WAYS if "ratio" in contenders.get(who, {})]
    for place, who in enumerate(present):
        height, found = row + 0.18 * (place - (len(present) - 1) / 2), contenders[who]["ratio"]
        colour, marker = LOOK[who]
        panel.plot([found["q1"], found["q3"]], [height, height], color=colour, linewidth=1.2)
        panel.plot(found["median"], height, color=colour, marker=marker, markersize=4)


def growth(results: Mapping[str, Any]) -> Figure:
    """A panel for each curve, both axes logarithmic: a straight line of slope 1 is growth in proportion."""
    curves = results["growth"]
    figure, panels = plt.subplots(1, len(curves), figsize=(0.5 + 2.6 * len(curves), 2.9), squeeze=False)
    for panel, curve in zip(panels[0], curves, strict=True):
        for who in curve["points"][0]["contenders"]:
            points = [(p["x"], p["contenders"][who].get("median_seconds")) for p in curve["points"]]
            known = [(x, 1000 * seconds) for x, seconds in points if seconds is not None]
            if known:
                colour, marker = LOOK[who]
                panel.plot(*zip(*known, strict=True), color=colour, marker=marker, markersize=4, label=who)
        panel.set(xscale="log", yscale="log", title=curve["work"], xlabel=AXES[curve["along"]], ylabel="ms")
        panel.set_xticks([p["x"] for p in curve["points"]], [str(p["x"]) for p in curve["points"]])
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.legend(frameon=False)
    return figure


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """`ratios.svg` and `growth.svg`, of what there is."""
    written = []
    for name, make, wanted in (("ratios", ratios, "cases"), ("growth", growth, "growth")):
        if not results[wanted]:
            continue
        with plt.rc_context({**STYLE, "figure.constrained_layout.use": True}):
            figure = make(results)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
        written.append(folder / f"{name}.svg")
    return written
