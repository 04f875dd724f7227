"""Measure the points of a sweep, method by method, and put what is known in a document after each."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xai_assert import registry
from xai_assert.attributions import Method
from xai_assert.attributions.controls import CONTROLS
from xai_assert.errors import TiedHeatmapWarning
from xai_assert.evaluation import Evaluation
from xai_assert.metrics import FidelityScore, Score
from xai_assert.metrics.score import FEWEST
from xai_assert.provenance import versions
from xai_assert.sweep.choice import choose, images_needed, rank_correlation, spearman
from xai_assert.sweep.gradient_noise import layers, of_images
from xai_assert.sweep.plan import FRACTION, REFERENCE, Plan, Point
from xai_assert.sweep.words import reference_cells, sentence

SCHEMA = 1
Record = dict[str, Any]


def measure(
    evaluation: Evaluation,
    methods: Sequence[Method],
    plan: Plan,
    record: Record,
    save: Callable[[], None] = lambda: None,
) -> Record:
    """Measure a model into `record`, and call `save` after each method: an interrupted run keeps what there is.

    What does not apply is noted with its reason under `skipped`. See docs/sweep.md for what a record holds.

    Raises:
        ValueError: so few images that no method could be told from a random map.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from xai_assert.attributions import method
        >>> from xai_assert.sweep.plan import plan_sweep
        >>> evaluation = Evaluation(nn.Conv2d(3, 1, 3, padding=1), torch.rand(5, 3, 8, 8), task="depth")
        >>> record = measure(evaluation, [method("edges")], plan_sweep(parts=["sigma"]), {})
        >>> len(record["cells"]), record["sentence"]
        (7, 'Conv2d: ship none: no method could be measured.')
    """
    check_images(evaluation, methods)
    subject = evaluation.subject
    record |= {"model": subject.name, "weights": subject.card.weights, "fingerprint": subject.fingerprint()}
    record |= {"complete": False, "images": [], "cells": [], "skipped": list(plan.left_out), "notes": []}
    if plan.noise:
        try:
            record["layers"] = layers(subject, evaluation.source.batch(0, 1).images)
            record["gradient_noise"] = summary(of_images(evaluation))
        except ValueError as error:
            record["skipped"].append({"metric": "gradient_noise", "reason": reason(error)})
        save()
    for method in methods:
        evaluation.plan(method, [cell for point in plan.points for cell in point.cells()])
        with noted(record["notes"]):
            _measure_method(evaluation, method, plan.points, record)
        record["images"] = [i if isinstance(i, int) else str(i) for i in evaluation.image_ids]
        judge(record)
        save()
    record["complete"] = True
    judge(record)
    save()
    return record


def check_images(evaluation: Evaluation, methods: Sequence[Method]) -> None:
    """Refuse so few images that no method could be told from a random map."""
    rivals, count = sum(str(m) not in CONTROLS for m in methods), len(evaluation.source)
    if count < images_needed(rivals):
        words = f"{rivals} methods" if rivals > 1 else "a method"
        raise ValueError(f"images: a choice of {words} needs at least {images_needed(rivals)}, there are {count}")


def _measure_method(evaluation: Evaluation, method: Method, points: Sequence[Point], record: Record) -> None:
    skipped: list[dict[str, Any]] = []
    for point in points:
        where = {"method": str(method), "metric": point.metric, "perturbation": str(point.perturbation)}
        where["fraction"] = point.fraction  # type: ignore[assignment]
        try:
            score = registry.metrics.get(point.metric).measure(evaluation, method, point.perturbation, point.fraction)
            if len(score) != len(evaluation.source):
                raise ValueError(f"{point.metric} is one number for the whole set, and a sweep needs one an image")
            record["cells"].append(_cell(where, point, score))
        except Exception as error:  # a plugin's too: it ends this cell alone
            skipped.append({**where, "reason": reason(error)})
    if len(skipped) == len(points) and len({entry["reason"] for entry in skipped}) == 1:
        skipped = [{"method": str(method), "reason": skipped[0]["reason"]}]  # the method itself does not apply
    record["skipped"] += skipped


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Keep what is warned of ties inside, once a method; other warnings go on their way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TiedHeatmapWarning)
        yield
    ties = [str(warning.message) for warning in caught if issubclass(warning.category, TiedHeatmapWarning)]
    if ties:
        more = f"; {len(ties) - 1} more warnings of this kind" if len(ties) > 1 else ""
        notes.append(ties[0] + more)
    for warning in caught:
        if not issubclass(warning.category, TiedHeatmapWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _cell(where: Record, point: Point, score: Score) -> Record:
    cell = {**where, "parts": list(point.parts), "sigma": point.sigma, **summary(score)}
    cell["higher_is_better"] = score.higher_is_better
    cell["beside"] = str(point.beside) if point.beside else None
    if isinstance(score, FidelityScore):
        cell |= {"marks": score.marks, "circular": score.circular, "asr": score.asr}
    return cell


def summary(score: Score) -> Record:
    """Mean, interval (of 10 images or more) and the value of each image."""
    interval = list(score.interval()) if len(score) >= FEWEST else None
    return {"mean": score.mean, "interval95": interval, "values": score.values.tolist()}


def reason(error: Exception) -> str:
    """One line of an error; what no user could have meant says its type."""
    words = (str(error).splitlines() or [""])[0]
    return words if isinstance(error, ValueError) else f"{type(error).__name__}: {words}"


def judge(record: Record) -> None:
    """Choose a method by what is measured so far, and correlate AF with the other metrics."""
    fidelity = [cell for cell in record["cells"] if cell["metric"] == "af"]
    points: dict[tuple[str, float], list[Record]] = {}
    for cell in fidelity:
        points.setdefault((cell["perturbation"], cell["fraction"]), []).append(cell)
    reference = points.get((REFERENCE, FRACTION), [])
    others = []
    for place, cells in points.items():
        circular = any(cell["circular"] for cell in cells)  # the attack judges gradient maps by themselves
        if place != (REFERENCE, FRACTION) and not circular:
            others += [(part, _values(cells)) for part in cells[0]["parts"] if part != "metric"]
    choice = choose(_values(reference), others)
    record["choice"] = choice.to_dict()
    record["correlations"] = correlations(record["cells"])
    record["sentence"] = sentence(record, choice)


def _values(cells: Sequence[Record]) -> dict[str, np.ndarray]:
    return {cell["method"]: np.array(cell["values"]) for cell in cells}


def correlations(cells: Sequence[Record]) -> list[Record]:
    """Between AF and each other metric over the cells method x perturbation; 1 where they order all of them alike."""
    fidelity = {(c["method"], c["perturbation"]): c for c in cells if c["metric"] == "af" and c["fraction"] == FRACTION}
    found = []
    for metric in dict.fromkeys(cell["metric"] for cell in cells if cell["metric"] != "af"):
        pairs = [
            (fidelity[c["method"], c["beside"]], c)
            for c in cells
            if c["metric"] == metric and (c["method"], c["beside"]) in fidelity
        ]
        if not pairs:
            continue
        first, second = (np.array([pair[k]["values"] for pair in pairs]) for k in (0, 1))
        sign = 1 if pairs[0][1]["higher_is_better"] else -1
        correlation = rank_correlation(first, sign * second)
        if correlation:
            words = {"spearman": correlation.value, "interval95": list(correlation.interval)}
            found.append({"metric": metric, **words, "cells": correlation.cells})
    return found


def depth(records: Sequence[Record]) -> Record | None:
    """Of several models: layers and gradient noise beside the AF of saliency, and how they go together."""
    rows: list[Record] = []
    for record in records:
        if "gradient_noise" in record:
            saliency = [c for c in reference_cells(record["cells"]) if c["method"] == "saliency"]
            found = {name: saliency[0][name] if saliency else None for name in ("mean", "interval95")}
            noise = {name: record["gradient_noise"][name] for name in ("mean", "interval95")}
            rows.append({"model": record["model"], "layers": record["layers"], "gradient_noise": noise, "af": found})
    if len(rows) < 2:
        return None
    means = np.array([[row["gradient_noise"]["mean"] for row in rows]])
    trends: Record = {}
    for name, column in (("layers", [r["layers"] for r in rows]), ("af", [r["af"]["mean"] for r in rows])):
        value = float("nan") if None in column else float(spearman(means, np.array([column], dtype=float))[0])
        trends[f"spearman_noise_{name}"] = value if np.isfinite(value) and len(rows) > 2 else None
    return {"models": rows, **trends}


def document(records: Sequence[Record], *, complete: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """sweep.json as plain JSON types. `complete` is False for an interrupted run."""
    return {
        "schema": SCHEMA,
        "kind": "sweep",
        "complete": complete,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "options": dict(options),
        "controls": list(CONTROLS),
        "models": list(records),
        "depth": depth(records),
    }
