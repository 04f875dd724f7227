"""The pytest plugin: options, fixtures, and what happens around each test.

It is this package's `__init__` because an unrelated pytest run should import only `xai_assert` and this; everything
heavy is imported where it is used (a test lists `sys.modules`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

import xai_assert

if TYPE_CHECKING:
    import torch

    from xai_assert.subject import Subject
    from xai_assert.testing.gates import GateCheck
    from xai_assert.testing.session import Images, XaiSession

OPTIONS: dict[str, tuple[str, str | None, str]] = {
    # name: (kind, default, help)
    "device": ("one", "auto", "where models run: auto, cpu, cuda, cuda:N or mps"),
    "accelerate": (
        "many",
        None,
        "channels_last, bfloat16, float16 or compile: passes that are faster and round otherwise; repeatable",
    ),
    "model": (
        "many",
        None,
        "[ALIAS=]SPEC[@WEIGHTS]; SPEC is a registered name or module:factory; repeatable; without it, the networks "
        "that come with the project (the fixture xai_model: the first)",
    ),
    "task": (
        "one",
        None,
        "of the networks that come with the project, in place of --xai-model: depth (which is also the default), "
        "classification, segmentation, or all: one of each",
    ),
    "method": ("many", None, "attribution method, name or name(key=value); repeatable"),
    "perturbation": ("many", None, "perturbation, name or name(key=value); repeatable"),
    "metric": ("many", None, "further metric to measure in every cell and to report, gate or none; repeatable"),
    "fraction": ("many", "0.05", "share of the pixels called relevant, above 0 and at most 0.5; repeatable"),
    "data": (
        "one",
        None,
        "folder of RGB + depth pairs, HDF5 file, nyu(path='...') or kitti(path='...', files='...'); without it, the "
        "bundled scenes",
    ),
    "depth-scale": ("one", "1000", "stored depth values per metre in PNG files: 1000 = millimetres, 256 = KITTI"),
    "group-by": ("one", None, "column of the data: every score also on each slice of it, the worst one gated too"),
    "images": ("one", None, "use the first N images of the data"),
    "seed": ("one", "0", "seed of everything drawn at random"),
    "report": (
        "one",
        None,
        "folder for results.json and report.html (default: xai-report under the root, once a gate has run)",
    ),
    "report-images": (
        "one",
        "worst",
        "pictures in the report: none, worst (the worst and the best image of each cell) or all; pictures of the data "
        "then lie in the report folder",
    ),
    "gates": ("one", None, "gates.toml with the thresholds (default: the one of the suites)"),
    "baseline": ("one", None, "results.json of an accepted run: a score that fell since then makes the run red"),
    "margin": ("one", "0.05", "how far a score may fall below the baseline, beside what chance allows"),
    "shard": ("one", None, "I/N: run part I of N, for several machines; `xai-assert merge` joins their results"),
    "strict": ("flag", None, "a gate that was skipped or did not apply makes the run red"),
    "cache": ("one", None, "folder in which attributions are kept for later runs; auto: in the user's cache folder"),
    "cache-size": ("one", "2048", "MB that the folder of --xai-cache may hold"),
    "strict-cache": ("flag", None, "--xai-strict allows attributions of earlier runs"),
    "plan": ("flag", None, "say how many passes and minutes the run would take, and do not run it"),
}


_Ini = Literal["linelist", "string", "bool"]
_KINDS: dict[str, tuple[str, _Ini, object]] = {  # action on the command line, type and default in the ini file
    "one": ("store", "string", ""),
    "many": ("append", "linelist", []),
    "flag": ("store_true", "bool", False),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xai", "xai-assert: tests for explanations")
    for name, (kind, default, text) in OPTIONS.items():
        action, ini_type, nothing = _KINDS[kind]
        help_text = f"{text} [{default}]" if default else text
        group.addoption(f"--xai-{name}", action=action, default=None, help=help_text)
        parser.addini(f"xai_{name.replace('-', '_')}", help_text, type=ini_type, default=nothing)


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


def option(config: pytest.Config, name: str) -> Any:
    """What the user asked for: the command line before the ini file; None if nothing."""
    given = config.getoption(f"--xai-{name}")
    if given is None:
        return config.getini(f"xai_{name.replace('-', '_')}") or None
    if "" in _listed(given):  # an unset variable must not mean the default
        raise pytest.UsageError(f"--xai-{name} is empty; leave it out, or say what you want")
    return given


def option_path(config: pytest.Config, name: str) -> Path | None:
    """A path: of the command line relative to where pytest was called, of the ini file relative to that file."""
    text = option(config, name)
    if text is None:
        return None
    given = config.getoption(f"--xai-{name}") is not None
    start = config.invocation_params.dir if given or not config.inipath else config.inipath.parent
    return Path(start, text)


def report_folder(config: pytest.Config) -> Path:
    """Where the report of this run goes."""
    return option_path(config, "report") or config.rootpath / "xai-report"


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
                words += [f"--xai-{name}" if kind == "flag" else f"--xai-{name}={v}" for v in _listed(given)]
        self.reproduce = shlex.join(words)
        self.records: list[dict[str, Any]] = []
        self._config = item.config

    @property
    def pictures(self) -> Any:
        return session_of(self._config).keep


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
