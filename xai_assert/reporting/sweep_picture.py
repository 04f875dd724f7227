"""The picture of a sweep: AF over strength, fraction and perturbation, beside other metrics, and over depth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xai_assert.attributions.controls import CONTROLS

WIDTH, DPI = 16.0, 100  # inches: 1600 pixels
TALL, DEPTH_TALL = 10.0, 4.8
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # apart for every kind of colour vision
GREYS = {"random": ("#999999", ":"), "edges": ("#444444", "--")}
MARKERS = "osDv^P"
LETTERS = 150  # of the sentence, a line

Record = Mapping[str, Any]


def draw(records: Sequence[Record], depth: Record | None, path: Path) -> Path:
    """Draw the records of models, as `sweep.json` holds them, into a PNG 1600 pixels wide.

    Example:
        >>> import tempfile
        >>> cell = {"method": "random", "metric": "af", "perturbation": "black", "fraction": 0.05, "mean": 0.0}
        >>> cell |= {"interval95": None, "parts": ["perturbation"], "sigma": None, "circular": False}
        >>> record = {"model": "net", "cells": [cell], "correlations": [], "sentence": "net: ship none."}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw([record], None, Path(folder, "sweep.png")).stat().st_size > 1000
        True
    """
    swept = [record for record in records if any(cell["parts"] for cell in record["cells"])]
    heights = [TALL] * len(swept) + [DEPTH_TALL] * bool(depth)
    figure = Figure(figsize=(WIDTH, sum(heights) or 1.0), dpi=DPI, layout="constrained")
    if heights:
        blocks = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for block, record in zip(blocks, swept, strict=False):
            _model(block, record)
        if depth:
            _depth(blocks[-1], depth)
    temporary = path.with_name(f".{path.name}")
    FigureCanvasAgg(figure).print_figure(temporary, format="png")
    return temporary.replace(path)


def _model(block: Any, record: Record) -> None:
    cells = [cell for cell in record["cells"] if cell["metric"] == "af"]
    styles = _styles(dict.fromkeys(cell["method"] for cell in record["cells"]))
    words = textwrap.fill(record["sentence"], LETTERS)
    block.suptitle(words, fontsize=13, x=0.01, ha="left", fontweight="bold")
    beside = bool(record["correlations"])
    grid = block.add_gridspec(2, 2 + beside, width_ratios=(1, 1.15, 1)[: 2 + beside])
    _lines(block.add_subplot(grid[0, 0]), cells, styles, "sigma", "strength of the noise (ImageNet std)")
    _lines(block.add_subplot(grid[1, 0]), cells, styles, "fraction", "share of the pixels perturbed")
    _perturbations(block.add_subplot(grid[:, 1]), cells, styles)
    if beside:
        _correlations(block.add_subplot(grid[0, 2]), record["correlations"])
        _beside(block.add_subplot(grid[1, 2]), record, styles)
    keys = [Line2D([], [], label=name, markersize=6, **style) for name, style in styles.items()]
    block.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 6), fontsize=11, frameon=False)


def _styles(methods: Mapping[str, None]) -> dict[str, dict[str, Any]]:
    """Colours for methods, grey for the controls."""
    styles, count = {}, 0
    for name in methods:
        if name in CONTROLS:
            colour, dash = GREYS[name]
            styles[name] = {"color": colour, "linestyle": dash, "marker": "x" if name == "edges" else "+"}
        else:
            marker = MARKERS[count % len(MARKERS)]
            styles[name] = {"color": COLOURS[count % len(COLOURS)], "linestyle": "-", "marker": marker}
            count += 1
    return styles


def _ends(cells: Sequence[Record]) -> list[list[float]]:
    """Lengths of the error bars, below and above."""
    bars = [cell["interval95"] or (cell["mean"], cell["mean"]) for cell in cells]
    pairs = zip(bars, cells, strict=True)
    below, above = zip(*((max(0.0, c["mean"] - b[0]), max(0.0, b[1] - c["mean"])) for b, c in pairs), strict=True)
    return [list(below), list(above)]


def _lines(axes: Any, cells: Sequence[Record], styles: Mapping[str, Any], part: str, label: str) -> None:
    ticks: set[float] = set()
    for name, style in styles.items():
        own = sorted((c for c in cells if c["method"] == name and part in c["parts"]), key=lambda c: float(c[part]))
        if own:
            places = [c[part] for c in own]
            ticks.update(places)
            axes.errorbar(places, [c["mean"] for c in own], _ends(own), capsize=2, markersize=5, **style)
    axes.set_title(f"AF over {'sigma of gaussian_noise' if part == 'sigma' else 'fraction, gaussian_noise'}")
    if not ticks:
        return _nothing(axes)
    axes.set_xscale("log")
    axes.set_xticks(sorted(ticks), [f"{t:g}" if part == "sigma" else f"{100 * t:g} %" for t in sorted(ticks)])
    axes.minorticks_off()
    axes.set(xlabel=label, ylabel="AF")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(alpha=0.3)
    return None


def _perturbations(axes: Any, cells: Sequence[Record], styles: Mapping[str, Any]) -> None:
    own = [cell for cell in cells if "perturbation" in cell["parts"]]
    names = sorted({cell["perturbation"] for cell in own}, reverse=True)
    axes.set_title("AF by perturbation (hollow: circular, judged by itself)")
    if not own:
        return _nothing(axes)
    for number, (name, style) in enumerate(styles.items()):
        shift = (len(styles) - 1) / 2 - number
        for hollow in (False, True):
            mine = [c for c in own if c["method"] == name and c["circular"] == hollow]
            if mine:
                places = [names.index(c["perturbation"]) + 0.8 * shift / len(styles) for c in mine]
                look = {**style, "linestyle": "none", "markerfacecolor": "white" if hollow else style["color"]}
                axes.errorbar([c["mean"] for c in mine], places, xerr=_ends(mine), capsize=2, markersize=5, **look)
    for place in range(1, len(names)):
        axes.axhline(place - 0.5, color="black", linewidth=0.4, alpha=0.3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("AF at 5 % of the pixels, 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return None


def _correlations(axes: Any, found: Sequence[Record]) -> None:
    axes.set_title("rank correlation of AF with other metrics")
    for place, entry in enumerate(reversed(found)):
        low, high = entry["interval95"]
        ends = [[entry["spearman"] - low], [high - entry["spearman"]]]
        axes.barh(place, entry["spearman"], color="#7A9CC6", height=0.5)
        axes.errorbar([entry["spearman"]], [place], xerr=ends, color="black", capsize=3)
    names = [f"{entry['metric']}\n{entry['cells']} cells" for entry in reversed(found)]
    axes.set_yticks(range(len(found)), names)
    axes.set(xlim=(-1.08, 1.08), ylim=(-0.6, max(len(found), 3) - 0.4))
    axes.set_xlabel("Spearman over method x perturbation, 95 % interval")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)


def _beside(axes: Any, record: Record, styles: Mapping[str, Any]) -> None:
    """AF against the metric that agrees least with it: where they part ways."""
    found = record["correlations"]
    axes.set_title("AF against the metric that agrees least")
    metric = min(found, key=lambda entry: float(entry["spearman"]))["metric"]
    others = [cell for cell in record["cells"] if cell["metric"] == metric]
    fidelity = {
        (c["method"], c["perturbation"], c["fraction"]): c["mean"] for c in record["cells"] if c["metric"] == "af"
    }
    for name, style in styles.items():
        pairs = [
            (fidelity[place], c["mean"])
            for c in others
            if c["method"] == name and (place := (name, c["beside"], c["fraction"])) in fidelity
        ]
        if pairs:
            x, y = zip(*pairs, strict=True)
            axes.scatter(x, y, color=style["color"], marker=style["marker"])
    better = "higher" if others[0]["higher_is_better"] else "lower"
    axes.set(xlabel="AF", ylabel=f"{metric} ({better} is better)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(alpha=0.3)


def _depth(block: Any, depth: Record) -> None:
    block.suptitle(
        "depth of the network, noise of its input gradient, and AF of saliency", fontsize=13, x=0.01, ha="left"
    )
    left, right = block.subplots(1, 2)
    rows = depth["models"]
    for number, row in enumerate(rows):
        look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        noise, af = row["gradient_noise"], row["af"]
        left.errorbar([row["layers"]], [noise["mean"]], _ends([noise]), capsize=2, label=row["model"], **look)
        if af["mean"] is not None:
            right.errorbar([noise["mean"]], [af["mean"]], _ends([af]), _ends([noise]), capsize=2, **look)
    left.set(xlabel="convolution and linear layers in a forward pass", ylabel="gradient noise (0 linear, 1 all noise)")
    right.set(xlabel="gradient noise", ylabel="AF of saliency")
    left.legend(fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)


def _nothing(axes: Any) -> None:
    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="#777777")
    axes.set_axis_off()
