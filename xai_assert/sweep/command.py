"""`xai-assert sweep`: say what it will cost, measure, write, draw, and end in a sentence for each model."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xai_assert.attributions import Method, method
from xai_assert.attributions.controls import CONTROLS
from xai_assert.batching import Samples
from xai_assert.evaluation import Evaluation
from xai_assert.preflight import duration
from xai_assert.reporting.results import write
from xai_assert.subject import Subject
from xai_assert.sweep.plan import Plan, with_controls
from xai_assert.sweep.run import Record, check_images, depth, document, measure
from xai_assert.sweep.words import depth_lines, table

INTERRUPTED = 130  # as shells say it


def sweep(
    models: Sequence[tuple[Subject, Samples]],
    methods: Sequence[str],
    plan: Plan,
    output: Path,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> int:
    """Sweep over models, each with its images, into `output`; the exit status.

    Raises:
        ValueError: an unknown method, too few images, or two models of one name.
        OSError: the folder cannot be written; said before anything is measured.
    """
    wanted = with_controls([method(name) for name in methods], [method(name) for name in CONTROLS])
    check_names([subject.name for subject, _ in models])
    evaluations = [Evaluation(subject, images, seed=seed) for subject, images in models]
    for evaluation in evaluations:
        check_images(evaluation, wanted)
    check_folder(output)
    print("\n".join(f"{subject!r} on {images!r}" for subject, images in models))
    _say_cost(evaluations, wanted, plan)
    records: list[Record] = []
    if output.exists() and not output.is_dir():
        raise ValueError(f"-o {output} is a file; give a folder, which sweep.json and sweep.png go into")
    complete, progress = False, Progress()

    def save() -> None:
        write(document(records, complete=complete, options=options or {}), output / "sweep.json")
        progress.end()

    try:
        for evaluation in evaluations:
            evaluation.progress = progress
            records.append({})
            measure(evaluation, wanted, plan, records[-1], save)
        complete = True
    except KeyboardInterrupt:
        progress.end()
        print("interrupted; what was measured is kept")
    save()
    return _finish(records, output, complete)


def _finish(records: Sequence[Record], output: Path, complete: bool) -> int:
    from xai_assert.reporting.sweep_picture import draw  # matplotlib, which nothing before needed

    shown = [record for record in records if record.get("sentence")]
    for record in shown:
        print("\n".join(["", record["model"], *table(record)]))
    deep = depth(records)
    print("\n".join(["", *depth_lines(deep)] if deep else []), end="\n" if deep else "")
    if shown:
        print(f"\n{output / 'sweep.json'}, {draw(shown, deep, output / 'sweep.png')}")
    print("\n".join(["", *(record["sentence"] for record in shown)]))
    if not complete:
        return INTERRUPTED
    return int(any(not record["choice"]["p_holm"] for record in shown))


def _say_cost(evaluations: Sequence[Evaluation], methods: Sequence[Method], plan: Plan) -> None:
    total = 0.0
    for evaluation in evaluations:
        passes, seconds, unknown = plan.cost(evaluation, methods)
        words = f"{len(methods)} methods, {len(plan.points)} points, {len(evaluation.source)} images"
        beside = f"; without those of {', '.join(unknown)}" if unknown else ""
        counts = f"{passes.forward:,} forward and {passes.gradient:,} gradient passes"
        print(f"{evaluation.subject.name}: {words}: {counts}, about {duration(seconds)}{beside}")
        total += seconds
    if len(evaluations) > 1:
        print(f"all models: about {duration(total)}")
    sys.stdout.flush()


def check_names(names: Sequence[str]) -> None:
    """Refuse two models that results could not tell apart."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two models are called {name!r}; give them names: ALIAS=SPEC")


def check_folder(output: Path) -> None:
    """Refuse a folder that cannot be written, before anything is measured."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass


class Progress:
    """How far the method at work is: a line that changes on a terminal; elsewhere a line when it is done."""

    def __init__(self) -> None:
        self._begun, self._what = time.monotonic(), ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if done == 0:
            self._begun, self._what = time.monotonic(), what
        elapsed = time.monotonic() - self._begun
        left = f", about {duration(elapsed * (total - done) / done)} to go" if done else ""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what}: {done} of {total} images{left}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The method is done, or given up."""
        if self._what:
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""
            print(f"{clear}{self._what}: {duration(time.monotonic() - self._begun)}", file=sys.stderr, flush=True)
        self._what = ""
