"""What one pytest run holds: models, images, gates and evaluations, each made when it is first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from xai_assert import registry
from xai_assert.attributions import Method
from xai_assert.batching import Samples
from xai_assert.datasets import bundled_images, open_data
from xai_assert.evaluation import Evaluation
from xai_assert.gates import check_gates_match
from xai_assert.metrics import Cell
from xai_assert.models.builders import known_name
from xai_assert.randomness import ImageId
from xai_assert.reporting.record import developed
from xai_assert.slices import column_of
from xai_assert.subject import Subject
from xai_assert.testing.flags import option
from xai_assert.testing.gates import GateCheck, GateParam, enough, param_of
from xai_assert.testing.options import ModelOption, Options
from xai_assert.testing.progress import Progress
from xai_assert.testing.unchanged import State
from xai_assert.testing.workers import in_shard, parse_shard

Images = Samples


class XaiSession(Options):
    """The state of a run, beside its options."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._evaluations: dict[tuple[int, int], Evaluation] = {}
        self._images: dict[Any, Images] = {}
        self._states: dict[Subject, State] = {}
        self._columns: dict[int, dict[ImageId, str]] = {}  # by data set, the slice of each image
        self._planned: list[GateParam] = []
        self.planned: list[dict[str, Any]] = []
        self.here: list[str] = []
        self.deselected: list[tuple[str, float]] = []
        self._params: list[GateParam] = []
        self._narrowed: set[str] | None = None
        self._named: dict[str, ModelOption] = {}
        self._mistake: pytest.UsageError | None = None

    def remember(self, params: Sequence[GateParam], narrowed: Sequence[str]) -> None:
        """The cells of one decorated test, and the dimensions that its decorator narrows: the run is narrowed in those
        that all of its tests narrow."""
        self._params += params
        self._narrowed = set(narrowed) & (set(narrowed) if self._narrowed is None else self._narrowed)

    def check_gates(self) -> None:
        """Every gate must judge a cell of this run, but for what the user narrowed and for our own file's models."""
        single = any("::" in argument for argument in self.config.args)
        if not self._params or single:  # other gates are judged elsewhere; this is how a failure is run again
            return
        names = {"method": registry.methods.names(), "perturbation": registry.perturbations.names(), "fraction": []}
        narrowed = {n: known for n, known in names.items() if n in (self._narrowed or ()) or option(self.config, n)}
        ours = not option(self.config, "gates")
        if ours:
            narrowed["model"] = registry.models.names()
        cells = [param.name for param in self._params]
        self._usage(lambda: check_gates_match(self.gates, cells, narrowed=narrowed, path=self.gates_path))
        for gate in self.gates:
            if not ours and any(map(gate.matches, cells)) and not any(gate in param.gates for param in self._params):
                raise pytest.UsageError(
                    f"xai-assert: gates file {self.gates_path}: {gate} is judged by no test of this run; add one "
                    f"with @xa.parametrize_with_gates(metrics=[{gate.metric!r}]), or run the suites"
                )

    def name_of(self, model: ModelOption) -> str:
        """How results and gates call a model: its alias, or the name on its card. Two must not share one."""
        in_worker = hasattr(self.config, "workerinput")  # which may never run a test of this model
        name = model.alias or (known_name(model.spec, model.weights) if in_worker else None) or self.load(model).name
        if self._named.setdefault(name, model) is not model:
            raise pytest.UsageError(f"two models are called {name!r}; give one another name: --xai-model ALIAS=SPEC")
        return name

    def model_of(self, alias: str, spec: str | Callable[[], Any]) -> ModelOption:
        """A model of a decorator; the same one for every test that gives the same."""
        known = self._named.get(alias)
        return known if known and known.spec is spec else ModelOption(spec, None, alias)

    def load(self, model: ModelOption) -> Subject:
        here = str(self.config.invocation_params.dir)
        if here not in sys.path:  # "module:factory" of a project that is not installed, as `python -m` finds it
            sys.path.insert(0, here)
        subject = self._usage(model.load, self.device, self.faster)
        if subject not in self._states:
            self._states[subject] = State.of(subject)
        return subject

    def images(self, subject: Subject) -> Images:
        card = subject.card
        task = (card.task.name if card.task else None, card.unit, card.classes)
        key = (card.input_size, card.output_size, card.mean, card.std, card.layout, task)
        if key not in self._images:
            self._images[key] = self._usage(self._open, subject)
        return self._images[key]

    def evaluation(self, subject: Subject, images: Images) -> Evaluation:
        key = (id(subject), id(images))
        if key not in self._evaluations:
            found = self._evaluations[key] = Evaluation(subject, images, seed=self.seed)
            found.progress = Progress(self.config)
            found.keep, found.develop, found.store = self.keep, developed, self.store
            mine = [param for param in self._planned if param.name.model == subject.name]
            for param in mine:
                found.plan(param.method, param.cells())
            early = enough(mine, found)
            if early:
                found.shuffle()
                found.enough = None if self.baseline else early  # which compares all images
        return self._evaluations[key]

    def gate(self, param: GateParam, subject: Subject, images: Images) -> GateCheck:
        if self._mistake:
            raise self._mistake
        data = f"tensor {tuple(images.shape)}" if isinstance(images, torch.Tensor) else repr(images)
        column = option(self.config, "group-by") or ""
        if column and id(images) not in self._columns:
            self._columns[id(images)] = self._usage(column_of, images, column)
        groups = self._columns.get(id(images))
        return GateCheck(param, self.evaluation(subject, images), subject, data, column, groups)

    def select(self, items: list[pytest.Item]) -> None:
        """Note all cells of the run, and leave those of other shards to their machines."""
        cells = [(item, param_of(item)) for item in items]
        self.planned = [p.about() | {"nodeid": item.nodeid, "asked": p.asked} for item, p in cells if p]
        shard = option(self.config, "shard")
        if shard:
            here = in_shard([item.nodeid for item in items], parse_shard(shard))
            others = [item for item, mine in zip(items, here, strict=True) if not mine]
            items[:] = [item for item, mine in zip(items, here, strict=True) if mine]
            self.config.hook.pytest_deselected(items=others)

    def plan(self, items: Sequence[pytest.Item]) -> None:
        """Remember the cells of the tests that will run, so that each method needs one pass over the images."""
        try:
            self.check_gates()
        except pytest.UsageError as error:
            if not hasattr(self.config, "workerinput"):
                raise
            self._mistake = error  # a worker of xdist has nobody to tell now: its tests say it
        self._planned = [param for param in map(param_of, items) if param]
        self.here = [item.nodeid for item in items if param_of(item)]
        run = {param.name for param in self._planned}
        names = dict.fromkeys(param.name for param in self._params if param.name not in run)
        self.deselected = [(str(name), name.fraction) for name in names]

    def work(self) -> dict[str, list[tuple[Method, list[Cell]]]]:
        """By the name of the model, the cells of each method that will be computed."""
        found: dict[str, dict[Any, tuple[Method, list[Cell]]]] = {}
        for param in self._planned:
            methods = found.setdefault(param.name.model, {})
            methods.setdefault(param.method.key, (param.method, []))[1].extend(param.cells())
        return {model: list(methods.values()) for model, methods in found.items()}

    def subject_of(self, name: str) -> tuple[Subject, Images]:
        """The model of that name, loaded, and its images."""
        subject = self.load(self._named[name])
        return subject, self.images(subject)

    def check_unchanged(self, subject: object) -> None:
        if isinstance(subject, Subject) and subject in self._states:
            before = self._states[subject]
            now = self._states[subject] = State.of(subject, before.fingerprint)
            before.check(subject, now)

    def check_whole(self, subject: Subject) -> None:
        if subject in self._states:
            self._states[subject].check_fingerprint(subject)

    def _open(self, subject: Subject) -> Images:
        if self.data is None:
            return bundled_images(subject.card, limit=self.count)
        return open_data(self.data, subject.card, depth_scale=self.depth_scale, limit=self.count)
