"""The page in the docs, written from the raw results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.acceptance import Verdict, judge
from benchmarks.cases import CAPTUM, OURS, PLAIN, QUANTUS
from benchmarks.measuring import BARE

Results = Mapping[str, Any]
WORDS = {OURS: "ours", CAPTUM: "Captum", QUANTUS: "Quantus", PLAIN: "plain loop"}

INTRO = """\
# What it costs to run

Time, passes and memory of our work beside that of Captum, of Quantus (where it can do the same) and of the passes of
the network that the work cannot do without. All of it from one run of one command, which made this page too:

```sh
python benchmarks/run.py --docs
```

A **ratio** is the time of a contender over that of the bare passes of the same round: median, and quartiles over the
rounds. In a round everyone has one turn, and each round begins with another one, so a machine that slows down slows all
of them. Of the long works (IG, adaptive IG, the whole table) one run lasts seconds, and within seconds the speed of a
shared machine changes by a tenth: on a CPU their bare passes are **woven** in, one before each pass of the work, on a
copy of the network, timed apart. The bare passes are those of the network alone: no map is kept, no picture perturbed,
no score computed. Everybody gets the same frozen network in evaluation mode, the same images as one batch, the same
batch size and the same scalar to explain (the mean of the map). A **gradient** pass is a forward and a backward one.
Passes are counted by a hook on the network, in images.
"""

NOTES = """\
- Captum has no fidelity: its column is its attributions in a plain loop, each cell on its own. The rollout of its
  table is ours, because it has none. It is given `internal_batch_size`, without which it expands all IG steps at once
  (its memory below).
- Quantus judges one number, here the scalar that is explained as the only logit of a classifier; the error of a map
  it does not know. Its fillers are its own, it counts the colours of a pixel as features of their own, and a step
  must divide the pixels, so its FE and deletion have a few more steps than 16.
- The bare passes of a score are one clean forward pass, one attribution, and those of its cells. Ours makes one fewer
  for saliency, whose own forward pass is the clean one: so a ratio may be below 1.
- `deletion_auc` alone measures both ends, because insertion and SRG then cost nothing more: it makes 15 passes that
  deletion does not need. The line "SRG" is that work with all that it yields.
- The bare passes of adaptive IG are as many gradients as it took on these images, so its ratio is its overhead alone;
  what it spares against 200 steps stands in its passes. Networks without training say nothing of the images, and
  there it was stopped at 100 gradients (25 on pixelformer-tiny07).
- pixelformer-tiny07 has 50 steps where the others have 200, and 30 where their table has 50: one pass of it takes as
  long as several of theirs.
- A fidelity curve of ours measures the random control beside the map, whose passes the bare ones do not have.
- METER-XXS and pixelformer-nano have the weights that come with the project; the others are random, with a depth head
  on the two of timm. What a pass costs does not depend on that.
"""


def page(results: Results) -> str:
    """The whole page, in Markdown."""
    parts = [INTRO, about(results), promises(judge(results)), times(results["cases"]), "### Notes\n", NOTES]
    parts += [memory(results["memory"]), growth(results["growth"])]
    return "\n".join(part for part in parts if part).rstrip("\n") + "\n"


def about(results: Results) -> str:
    """The machine, the versions, the day."""
    m, versions = results["machine"], results["versions"]
    on = f", on {m['device']}" if m["device"] != "cpu" else ""
    names = ", ".join(f"{name} {found or 'not installed'}" for name, found in versions.items())
    lines = [
        f"Machine: {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}{on}; {m['threads']} threads; "
        f"Python {m['python']}, {names}.",
        f"{results['created'][:10]}, {results['seconds'] / 60:.0f} minutes; load of the machine at the start "
        f"{m['load_at_start']:.1f}. Raw data: [benchmarks/benchmarks.json](benchmarks/benchmarks.json).",
    ]
    if results["settings"].get("only"):
        lines.append(f"**A part of it**: `--only` {', '.join(results['settings']['only'])}; the rest was not measured.")
    if results["quick"]:
        lines.append(
            "\n**A quick run**: one round, few steps. It shows that everything works, and its figures are noise."
        )
    return "\n".join(lines) + "\n"


def promises(verdicts: Sequence[Verdict]) -> str:
    """Every acceptance line, with its figures."""
    rows = []
    for verdict in verdicts:
        sign = "at most" if verdict.at_most else "at least"
        figures = ", ".join(f"{name} {figure:.2f}" for name, figure in verdict.figures.items()) or "not measured"
        rows.append([verdict.line, f"{sign} {verdict.bound:g}", figures, "yes" if verdict.kept else "**no**"])
    return "## What was promised\n\n" + table(["line", "bound", "measured (medians)", "kept"], rows)


def times(cases: Sequence[Mapping[str, Any]]) -> str:
    """A table for each network, the reasons of the gaps under it."""
    text = ["## Time and passes\n", "![time over the bare passes](benchmarks/ratios.svg)\n"]
    for network in dict.fromkeys(case["network"] for case in cases):
        own = [case for case in cases if case["network"] == network]
        size = "x".join(map(str, own[0]["size"]))
        text.append(f"### {network}, {size}\n")
        reasons: dict[str, str] = {}
        rows = [
            [case["title"], str(case["images"]), needed(case), *(entry(case, who, reasons) for who in WORDS)]
            for case in own
        ]
        text.append(table(["work", "images", "bare passes an image", *WORDS.values()], rows))
        text += [f"{mark}: {why}.  " for why, mark in reasons.items()] + [""]
    return "\n".join(text)


def needed(case: Mapping[str, Any]) -> str:
    """Passes and milliseconds an image of the bare passes."""
    found = case["contenders"].get(BARE, {})
    if "seconds" not in found:
        return "-"
    return f"{count(found['passes'])}, {1000 * found['median_seconds'] / case['images']:.0f} ms"


def entry(case: Mapping[str, Any], who: str, reasons: dict[str, str]) -> str:
    """Ratio with quartiles, and the passes where they are not those needed; or a mark for why there is none."""
    contenders = case["contenders"]
    found = contenders.get(who)
    if found is None:
        return ""
    if "ratio" not in found:
        return reasons.setdefault(found["missing"], f"({chr(ord('a') + len(reasons))})")
    ratio = found["ratio"]
    text = f"{ratio['median']:.2f} [{ratio['q1']:.2f}, {ratio['q3']:.2f}]"
    text = f"**{text}**" if who == OURS else text
    same = found["passes"] == contenders[BARE]["passes"]
    return text if same else f"{text}, {count(found['passes'])}"


def count(passes: Mapping[str, float]) -> str:
    """Forward and gradient passes in short.

    >>> count({"forward": 3.0, "gradient": 1.0})
    '3 f + 1 g'
    """
    kinds = [(passes["forward"], "f"), (passes["gradient"], "g")]
    return " + ".join(f"{number:g} {kind}" for number, kind in kinds if number) or "0"


def memory(records: Sequence[Mapping[str, Any]]) -> str:
    """Peaks over what was there before, a column for each network."""
    if not records:
        return ""
    networks = list(dict.fromkeys(one["network"] for one in records))
    found = {(one["what"], one["who"], one["network"]): one for one in records}
    rows = []
    for what, who in dict.fromkeys((one["what"], one["who"]) for one in records):
        row = [found.get((what, who, network), {}) for network in networks]
        rows.append([f"{what}, {WORDS.get(who, who)}" if who else what, *(mib(one) for one in row)])
    steps = ", ".join(
        f"{one['steps']} on {one['network']}" for one in records if one["what"] == "IG" and "ours" in one["who"]
    )
    return (
        "## Peak memory\n\nMiB over what was there before the work began, of a batch as the long works above have it; "
        f'steps of IG: {steps}. "As it comes" is Captum without `internal_batch_size`.\n\n'
        + table(["work", *networks], rows)
    )


def mib(record: Mapping[str, Any]) -> str:
    return f"{record['bytes'] / 2**20:.0f}" if "bytes" in record else record.get("missing", "")


def growth(curves: Sequence[Mapping[str, Any]]) -> str:
    """The picture, and the figures at the ends of each curve."""
    if not curves:
        return ""
    rows = []
    for curve in curves:
        for name in curve["points"][0]["contenders"]:
            ends = [point for point in curve["points"] if "seconds" in point["contenders"][name]]
            if ends:
                shown = [f"{p['x']}: {1000 * p['contenders'][name]['median_seconds']:.0f} ms" for p in ends]
                rows.append([f"{curve['work']}, {curve['along']}", WORDS.get(name, name), ", ".join(shown)])
    return "## Growth\n\n![growth](benchmarks/growth.svg)\n\n" + table(["work, along", "who", "time"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    <BLANKLINE>
    """
    lines = [list(head), *rows]
    text = ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(head))
    return "\n".join(text) + "\n"
