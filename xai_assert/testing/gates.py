"""`parametrize_with_gates`: a test function over models x methods x perturbations, judged by gates.toml."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from xai_assert import registry
from xai_assert.assertions import failure
from xai_assert.attributions import Method, method
from xai_assert.errors import NotApplicableError
from xai_assert.evaluation import Enough, Evaluation, NotYetMeasured
from xai_assert.explain import explain
from xai_assert.gates import CellName, Gate, Judged, judge_gate, worst
from xai_assert.metrics import Cell, Score
from xai_assert.perturbations import Perturbation, perturbation
from xai_assert.randomness import ImageId
from xai_assert.reporting import record
from xai_assert.scores.named import NamedMetric
from xai_assert.slices import Slice, slices_of
from xai_assert.subject import Subject, slug
from xai_assert.verdicts import Bound, Control, decide

if TYPE_CHECKING:
    from xai_assert.testing.options import ModelOption
    from xai_assert.testing.session import XaiSession

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Matrix:
    """What the decorator was given; None is what the command line says."""

    models: Mapping[str, Any] | None
    methods: Sequence[Any] | None
    perturbations: Sequence[Any] | None
    fractions: Sequence[float] | None
    metrics: Sequence[str] | None


def parametrize_with_gates(
    *,
    models: Mapping[str, str | Callable[[], Any]] | None = None,
    methods: Sequence[Any] | None = None,
    perturbations: Sequence[Any] | None = None,
    fractions: Sequence[float] | None = None,
    metrics: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """Decorator: run a test for every model x method x perturbation x fraction; the test calls `gate.check()`.

    Args:
        models: name -> factory (returns a `Subject`) or the text of `--xai-model`; by default those of `--xai-model`.
        methods, perturbations, fractions: by default those of the command line, or all of the project's own.
        metrics: measure these and judge them by the gates that name them; by default AF and FE, and every gate
            on an explanation.

    Images are those of the fixture `xai_images`, thresholds those of `--xai-gates`. Cells without a gate are reported
    without a verdict.

    Example:
        >>> @parametrize_with_gates(methods=["saliency"], perturbations=["gaussian_noise"])
        ... def test_release(gate):
        ...     gate.check()
    """
    given = {"models": models, "methods": methods, "perturbations": perturbations}
    for name, value in {**given, "fractions": fractions, "metrics": metrics}.items():
        if isinstance(value, str):
            raise TypeError(f"{name} must be a list of names, not the text {value!r}")
        if value is not None and not value:
            raise ValueError(f"{name} is empty, so nothing would be judged; leave it out for the default")

    def decorate(function: F) -> F:
        function.xai_gates = Matrix(models, methods, perturbations, fractions, metrics)  # type: ignore[attr-defined]
        marked: F = pytest.mark.xai(function)
        return marked

    return decorate


@dataclass(frozen=True, eq=False)
class GateParam:
    """One cell of a parametrised test: what to measure, and the gates that judge it."""

    name: CellName
    method: Method
    perturbation: Perturbation
    metrics: tuple[NamedMetric, ...]
    gates: tuple[Gate, ...]
    of_run: bool

    @property
    def asked(self) -> list[str]:
        """The metrics that gates ask for."""
        return [gate.metric for gate in self.gates]

    def about(self) -> record.Record:
        """What its record says of it, measured or not."""
        name = self.name
        about = {"model": name.model, "method": name.method, "perturbation": name.perturbation}
        return {"cell": str(name), **about, "fraction": name.fraction, "of_run": self.of_run}

    def cells(self) -> list[Cell]:
        """What the evaluation has to compute for it."""
        return [cell for metric in self.metrics for cell in metric.cells(self.perturbation, self.name.fraction)]


def param_of(item: pytest.Item) -> GateParam | None:
    """The cell that a test judges, if it does."""
    callspec = getattr(item, "callspec", None)
    param = callspec.params.get("gate") if callspec else None
    return param if isinstance(param, GateParam) else None


def parametrize(metafunc: pytest.Metafunc, session: XaiSession) -> None:
    """Called by the plugin for a decorated test."""
    session.check_options()
    matrix: Matrix = metafunc.function.xai_gates
    if matrix.models is None:
        models = session.models
    else:
        models = [session.model_of(alias, spec) for alias, spec in matrix.models.items()]
    methods = session.methods if matrix.methods is None else [method(m) for m in matrix.methods]
    perturbations = (
        session.perturbations if matrix.perturbations is None else [perturbation(p) for p in matrix.perturbations]
    )
    fractions = matrix.fractions or session.fractions
    pairs: list[tuple[ModelOption, GateParam]] = []
    for model, m, p, f in itertools.product(models, methods, perturbations, fractions):
        name = CellName(session.name_of(model), str(m), str(p), f)
        pairs.append((model, _param(name, m, p, session, matrix)))
    narrowed = [n for n in ("method", "perturbation", "fraction") if getattr(matrix, f"{n}s") is not None]
    session.remember([param for _, param in pairs], narrowed)
    ids = [_cell_id(param.name, with_fraction=len(fractions) > 1) for _, param in pairs]
    metafunc.parametrize(("xai_model", "gate"), pairs, indirect=True, ids=ids, scope="session")


def _param(name: CellName, m: Method, p: Perturbation, session: XaiSession, matrix: Matrix) -> GateParam:
    judging = [gate for gate in session.gates if gate.matches(name)]
    if matrix.metrics is None:
        shown = ["af", "fe"] if p.name == "gaussian_noise" else ["af"]
        shown += [metric.name for metric in session.metrics]
        judging = [gate for gate in judging if registry.metrics.get(gate.metric).about == "explanation"]
    else:
        shown = list(matrix.metrics)
        judging = [gate for gate in judging if gate.metric in shown]
    names = dict.fromkeys([*shown, *(gate.metric for gate in judging)])
    metrics = tuple(registry.metrics.get(n) for n in names)
    return GateParam(name, m, p, metrics, tuple(judging), all(metric.about == "run" for metric in metrics))


def _cell_id(name: CellName, *, with_fraction: bool) -> str:
    """`model+method+perturbation` in characters that file names can carry."""
    parts = [name.model, name.method, name.perturbation] + ([f"{name.fraction:g}"] if with_fraction else [])
    return "+".join(map(slug, parts))


def enough(params: Sequence[GateParam], evaluation: Evaluation) -> Enough | None:
    """When the early gates of these cells need no more images of a method; None if none is early.

    All cells of a method share their pass over the images, so it ends where the last of its gates is decided, and a
    gate that is not early needs every image. A cell without a gate is reported on as many images as there are.
    """
    if not any(gate.bound.early for param in params for gate in param.gates):
        return None

    def asked(method: Method) -> int | None:
        mine = [(param, gate) for param in params if param.method.key == method.key for gate in param.gates]
        if not mine or not all(gate.bound.early for _, gate in mine):
            return None
        counts = [0]
        for param, gate in mine:
            metric = registry.metrics.get(gate.metric)
            try:
                score = metric.measure(evaluation, method, param.perturbation, param.name.fraction)
                found = decide(score, gate.bound)
            except NotYetMeasured:  # a metric that plans no cells of its own is measured afterwards
                return None
            except Exception:  # the test of that cell tells it
                continue
            if found.outcome == "undecided":
                return None
            counts.append(found.count)
        return max(*counts, 1)

    return asked


class GateCheck:
    """One cell of a run: `check()` measures, judges, records, and raises if it is red."""

    def __init__(
        self,
        param: GateParam,
        evaluation: Evaluation,
        subject: Subject,
        data: str,
        group_by: str = "",
        groups: Mapping[ImageId, str] | None = None,
    ) -> None:
        self.param = param
        self.evaluation = evaluation
        self._data = data
        self.group_by, self.groups = group_by, groups
        if subject.name != param.name.model:
            raise pytest.UsageError(
                f"the fixture xai_model gives {subject.name!r} where this cell is of {param.name.model!r}; "
                "pass models={name: factory} to xa.parametrize_with_gates instead of overriding the fixture"
            )

    def __repr__(self) -> str:
        return f"<gate {self.param.name}>"

    def score(self, metric: str = "af") -> Score:
        """A metric of this cell."""
        return self._measure(registry.metrics.get(metric), self.param.method)

    def check(self) -> None:
        """Measure and judge this cell.

        Raises:
            AssertionError: a gate fails, or is undecided.
        """
        __tracebackhide__ = True
        scores: dict[str, Score] = {}
        try:
            for metric in self.param.metrics:
                scores[metric.name] = self._measure(metric, self.param.method)
            judged = [self._judge(gate, scores[gate.metric]) for gate in self.param.gates]
        except NotApplicableError as error:
            self._record(scores, [], "not applicable", error=str(error))
            pytest.skip(str(error))
        except Exception as error:
            self._record(scores, [], "error", error=f"{type(error).__name__}: {error}")
            raise
        self._record(scores, judged, worst(j.outcome for j in judged))
        red = [j for j in judged if j.red]
        if red:
            raise self._failure(scores, red)

    def _judge(self, gate: Gate, score: Score) -> Judged:
        __tracebackhide__ = True
        control = self._control(gate.metric)
        sliced = self._sliced(score, gate.bound) if registry.metrics.get(gate.metric).about == "explanation" else []
        return judge_gate(gate, score, control=control, sliced=sliced, column=self.group_by)

    def _sliced(self, score: Score, bound: Bound | None = None) -> list[Slice]:
        """The slices of a score by --xai-group-by, if that is given."""
        return slices_of(score, self.groups, bound) if self.groups else []

    def _measure(self, metric: NamedMetric, of: Any) -> Score:
        found = metric.measure(self.evaluation, of, self.param.perturbation, self.param.name.fraction)
        if not isinstance(found, Score):
            raise TypeError(f"metric {metric.name!r} returned a {type(found).__name__}, not an xa.Score")
        return found

    def _control(self, metric: str) -> Control:
        """Measures another method in this cell."""
        return lambda other: self._measure(registry.metrics.get(metric), other)

    def _failure(self, scores: Mapping[str, Score], red: Sequence[Judged]) -> AssertionError:
        first = red[0]
        score, metric = scores[first.gate.metric], registry.metrics.get(first.gate.metric)
        control = self._control(metric.name) if metric.about == "explanation" else None
        text = explain(score, first.gate.bound, first.because, control, scores)
        text += "".join(f"\n  also: {j.gate.metric} {j.because}" for j in red[1:])
        text += f"\n  gate: {first.gate.reason}" if first.gate.reason else ""
        return failure(score, text, self.evaluation if metric.about == "explanation" else None)

    def _record(self, scores: Mapping[str, Score], judged: Sequence[Judged], verdict: str, **more: Any) -> None:
        gates = [
            record.gate_record(
                j.gate.metric,
                str(j.gate.bound),
                j.outcome,
                j.because,
                **j.gate.about(),
                **record.contest_record(j.contest),
            )
            for j in judged
        ]
        about = self.param.about() | {"data": self._data, "asked": self.param.asked, **more}
        if self.groups and not self.param.of_run:
            bounds = {gate.metric: gate.bound for gate in reversed(self.param.gates)}  # of several the first counts
            sliced = {name: self._sliced(score, bounds.get(name)) for name, score in scores.items()}
            found = {name: [one.to_dict() for one in parts] for name, parts in sliced.items() if parts}
            about["slices"] = {"column": self.group_by, "metrics": found}
        if "af" in scores and not self.param.of_run:
            cell = (self.param.method, self.param.perturbation, self.param.name.fraction)
            about["pictures"] = self.evaluation.take_evidence(*cell)
        record.add(lambda: record.make_record(scores, gates, verdict, **about))
