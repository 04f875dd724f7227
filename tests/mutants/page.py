"""The page docs/mutants.md, from what mutants.measure found."""

from __future__ import annotations

from typing import Any

from mutants.catalogue import CATALOGUE

HEAD = """# Planted faults, and the gates that catch them

Who watches the gates? Faults that people make, each of a few lines (`tests/mutants/catalogue.py`), are planted one at a
time in the methods, the models and the protocol, and the shipped suites are run. A cell names the first test that was
red. Made by `PYTHONPATH=tests python -m mutants.measure` and its `--table`; a quick part of it is among the project's
own tests (`tests/mutants/test_mutants.py`).

The gates on AF and on parameter randomisation (`test_fidelity`) are bounds for honest work rather than detectors, and
take minutes: they were asked of the faults in models alone. AF judges the method on the network that is there: of a
network that a fault changed it says whether saliency is true of the changed one. What catches those are accuracy and
stored heatmaps, which know the bundled networks. Of a network of yours, store heatmaps (docs/snapshots.md) and keep a
test of its accuracy; `test_model_is_sound` finds what needs no reference: dropout, statistics of the batch, scale.
"""


def page(found: dict[str, dict[str, str | None]], seeds: dict[str, Any]) -> str:
    """Markdown."""
    rows = {mutant: found[mutant.name] for mutant in CATALOGUE if mutant.name in found}
    suites = list(dict.fromkeys(suite for row in found.values() for suite in row))
    caught = {mutant: any(row.values()) for mutant, row in rows.items()}
    lines = [HEAD]
    lines.append(f"**{sum(caught.values())} of {len(caught)} faults are caught.**")
    missed = [mutant for mutant, is_caught in caught.items() if not is_caught]
    if missed:
        lines.append("No gate catches: " + "; ".join(f"`{m.name}` ({m.description})" for m in missed) + ".")
    unmeasured = [mutant.name for mutant in CATALOGUE if mutant not in rows]
    if unmeasured:
        lines.append("Not measured yet: " + ", ".join(f"`{name}`" for name in unmeasured) + ".")
    for where in ("methods", "models", "protocol"):
        lines.append(f"## In the {where}" if where != "protocol" else "## In the protocol")
        names = [s for s in suites if any(row.get(s) for mutant, row in rows.items() if mutant.where == where)]
        table = ["| fault | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
        for mutant, row in rows.items():
            if mutant.where == where:
                cells = [words(row[name]) if name in row else "not asked" for name in names]
                table.append(f"| {mutant.description} | " + " | ".join(cells) + " |")
        lines.append("\n".join(table))
    if seeds:
        lines.append(reseeded(seeds))
    return "\n\n".join(lines) + "\n"


def words(test: str | None) -> str:
    return test.removeprefix("test_").replace("_", " ") if test else "-"


def reseeded(seeds: dict[str, Any]) -> str:
    """What the clean originals did over other seeds."""
    lines = [
        "## The clean originals",
        "The seed changes the noise and how ties fall; all else is the same in every run. AF under gaussian_noise at "
        "5 % of the bundled scenes:",
        "",
        "| network | method | seeds | lowest AF | mean | highest | red |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, runs in seeds.items():
        for method in next(iter(runs.values())):
            rows = [run[method] for run in runs.values()]
            af = [row["af"] for row in rows]
            if method == "random":
                red = sum(abs(row["bias"]) > 4 for row in rows)
                most = max(abs(row["bias"]) for row in rows)
                words_of_red = f"{red} beyond the gate's 4 standard errors, the furthest {most:.2f}"
            else:
                words_of_red = str(sum(bool(row["red"]) for row in rows))
            mean = sum(af) / len(af)
            lines.append(
                f"| {model} | {method} | {len(rows)} | {min(af):.3f} | {mean:.3f} | {max(af):.3f} | {words_of_red} |"
            )
    return "\n".join(lines[:1]) + "\n\n" + "\n".join(lines[1:])
