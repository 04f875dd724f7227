"""Forward passes of many cells, packed into full batches: a job is one pass of the images of a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Job:
    """One forward pass: `pictures()` makes its images (B, C, H, W), `read(images, output)` keeps what is wanted of it.

    What is kept should be small: it stays until all jobs of the cell are done.
    """

    pictures: Callable[[], Tensor]
    read: Callable[[Tensor, Tensor], Any]


# A measurement yields the jobs that it needs, is sent what they read, in order, and returns what it found.
Steps = Generator[Sequence[Job], list[Any], T]


@dataclass(eq=False)
class _Run(Generic[T]):
    """A measurement at work."""

    steps: Steps[T]
    finished: Callable[[T], None]
    failed: Callable[[Exception], None]
    results: dict[int, Any] = field(default_factory=dict)
    wanted: int = 0
    over: bool = False

    def fail(self, error: Exception) -> None:
        self.over = True
        self.steps.close()
        self.failed(error)


class Packer:
    """Runs measurements together, as many jobs in a forward pass as `size`, so that none is smaller than it need be.

    An error of one measurement ends that one alone; out of memory is raised. Pictures are made when their pass is due:
    memory holds those of one pass.

    >>> def steps():
    ...     images = torch.ones(2, 1)
    ...     read = lambda images, output: float(output.sum())
    ...     first, second = yield [Job(lambda: images, read), Job(lambda: 2 * images, read)]
    ...     return first + second
    >>> packer, seen = Packer(lambda images: 10 * images, size=2), []
    >>> packer.add(steps(), seen.append, print)
    >>> packer.finish()
    >>> seen
    [60.0]
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], size: int) -> None:
        self._forward = forward
        self._size = max(1, size)
        self._waiting: deque[tuple[_Run[Any], int, Job]] = deque()

    def add(self, steps: Steps[T], finished: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Begin a measurement, and run what fills a pass; `finished` gets what it found, `failed` its error."""
        self._advance(_Run(steps, finished, failed))
        while len(self._waiting) >= self._size:
            self._run_some()

    def finish(self) -> None:
        """Run what is left."""
        while self._waiting:
            self._run_some()

    def _advance(self, run: _Run[Any]) -> None:
        """Send a measurement what it waited for, and queue what it wants next."""
        try:
            sent = [run.results[i] for i in range(run.wanted)] if run.wanted else None
            jobs = list(run.steps.send(sent))  # type: ignore[arg-type]  # a generator is begun by sending it None
            while not jobs:
                jobs = list(run.steps.send([]))
        except StopIteration as end:
            run.over = True
            run.finished(end.value)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            run.fail(error)
        else:
            run.results, run.wanted = {}, len(jobs)
            self._waiting.extend((run, i, job) for i, job in enumerate(jobs))

    def _run_some(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        taken = [(run, i, job) for run, i, job in taken if not run.over]
        try:
            self._run_together(taken)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if len({id(run) for run, _, _ in taken}) == 1:
                taken[0][0].fail(error)
                return
            for one in taken:  # one of them is to blame, and the others must not suffer for it
                if not one[0].over:
                    self._run_alone(one)
        for run in dict.fromkeys(run for run, _, _ in taken):
            if not run.over and len(run.results) == run.wanted:
                self._advance(run)

    def _run_alone(self, one: tuple[_Run[Any], int, Job]) -> None:
        try:
            self._run_together([one])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            one[0].fail(error)

    def _run_together(self, taken: Sequence[tuple[_Run[Any], int, Job]]) -> None:
        if not taken:
            return
        pictures = [job.pictures() for _, _, job in taken]
        counts = [len(images) for images in pictures]
        outputs = torch.split(self._forward(torch.cat(pictures) if len(pictures) > 1 else pictures[0]), counts)
        found = [job.read(*seen) for (_, _, job), seen in zip(taken, zip(pictures, outputs, strict=True), strict=True)]
        for (run, i, _), result in zip(taken, found, strict=True):
            run.results[i] = result
