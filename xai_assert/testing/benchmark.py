"""`attribution_benchmark`: attributions on pytest-benchmark, whose tables, files and comparisons users keep."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from xai_assert.batching import Samples
from xai_assert.latency import CHUNK, LatencyScore, Pair, remember
from xai_assert.preserve import undisturbed
from xai_assert.registry import PLAIN
from xai_assert.scores import Subjectlike, as_evaluation

if TYPE_CHECKING:
    from torch import Tensor

ALONE = "latency is measured alone: needs -n 0 (pytest-benchmark measures nothing in a worker of xdist)"


class AttributionBenchmark:
    """Called once a test; see `__call__`.

    The device is synchronised inside the function that is measured, before and after the attribution: pytest-benchmark
    takes its timer from a marker or from the command line, and has no public way to be given one by a fixture.
    """

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def __call__(
        self,
        subject: Subjectlike,
        method: Any,
        images: Tensor | Samples | None = None,
        *,
        rounds: int | None = None,
        batch_size: int = CHUNK,
        **options: Any,
    ) -> LatencyScore:
        """Measure an attribution: a round is one attribution of `batch_size` images, between forwards of the same.

        Args:
            subject, method, images, batch_size: as for `xa.attribution_latency`.
            rounds: without it, one round warms up, and as many follow as fit into 2 seconds, from 3 to 20. With it,
                so many are made and the first of them is the warm-up; `rounds=1` is for what takes long.
            **options: of `xa.Evaluation`, such as `task`, `target` and `seed`.

        Returns:
            What `xa.attribution_latency` returns, of these rounds. An `Evaluation` remembers it.

        With `--benchmark-disable` one round is made. In a worker of xdist the test is skipped, because there
        pytest-benchmark measures nothing and says nothing.
        """
        if os.environ.get("PYTEST_XDIST_WORKER"):
            pytest.skip(ALONE)
        evaluation = as_evaluation(subject, images, options)
        self.benchmark.group = self.benchmark.group or evaluation.subject.name  # is stored when the rounds begin
        params = (self.benchmark.params or {}).items()
        self.benchmark.params = {name: value for name, value in params if isinstance(value, PLAIN)}  # no whole models
        with undisturbed(evaluation.subject):
            pair = Pair(evaluation, method, batch_size)
            if rounds is None and self.benchmark.enabled:
                rounds = pair.warm_up()
            self.benchmark.pedantic(pair.attribute, setup=pair.forward, rounds=rounds or 1, iterations=1)
        score = remember(evaluation, method, pair.score())
        self.benchmark.extra_info.update(extra_info(score))
        return score


def extra_info(score: LatencyScore) -> dict[str, Any]:
    """What pytest-benchmark stores beside its own times."""
    about = score.provenance
    kept = {name: about[name] for name in ("model", "method", "batch_size", "size", "device", "threads", "versions")}
    numbers = {"passes_per_image": score.passes_per_image, "forward_ratio": score.value}
    known = score.to_dict()
    names = ("milliseconds", "forward_milliseconds", "images_per_second", "peak_memory")
    return kept | numbers | {name: known[name] for name in names}
