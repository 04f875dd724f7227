"""The pytest plugin: options, fixtures, and what happens around each test.

It is this package's `__init__` because an unrelated pytest run should import only `xai_assert`, this and `flags`;
everything heavy is imported where it is used (a test lists `sys.modules`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xai_assert
from xai_assert.testing.flags import OPTIONS, add_flags, listed, option

if TYPE_CHECKING:
    import torch

    from xai_assert.subject import Subject
    from xai_assert.testing.gates import GateCheck
    from xai_assert.testing.session import Images, XaiSession


def pytest_addoption(parser: pytest.Parser) -> None:
    add_flags(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xai: an explainability gate of xai-assert")
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped with a reason where there is none")
    config.addinivalue_line("markers", "slow: takes minutes; the README lists how to run these")
    if option(config, "plan") and config.getoption("dist", "no") != "no":
        raise pytest.UsageError("--xai-plan runs in one process; leave -n out")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Worker(), "xai_assert_worker")
    else:
        config.pluginmanager.register(Controller(config), "xai_assert_controller")


def session_of(config: pytest.Config) -> XaiSession:
    """Models, images and evaluations of this run, made when they are first needed."""
    if _SESSION not in config.stash:
        from xai_assert.testing.session import XaiSession

        config.stash[_SESSION] = XaiSession(config)
    session: XaiSession = config.stash[_SESSION]
    return session


_SESSION = pytest.StashKey[Any]()  # the XaiSession, whose class only a run of ours imports


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    try:
        if hasattr(metafunc.function, "xai_gates"):
            from xai_assert.testing.gates import parametrize

            parametrize(metafunc, session_of(metafunc.config))
        elif "xai_model" in metafunc.fixturenames and (
            len(option(metafunc.config, "model") or []) > 1 or metafunc.definition.get_closest_marker("xai")
        ):
            models = session_of(metafunc.config).models
            metafunc.parametrize("xai_model", models, indirect=True, ids=[m.id for m in models], scope="session")
    except pytest.UsageError as error:  # as this, pytest prints the sentence alone
        raise pytest.Collector.CollectError(str(error)) from None


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _SESSION in config.stash or option(config, "shard"):
        session_of(config).select(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    if _SESSION in session.config.stash:
        session_of(session.config).plan(session.items)


@pytest.fixture(scope="session")
def xai_device(request: pytest.FixtureRequest) -> torch.device:
    """The device of `--xai-device`."""
    return session_of(request.config).device


@pytest.fixture(scope="session")
def xai_model(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The model of `--xai-model`, a `Subject` on the device; loaded once, checked after each test to be unchanged."""
    session = session_of(request.config)
    with _sentence():
        subject = session.load(getattr(request, "param", None) or session.models[0])
    yield subject
    session.check_whole(subject)


@pytest.fixture(scope="session")
def xai_images(request: pytest.FixtureRequest, xai_model: Subject) -> Images:
    """The images of `--xai-data`, preprocessed by the model's card: a lazy data set with a one-line repr."""
    with _sentence():
        return session_of(request.config).images(xai_model)


@pytest.fixture
def gate(request: pytest.FixtureRequest, xai_model: Subject, xai_images: Images) -> GateCheck:
    """One cell to judge, in tests decorated with `xa.parametrize_with_gates`."""
    with _sentence():
        if not hasattr(request, "param"):
            raise pytest.UsageError("the fixture `gate` goes with @xa.parametrize_with_gates(...)")
        return session_of(request.config).gate(request.param, xai_model, xai_images)


@pytest.fixture
def heatmap_snapshot(snapshot: Any) -> Any:
    """Syrupy's `snapshot`, for heatmaps: give it to `xa.assert_heatmap_matches`."""
    from xai_assert.testing.snapshots import HeatmapSnapshot

    return HeatmapSnapshot.of(snapshot)


@pytest.fixture
def attribution_benchmark(benchmark: Any) -> Any:
    """pytest-benchmark's `benchmark`, for attributions: `attribution_benchmark(subject, method, images)`."""
    from xai_assert.testing.benchmark import AttributionBenchmark

    return AttributionBenchmark(benchmark)


@contextmanager
def _sentence() -> Iterator[None]:
    """A mistake in what the user asked for is told in a sentence, without a traceback."""
    __tracebackhide__ = True
    try:
        yield
    except pytest.UsageError as error:
        pytest.fail(str(error), pytrace=False)


class RunningTest:
    """See `xai_assert.reporting.record.RunningTest`."""

    def __init__(self, item: pytest.Item) -> None:
        file, _, rest = item.nodeid.partition("::")
        here = os.path.relpath(item.path, item.config.invocation_params.dir)
        words = ["pytest", f"{Path(here).as_posix()}::{rest}" if rest else file]
        for name, (kind, _, _) in OPTIONS.items():
            given = item.config.getoption(f"--xai-{name}")
            if name not in ("report", "shard") and given is not None:
                words += [f"--xai-{name}" if kind == "flag" else f"--xai-{name}={v}" for v in listed(given)]
        self.reproduce = shlex.join(words)
        self.records: list[dict[str, Any]] = []
        self._config = item.config

    @property
    def pictures(self) -> Any:
        return session_of(self._config).keep


_RUNNING = pytest.StashKey[RunningTest]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    running = item.stash[_RUNNING] = RunningTest(item)
    token = xai_assert._running_test.set(running)
    try:
        return (yield)
    finally:
        xai_assert._running_test.reset(token)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    running = item.stash.get(_RUNNING, None)
    records = running.records if running else []
    is_gate = isinstance(item, pytest.Function) and hasattr(item.function, "xai_gates")
    red_snapshot = call.excinfo is not None and "heatmap_snapshot" in getattr(item, "fixturenames", ())
    if not (records or is_gate or red_snapshot):
        return (yield)
    from xai_assert.testing.reports import make_report

    return (yield from make_report(item, call, records, is_gate))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    subject = getattr(item, "funcargs", {}).get("xai_model")  # fixtures are gone after the yield
    try:
        yield
    finally:
        if subject is not None and _SESSION in item.config.stash:
            session_of(item.config).check_unchanged(subject)


CELL = re.compile(r"\[([\w.-]+)\+([\w.-]+)\+[\w.+-]+\]$")  # the end of a cell's node id: model+method+perturbation


class Scheduling:
    """Xdist's usual scheduling, unless the first collection shows that there are cells among the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        from xdist.scheduler import LoadScheduling

        self._arguments = config, log
        self._inner: Any = LoadScheduling(config, log)
        self._decided = False

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        if not self._decided and any(map(CELL.search, collection)):
            from xai_assert.testing.scheduling import CellScheduling

            usual, self._inner = self._inner, CellScheduling(*self._arguments)
            for known in usual.nodes:
                self._inner.add_node(known)
        self._decided = True
        self._inner.add_node_collection(node, collection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Worker:
    """A worker of pytest-xdist: it tells the controller which cells there are, also those of other workers."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if _SESSION in session.config.stash:
            run = session_of(session.config)
            session.config.workeroutput["xai_cells"] = (run.planned, run.here, run.deselected)  # type: ignore[attr-defined]


class Controller:
    """The process that collects all reports: the table at the end, what the run leaves behind, the exit status."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[dict[str, Any]] = []
        self.cells: tuple[list[dict[str, Any]], list[str], list[tuple[str, float]]] = ([], [], [])  # see XaiSession
        self.notes: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        if config.getoption("dist") != "load":  # somebody chose
            return None
        return Scheduling(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.cells = getattr(node, "workeroutput", {}).get("xai_cells", self.cells)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if not option(self.config, "plan"):
            return None
        from xai_assert.testing.planning import plan

        self.notes, failed = plan(session)
        session.testsfailed += failed
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.records += getattr(report, "xai_records", [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        wanted = any(option(self.config, name) for name in ("gates", "report", "baseline", "shard"))
        if self.config.option.collectonly or option(self.config, "plan") or not (self.records or wanted):
            return
        from xai_assert.testing.reports import finish

        if _SESSION in self.config.stash:
            run = session_of(self.config)
            self.cells = run.planned, run.here, run.deselected
        stopped = bool(session.shouldstop or session.shouldfail)
        self.notes, status = finish(self.config, self.records, int(exitstatus), self.cells, stopped=stopped)
        session.exitstatus = status

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not (self.records or self.notes):
            return
        from xai_assert.reporting.terminal import table

        terminalreporter.section("explanations")
        for line in [*table(self.records), *self.notes]:
            terminalreporter.write_line(line)
