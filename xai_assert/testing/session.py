"""What one pytest run holds: models, images, gates and evaluations, each made when it is first needed."""

from __future__ import annotations

import dataclasses
import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from xai_assert import registry, resources
from xai_assert.attributions import Method, method
from xai_assert.batching import Samples
from xai_assert.cells import Cell
from xai_assert.datasets import bundled_images, open_data
from xai_assert.evaluation import Evaluation
from xai_assert.evidence import Keep, checked_keep
from xai_assert.gates import Gate, check_gates_match, read_gates
from xai_assert.models import load_model
from xai_assert.models.builders import known_name
from xai_assert.models.devices import resolve_device
from xai_assert.perturbations import Perturbation, perturbation
from xai_assert.reporting.read import check_complete, read_results
from xai_assert.subject import Subject, slug
from xai_assert.testing import OPTIONS, option, option_path
from xai_assert.testing.gates import GateCheck, GateParam, param_of
from xai_assert.testing.progress import Progress
from xai_assert.testing.unchanged import State
from xai_assert.testing.workers import in_shard, parse_shard, share_machine

T = TypeVar("T")
Images = Samples
MODELS = ("meter-xxs-scenes@scenes", "pixelformer-nano@scenes")
METHODS = ("saliency", "integrated_gradients", "attention_rollout", "random", "edges")
PERTURBATIONS = ("black", "mean", "gaussian_noise", "fgsm")


@dataclass(frozen=True, eq=False)
class ModelOption:
    """One model of the run: how to load it, and how it is called if the user says so."""

    spec: str | Callable[[], Any]
    weights: str | None = None
    alias: str | None = None
    loaded: list[Subject] = dataclasses.field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> ModelOption:
        """From `[ALIAS=]SPEC[@WEIGHTS]`."""
        left, _, weights = text.partition("@")
        alias, equals, spec = left.rpartition("=")
        if not spec or (equals and not alias) or text.endswith("@"):
            raise pytest.UsageError(f"--xai-model {text!r} is not of the form [ALIAS=]SPEC[@WEIGHTS]")
        return cls(spec, weights or None, alias or None)

    @property
    def id(self) -> str:
        return slug(self.alias or str(self.spec))

    def load(self, device: torch.device) -> Subject:
        if not self.loaded:
            self.loaded.append(load_model(self.spec, self.weights, device, name=self.alias))
        return self.loaded[0]


class XaiSession:
    """The options of a run, as objects."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._evaluations: dict[tuple[int, int], Evaluation] = {}
        self._images: dict[Any, Images] = {}
        self._states: dict[Subject, State] = {}
        self._planned: list[GateParam] = []
        self.planned: list[dict[str, Any]] = []
        self._params: list[GateParam] = []
        self._narrowed: set[str] | None = None
        self._named: dict[str, ModelOption] = {}
        self._mistake: pytest.UsageError | None = None

    @functools.cached_property
    def device(self) -> torch.device:
        device = self._usage(resolve_device, self._text("device"))
        share_machine(self.config, device)
        return device

    @functools.cached_property
    def models(self) -> list[ModelOption]:
        return [ModelOption.parse(text) for text in self._texts("model", MODELS)]

    @functools.cached_property
    def methods(self) -> list[Method]:
        return [self._usage(method, name) for name in self._texts("method", METHODS)]

    @functools.cached_property
    def perturbations(self) -> list[Perturbation]:
        return [self._usage(perturbation, name) for name in self._texts("perturbation", PERTURBATIONS)]

    @functools.cached_property
    def fractions(self) -> list[float]:
        found = [self._number("fraction", float, text) for text in self._texts("fraction", ())]
        for fraction in found:
            if not 0 < fraction <= 0.5:
                raise pytest.UsageError(f"--xai-fraction must be above 0 and at most 0.5, not {fraction}")
        return list(dict.fromkeys(found))

    @functools.cached_property
    def seed(self) -> int:
        return self._number("seed", int, self._text("seed"))

    @functools.cached_property
    def count(self) -> int | None:
        """How many images the user asked for."""
        text = self._text("images")
        count = None if text is None else self._number("images", int, text)
        if count is not None and count < 1:
            raise pytest.UsageError(f"--xai-images must be at least 1, not {count}")
        return count

    @functools.cached_property
    def keep(self) -> Keep:
        """Of which images pictures go to the report."""
        return self._usage(checked_keep, self._text("report-images"))

    @functools.cached_property
    def depth_scale(self) -> float:
        scale = self._number("depth-scale", float, self._text("depth-scale"))
        if not 0 < scale < float("inf"):
            raise pytest.UsageError(f"--xai-depth-scale must be above 0, not {scale}")
        return scale

    @functools.cached_property
    def data(self) -> Path | str | None:
        path = option_path(self.config, "data")
        if path is None or path.exists():
            return path
        if path.name.endswith(")"):  # nyu(...) or kitti(...): opening them says what is wrong
            return str(self._text("data"))
        raise pytest.UsageError(f"--xai-data: there is no {path}")

    @functools.cached_property
    def gates_path(self) -> Path:
        return option_path(self.config, "gates") or resources.suites() / "gates.toml"

    @functools.cached_property
    def baseline(self) -> Path | None:
        """results.json of an accepted run, which can be read."""
        path = option_path(self.config, "baseline")
        if path and option(self.config, "shard"):
            raise pytest.UsageError(
                "--xai-baseline needs the whole run, and --xai-shard makes a part of it; give the baseline to "
                "`xai-assert merge --baseline`"
            )
        if path:
            self._usage(lambda: check_complete(read_results(path), path, "a baseline must be"))
        return path

    @functools.cached_property
    def margin(self) -> float:
        margin = self._number("margin", float, self._text("margin"))
        if not 0 <= margin < float("inf"):
            raise pytest.UsageError(f"--xai-margin must be at least 0, not {margin}")
        return margin

    @property
    def narrowed(self) -> bool:
        """Whether the user asked for a part of the tests only: other cells of a baseline may then be missing."""
        options = (self.config.option.keyword, self.config.option.markexpr)
        return any(options) or any("::" in argument for argument in self.config.args)

    def check_options(self) -> None:
        """Say a mistake before anything is computed, also in what this test would not need."""
        _ = self.methods, self.perturbations, self.fractions, self.seed, self.count, self.depth_scale, self.data
        _ = self.keep, self.margin, self.baseline

    @functools.cached_property
    def gates(self) -> list[Gate]:
        return self._usage(read_gates, self.gates_path)

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
        subject = self._usage(model.load, self.device)
        if subject not in self._states:
            self._states[subject] = State.of(subject)
        return subject

    def images(self, subject: Subject) -> Images:
        card = subject.card
        key = (card.input_size, card.output_size, card.mean, card.std, card.unit, card.layout)
        if key not in self._images:
            self._images[key] = self._usage(self._open, subject)
        return self._images[key]

    def evaluation(self, subject: Subject, images: Images) -> Evaluation:
        key = (id(subject), id(images))
        if key not in self._evaluations:
            found = self._evaluations[key] = Evaluation(subject, images, seed=self.seed)
            found.progress = Progress(self.config)
            found.keep = self.keep
            for param in self._planned:
                if param.name.model == subject.name:
                    found.plan(param.method, param.cells())
        return self._evaluations[key]

    def gate(self, param: GateParam, subject: Subject, images: Images) -> GateCheck:
        if self._mistake:
            raise self._mistake
        data = f"tensor {tuple(images.shape)}" if isinstance(images, torch.Tensor) else repr(images)
        return GateCheck(param, self.evaluation(subject, images), subject, data)

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

    def _text(self, name: str) -> Any:
        return option(self.config, name) or OPTIONS[name][1]

    def _texts(self, name: str, default: Sequence[str]) -> list[str]:
        fallback = OPTIONS[name][1]
        return list(option(self.config, name) or ([fallback] if fallback else default))

    def _number(self, name: str, kind: Callable[[str], T], text: str) -> T:
        try:
            return kind(text)
        except ValueError:
            raise pytest.UsageError(f"--xai-{name} must be a number, not {text!r}") from None

    def _usage(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call it; a mistake in what the user asked for, which our own code found, ends the run with its text alone.

        What the user's code raises (a model's factory, a data set) is shown with its traceback.
        """
        try:
            return function(*arguments)
        except (ValueError, TypeError, ImportError) as error:
            raised_in = [frame.filename for frame in traceback.extract_tb(error.__traceback__)][-1]
            if not Path(raised_in).is_relative_to(resources.PACKAGE):
                raise
            raise pytest.UsageError(f"xai-assert: {error}") from error
