"""How far a long cell is: a line that changes on a terminal, elsewhere (a CI log) a line now and then."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import pytest

PATIENCE = 1.0  # seconds: what is quicker needs no word
EVERY = 15.0  # seconds between two lines where there is no terminal


class Progress:
    """Called with what is computed and how many of its images are done: first with 0, then after each batch."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")  # none in a worker of xdist
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")
        self._started = self._said = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            self._started = self._said = now
        elapsed = now - self._started
        if self._reporter is None or self._reporter.verbosity < 0 or elapsed < PATIENCE:
            return
        left = f", about {elapsed * (total - done) / done:.0f} s to go" if 0 < done < total else ""
        text = f"{what}: {done} of {total} images, {elapsed:.0f} s{left}"
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            if self._reporter.isatty:
                self._reporter.ensure_newline()
                self._reporter.rewrite(text[: self._reporter._tw.fullwidth - 1], erase=True)
            elif now - self._said >= EVERY:
                self._said = now
                self._reporter.write_line(text)
            self._reporter.flush()
