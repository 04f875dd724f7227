"""The table at the end of a run, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xai_assert.reporting import fe_against_af, fillers
from xai_assert.reporting.record import Record
from xai_assert.reporting.results import caveats

HEAD = ("model", "method", "perturbation", "rel", "irr", "FE", "ASR", "AF", "95% interval", "verdict", "marks")
COSTS = ("model", "method", "forward", "gradient", "x forward", "ms", "images/s", "chunk", "MiB")  # passes, then time
SLICES = ("model", "method", "perturbation", "sliced by", "slices", "worst AF (images)", "best AF (images)")
LEFT = {"task", "verdict", "marks", *SLICES} - {"slices"}
SHOWN = {"af", "fe", "fe_cumulative"}  # in the columns of the first table


def table(records: Sequence[Record]) -> list[str]:
    """One line a cell: errors after perturbing R and I, FE, ASR, AF with its interval, the verdict, and marks."""
    explained = [record for record in records if not record.get("of_run")]
    turns = fillers.turns(explained)
    turned = fillers.turned(turns)
    rows = [row(record, turned=id(record) in turned) for record in explained]
    lines = _aligned([HEAD, *rows]) if rows else []
    for more in (measured(explained), sliced(explained)):
        lines += ["", *_aligned(more)] if more else []
    errors = dict.fromkeys(_error(record) for record in records if record["error"])
    warned = [*fillers.lines(turns), *fe_against_af.lines(explained)]
    return [*lines, *_legend(explained), *_costs(records), *warned, *errors, *_soundness(records)]


def _legend(explained: Sequence[Record]) -> list[str]:
    scores = [score for record in explained for score in record["scores"].values()]
    units = dict.fromkeys(score["unit_of_error"] for score in scores if score.get("unit_of_error"))
    words = "rel, irr: mean error after perturbing the most and the least relevant pixels"
    lines = [f"{words}, in {'/'.join(units)}"] if units else []
    sets = [f"{s['n']} of {r['data']}" for r in explained if r.get("data") for s in r["scores"].values()]
    cannot = [f"{metric}: {words}" for metric, words in caveats(explained).items()]
    return [*lines, *(f"images: {what}" for what in dict.fromkeys(sets)), *cannot]


def _error(record: Record) -> str:
    return f"{record['verdict']}: {record['model']} {record['method']}: {record['error'].splitlines()[0]}"


def row(record: Record, *, turned: bool = False) -> tuple[str, ...]:
    """The words of one line, as `HEAD` names them; `turned` if another perturbation gives AF the other sign."""
    scores = record["scores"]
    af = scores.get("af")
    fe = next((scores[name] for name in ("fe", "fe_cumulative") if name in scores), None)
    rel, irr = (_mean(af[f"{side}_error"]) if af else "" for side in ("relevant", "irrelevant"))
    interval = "[{:+.2f}, {:+.2f}]".format(*af["interval95"]) if af and af["interval95"] else ""
    asr = scores["asr"]["value"] if "asr" in scores else af["asr"] if af else None
    return (
        record["model"] or "",
        record["method"] or "",
        _perturbation(record),
        rel,
        irr,
        f"{fe['value']:+.2f}" if fe else "",
        "" if asr is None else f"{asr:.2f}",
        f"{af['value']:+.3f}" if af else "",
        interval,
        record["verdict"].upper() if record["verdict"] in ("fail", "error", "undecided") else record["verdict"],
        "; ".join([*record["marks"], *_more_marks(record, turned)]),
    )


def measured(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under a head: every metric with its 95 % interval, of cells of which more than AF and FE was measured."""
    chosen = [record for record in records if not SHOWN.issuperset(record["scores"])]
    names = dict.fromkeys(name for record in chosen for name in record["scores"])
    rows = []
    for record in chosen:
        scores = record["scores"]
        tasks = (score["provenance"].get("task") for score in scores.values())
        where = (record["model"] or "", next(filter(None, tasks), ""), record["method"] or "", _perturbation(record))
        rows.append((*where, *(_with_interval(scores[name]) if name in scores else "" for name in names)))
    return [("model", "task", "method", "perturbation", *names), *rows] if rows else []


def sliced(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under a head: of each cell that was cut into slices, how AF is on the worst and the best of them."""
    rows = []
    for record in records:
        found = record.get("slices") or {"metrics": {}}
        for metric, parts in found["metrics"].items():
            if metric == "af":
                ends = [f"{one['name']} {one['value']:+.3f} ({one['count']})" for one in (parts[0], parts[-1])]
                where = (record["model"] or "", record["method"] or "", _perturbation(record))
                rows.append((*where, found["column"], str(len(parts)), *ends))
    return [SLICES, *rows] if rows else []


def _with_interval(score: Mapping[str, Any]) -> str:
    interval = " [{:+.3f}, {:+.3f}]".format(*score["interval95"]) if score["interval95"] else ""
    return f"{score['value']:+.3f}{interval}"


def _perturbation(record: Record) -> str:
    """Its name and the share of the pixels."""
    name: str = record["perturbation"] or ""
    return name if record["fraction"] is None else f"{name} {100 * record['fraction']:.3g}%"


def _more_marks(record: Record, turned: bool) -> list[str]:
    marks = {fillers.MARK: turned, "fell below the baseline": fell(record)}
    return [mark for mark, holds in marks.items() if holds]


def fell(record: Mapping[str, Any]) -> bool:
    """Whether the comparison with a baseline makes the cell red."""
    return any(row["red"] for row in (record.get("regression") or {}).values())


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}"


def _costs(records: Sequence[Record]) -> list[str]:
    """What an explanation costs, where that was measured."""
    rows = []
    for record in records:
        cost = record["scores"].get("forward_ratio")
        if cost:
            memory = f"{cost['peak_memory'] / 2**20:.0f}" if cost["peak_memory"] else ""
            rate = f"{cost['images_per_second']:.1f}" if cost["images_per_second"] else ""
            passes = (f"{cost['forward_passes']:g}", f"{cost['gradient_passes']:g}")
            times = (f"{cost['value']:.2f}", f"{cost['milliseconds']:.1f}", rate)
            chunk = str(cost["provenance"]["batch_size"])
            rows.append((record["model"], record["method"], *passes, *times, chunk, memory))
    return _aligned([COSTS, *rows]) if rows else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under the first row, without those that are empty."""
    head, columns = rows[0], list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    keep = [i for i, column in enumerate(columns) if any(column[1:])]
    pad = [str.ljust if name in LEFT else str.rjust for name in head]
    return ["  ".join(pad[i](row[i], widths[i]) for i in keep).rstrip() for row in rows]


def _soundness(records: Sequence[Record]) -> list[str]:
    """One line for what must hold of the run itself."""
    of_run = [r for r in records if r.get("of_run") and (r["gates"] or r["verdict"] == "error")]
    if not of_run:
        return []
    bad = [
        f"{'/'.join(r['scores'] or r.get('asked') or ())} {r['cell']}"
        for r in of_run
        if r["verdict"] not in ("pass", "waived")
    ]
    words = f"soundness: {len(of_run) - len(bad)} of {len(of_run)} gates on the run itself pass"
    return [words + (f"; not: {', '.join(bad[:5])}" if bad else "")]
