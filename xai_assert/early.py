"""Early decisions: images in random order, as many as it takes (`xai_assert.sequences` has the mathematics)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xai_assert.attributions import Method, as_method
from xai_assert.batching import Batch, ImageSource, Sample, stack
from xai_assert.metrics import Score
from xai_assert.randomness import generator

if TYPE_CHECKING:
    from xai_assert.evaluation import Evaluation
    from xai_assert.verdicts import Bound


class ShuffledSource(ImageSource):
    """The images of another source in a random order, so that any first part of them stands for all.

    A data set is often sorted (the frames of a video, one room after the other); its first images say little of the
    rest.

    >>> import torch
    >>> source = ShuffledSource(ImageSource(torch.rand(5, 3, 2, 2)), seed=0)
    >>> sorted(source.batch(0, 3).ids + source.batch(3, 5).ids)
    [0, 1, 2, 3, 4]
    """

    def __init__(self, source: ImageSource, seed: int) -> None:
        self._source = source
        self._order: list[int] = generator(seed, "", "order of the images").permutation(len(source)).tolist()

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, start: int, stop: int) -> Batch:
        """The images that stand at start..stop-1 of the random order."""
        positions = tuple(self._order[start:stop])
        single = [self._source.batch(i, i + 1) for i in positions]
        samples = [Sample(b.images[0], b.ids[0], None if b.ground_truth is None else b.ground_truth[0]) for b in single]
        joined = stack(samples)
        return Batch(joined.images, joined.ids, joined.ground_truth, positions)


@contextmanager
def stopping(evaluation: Evaluation, method: Any, bound: Bound, measure: Callable[[Any], Score]) -> Iterator[None]:
    """Inside, the images of this method end where an early bound on `measure(method)` is decided.

    Controls that are measured inside see as many images as the method did.
    """
    if not bound.early:
        yield
        return
    from xai_assert.verdicts import decide

    evaluation.shuffle()
    judged = as_method(method)

    @functools.cache
    def seen() -> int:
        return decide(measure(judged), bound).count

    def enough(running: Method) -> int | None:
        if running.key != judged.key:
            return seen()
        found = decide(measure(judged), bound)
        return None if found.outcome == "undecided" else found.count

    before, evaluation.enough = evaluation.enough, enough
    try:
        yield
    finally:
        evaluation.enough = before
