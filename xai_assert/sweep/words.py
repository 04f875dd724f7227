"""The end of a sweep in words: a table of the methods, the sentence on what to ship, and one on depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xai_assert.attributions.controls import CONTROLS
from xai_assert.sweep.choice import Choice
from xai_assert.sweep.plan import FRACTION, REFERENCE

SURE, LIKELY = 0.95, 0.75
HEAD = ("method", "AF", "95% interval", "p (Holm)", "odds of best", "sigma", "fraction", "perturbation")
NAMES = {"sigma": "sigmas", "fraction": "fractions", "perturbation": "perturbations"}


def sentence(record: Mapping[str, Any], choice: Choice) -> str:
    """Which method to ship for this model, and how sure that is."""
    name = record["model"] + ("" if record["complete"] else " (not all was measured)")
    at = f"{REFERENCE} at {100 * FRACTION:.0f} %"
    if not choice.p:
        return f"{name}: ship none: no method could be measured."
    af = {c["method"]: c for c in reference_cells(record["cells"])}
    methods = f"{len(choice.p)} method{'s' * (len(choice.p) > 1)}"
    if choice.method is None:
        best = max(choice.p, key=lambda method: float(af[method]["mean"]))
        words = f"best is {best} with AF {value(af[best])}, p = {choice.p[best]:.2g} after Holm over {methods}"
        return f"{name}: ship none: no method beats random under {at} ({words})."
    beat = f"{len(choice.beat)} of {methods} beat{'s' * (len(choice.beat) == 1)} random"
    words = f"{name}: ship {choice.method}: AF {value(af[choice.method])} under {at}; {beat}."
    return words + how_sure(choice) + _edges(choice)


def how_sure(choice: Choice) -> str:
    """The odds in a figure and a word, and where else the choice is first; nothing of a method without a rival."""
    if choice.runner_up is None:
        return ""
    runner = f", {choice.runner_up} in {percent(choice.odds[choice.runner_up])}"
    level = "Sure" if choice.sureness >= SURE else "Likely" if choice.sureness >= LIKELY else "About even odds"
    odds = f"it is the best in {percent(choice.sureness)} of bootstraps over the images"
    return f" {level}: {odds}{runner * (choice.sureness < SURE)}{_held(choice)}."


def percent(share: float) -> str:
    """A share in words that never promise certainty.

    >>> percent(0.9996), percent(0.5), percent(0.0)
    ('over 99 %', '50 %', 'under 1 %')
    """
    return "over 99 %" if share > 0.99 else "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _held(choice: Choice) -> str:
    """Where else the choice is first: at half of a part's points or more, and at fewer."""
    said: dict[bool, list[str]] = {True: [], False: []}
    for part, (first, count) in choice.held.items():
        said[2 * first >= count].append(f"{first} of {count} other {NAMES[part]}")
    strong, weak = (" and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) for words in said.values())
    return (f", and first under {strong}" if strong else "") + (f", but under only {weak}" if weak else "")


def _edges(choice: Choice) -> str:
    worse, count = choice.edges
    return f" The control edges, which never looks at the model, scores higher at {worse} of {count} points." * bool(
        worse
    )


def reference_cells(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those by which the method is chosen."""
    return [c for c in cells if (c["metric"], c["perturbation"], c["fraction"]) == ("af", REFERENCE, FRACTION)]


def value(cell: Mapping[str, Any]) -> str:
    """A mean with its interval."""
    return f"{cell['mean']:+.2f}{' ' * bool(cell['interval95'])}{interval(cell)}"


def interval(cell: Mapping[str, Any]) -> str:
    return "[{:+.2f}, {:+.2f}]".format(*cell["interval95"]) if cell["interval95"] else ""


def table(record: Mapping[str, Any]) -> list[str]:
    """A line a method: the reference AF, and the range of its mean AF over each part."""
    choice, rows = record.get("choice", {}), [HEAD]
    for cell in sorted(reference_cells(record["cells"]), key=lambda c: (c["method"] in CONTROLS, -c["mean"])):
        name = cell["method"]
        p, odds = choice.get("p_holm", {}).get(name), choice.get("odds", {}).get(name)
        mark = "control" if name in CONTROLS else "-"
        words = [f"{cell['mean']:+.3f}", interval(cell), mark if p is None else f"{p:.2g}"]
        words.append("" if odds is None else percent(odds))
        rows.append((name, *words, *(_span(record["cells"], name, part) for part in NAMES)))
    lines = _aligned(rows)
    lines += [f"AF {_beside(found)}" for found in record.get("correlations", [])]
    if "gradient_noise" in record:
        lines.append(f"gradient noise {_noise(record['gradient_noise'])} over {record['layers']} layers")
    lines += [f"note: {note}" for note in record["notes"]]
    return lines + [f"skipped: {words}" for words in _skipped(record["skipped"])]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of words under each other; a column that is empty under its head is left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    padded = [[word.ljust(max(map(len, column))) for word in column] for column in columns]
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _span(cells: Sequence[Mapping[str, Any]], method: str, part: str) -> str:
    means = [c["mean"] for c in cells if c["method"] == method and c["metric"] == "af" and part in c["parts"]]
    return f"{min(means):+.2f} .. {max(means):+.2f}" if means else ""


def _beside(found: Mapping[str, Any]) -> str:
    low, high = found["interval95"]
    words = f"{found['spearman']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"and {found['metric']}: rank correlation {words} over {found['cells']} cells"


def _noise(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.3f}" + (" [{:.3f}, {:.3f}]".format(*found["interval95"]) if found["interval95"] else "")


def _skipped(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each reason once, with what it kept from being measured."""
    keys = ("method", "metric", "perturbation")
    named: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        names = named.setdefault(entry["reason"], {key: [] for key in keys})
        for key in keys:
            if key in entry and entry[key] not in names[key]:
                names[key].append(entry[key])
    return [f"{'; '.join(', '.join(names[key]) for key in keys if names[key])}: {why}" for why, names in named.items()]


def depth_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Of several models: layers, gradient noise and the AF of saliency, and whether they go together."""
    if not found:
        return []
    rows = [("model", "layers", "gradient noise", "AF of saliency")]
    for row in sorted(found["models"], key=lambda row: int(row["layers"])):
        af = value(row["af"]) if row["af"]["mean"] is not None else "-"
        rows.append((row["model"], str(row["layers"]), _noise(row["gradient_noise"]), af))
    lines = _aligned(rows)
    trends = [("layers", "depth"), ("af", "the AF of saliency")]
    known = [(found[f"spearman_noise_{key}"], words) for key, words in trends]
    said = [f"{trend:+.2f} with {words}" for trend, words in known if trend is not None]
    if said:
        lines.append(f"rank correlation of gradient noise over {len(found['models'])} models: {', '.join(said)}")
    return lines
