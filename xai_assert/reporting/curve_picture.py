"""A picture of AF over the fraction of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from xai_assert.metrics import FidelityScore
from xai_assert.metrics.score import FEWEST

METHOD, CONTROL = "#1f5fa8", "#888888"


def draw(
    fractions: Sequence[float], scores: Sequence[FidelityScore], control: Sequence[FidelityScore], path: Path
) -> Path:
    """Write a PNG; the band is the 95 % interval, where there are images enough for one."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    percents = [100 * fraction for fraction in fractions]
    about = scores[0].provenance
    for found, colour, label in ((scores, METHOD, about["method"]), (control, CONTROL, "random")):
        axes.plot(percents, [score.value for score in found], "o-", color=colour, label=label)
        if len(found[0]) >= FEWEST:
            low, high = zip(*(score.interval() for score in found), strict=True)
            axes.fill_between(percents, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(percents, [f"{percent:g} %" for percent in percents])
    axes.minorticks_off()
    axes.set_ylim(-1, 1)
    axes.set_xlabel(f"pixels perturbed by {about['perturbation']}")
    axes.set_ylabel("attribution fidelity")
    axes.set_title(f"{about['model']}, {len(scores[0])} images; band: 95 % interval", loc="left", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    return path
