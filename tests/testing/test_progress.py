"""A long cell says how far it is: to a terminal at once, to a log now and then, to a worker's void never."""

import types

import pytest

from xai_assert.testing import progress
from xai_assert.testing.progress import Progress


class Reporter:
    def __init__(self, isatty, verbosity=0, width=80):
        self.isatty, self.verbosity, self.said = isatty, verbosity, []
        self._tw = types.SimpleNamespace(fullwidth=width)

    def ensure_newline(self):
        pass

    def rewrite(self, text, erase):
        self.said.append(text)

    def write_line(self, text):
        self.said.append(text)

    def flush(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(time=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.time)
    return now


def made(reporter):
    plugins = {"terminalreporter": reporter, "capturemanager": None}
    return Progress(types.SimpleNamespace(pluginmanager=types.SimpleNamespace(get_plugin=plugins.get)))


def told(reporter, clock, seconds):
    """What is said of four batches of 6 images, `seconds` each."""
    said = made(reporter)
    said("net ig", 0, 24)
    for done in (6, 12, 18, 24):
        clock.time += seconds
        said("net ig", done, 24)
    return reporter.said


def test_a_terminal_sees_every_batch(clock):
    assert told(Reporter(isatty=True), clock, 2.0) == [
        "net ig: 6 of 24 images, 2 s, about 6 s to go",
        "net ig: 12 of 24 images, 4 s, about 4 s to go",
        "net ig: 18 of 24 images, 6 s, about 2 s to go",
        "net ig: 24 of 24 images, 8 s",
    ]


def test_a_log_gets_a_line_now_and_then(clock):
    assert told(Reporter(isatty=False), clock, 10.0) == [
        "net ig: 12 of 24 images, 20 s, about 20 s to go",
        "net ig: 24 of 24 images, 40 s",
    ]


@pytest.mark.parametrize("isatty", [True, False])
def test_what_is_quick_says_nothing(clock, isatty):
    assert told(Reporter(isatty), clock, 0.2) == []


def test_quiet_is_quiet(clock):
    assert told(Reporter(isatty=True, verbosity=-1), clock, 20.0) == []


def test_a_narrow_terminal_gets_one_line(clock):
    assert told(Reporter(isatty=True, width=21), clock, 2.0)[0] == "net ig: 6 of 24 imag"


def test_in_a_worker_nobody_listens(clock):
    made(None)("net ig", 0, 24)
    clock.time += 60
    made(None)("net ig", 6, 24)


def test_it_passes_the_capture_of_the_test(project, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    result = project.run_gates()
    result.stdout.fnmatch_lines(["net-v7 saliency: 12 of 12 images, 0 s"])
