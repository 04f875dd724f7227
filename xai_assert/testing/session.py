"""What one pytest run holds: models, images, gates and evaluations, each made when it is first needed."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from xai_assert import registry, resources
from xai_assert.attributions import Method, method
from xai_assert.batching import Samples
from xai_assert.datasets import generated, open_data
from xai_assert.evaluation import Evaluation
from xai_assert.gates import CellName, Gate, check_gates_match, read_gates
from xai_assert.models import load_model
from xai_assert.models.devices import resolve_device
from xai_assert.perturbations import Perturbation, perturbation
from xai_assert.subject import Subject, slug
from xai_assert.testing import OPTIONS, option
from xai_assert.testing.gates import GateCheck, GateParam
from xai_assert.testing.unchanged import State

T = TypeVar("T")
Images = Samples
METHODS = ("saliency", "integrated_gradients", "attention_rollout", "random", "edges")
PERTURBATIONS = ("black", "mean", "gaussian_noise", "fgsm")
GENERATED = 24


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
        self._cells: list[CellName] = []
        self._narrowed: set[str] = set()

    @functools.cached_property
    def device(self) -> torch.device:
        return self._usage(resolve_device, self._text("device"))

    @functools.cached_property
    def models(self) -> list[ModelOption]:
        return [ModelOption.parse(text) for text in self._texts("model", ())]

    @functools.cached_property
    def methods(self) -> list[Method]:
        return [self._usage(method, name) for name in self._texts("method", METHODS)]

    @functools.cached_property
    def perturbations(self) -> list[Perturbation]:
        return [self._usage(perturbation, name) for name in self._texts("perturbation", PERTURBATIONS)]

    @functools.cached_property
    def fractions(self) -> list[float]:
        return [self._number("fraction", float, text) for text in self._texts("fraction", ())]

    @functools.cached_property
    def seed(self) -> int:
        return self._number("seed", int, self._text("seed"))

    @functools.cached_property
    def gates_path(self) -> Path:
        given = option(self.config, "gates")
        return Path(given) if given else resources.suites() / "gates.toml"

    @functools.cached_property
    def gates(self) -> list[Gate]:
        return self._usage(read_gates, self.gates_path)

    def remember(self, cells: Sequence[CellName], narrowed: Sequence[str]) -> None:
        """The cells of one decorated test, and the dimensions that its decorator narrows."""
        self._cells += cells
        self._narrowed.update(narrowed)

    def check_gates(self) -> None:
        """Every gate must meet a cell of this run, but for what the user narrowed and for our own file's models."""
        if not self._cells:
            return
        names = {"method": registry.methods.names(), "perturbation": registry.perturbations.names(), "fraction": []}
        narrowed = {n: known for n, known in names.items() if n in self._narrowed or option(self.config, n)}
        if not option(self.config, "gates"):
            narrowed["model"] = registry.models.names()
        self._usage(lambda: check_gates_match(self.gates, self._cells, narrowed=narrowed, path=self.gates_path))

    def name_of(self, model: ModelOption) -> str:
        """How results and gates call a model: its alias, or the name on its card."""
        return model.alias or self.load(model).name

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
            for param in self._planned:
                if param.name.model == subject.name:
                    found.plan(param.method, param.cells())
        return self._evaluations[key]

    def gate(self, param: GateParam, subject: Subject, images: Images) -> GateCheck:
        data = f"tensor {tuple(images.shape)}" if isinstance(images, torch.Tensor) else repr(images)
        return GateCheck(param, self.evaluation(subject, images), subject, data)

    def plan(self, items: Sequence[pytest.Item]) -> None:
        """Remember the cells of the tests that will run, so that each method needs one pass over the images."""
        self.check_gates()
        found = [getattr(item, "callspec", None) for item in items]
        params = [callspec.params.get("gate") for callspec in found if callspec]
        self._planned = [param for param in params if isinstance(param, GateParam)]

    def check_unchanged(self, subject: object) -> None:
        if isinstance(subject, Subject) and subject in self._states:
            before = self._states[subject]
            now = self._states[subject] = State.of(subject, before.fingerprint)
            before.check(subject, now)

    def check_whole(self, subject: Subject) -> None:
        if subject in self._states:
            self._states[subject].check_fingerprint(subject)

    def _open(self, subject: Subject) -> Images:
        path, limit = self._text("data"), self._text("images")
        count = None if limit is None else self._number("images", int, limit)
        if count is not None and count < 1:
            raise ValueError(f"--xai-images must be at least 1, not {count}")
        if path is None:
            return generated(subject.card, count=count or GENERATED, seed=0)
        scale = self._number("depth-scale", float, self._text("depth-scale"))
        return open_data(path, subject.card, depth_scale=scale, limit=count)

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
        """Call it; a mistake in what the user asked for ends the run with its text, not with a traceback."""
        try:
            return function(*arguments)
        except (ValueError, TypeError, ImportError) as error:
            raise pytest.UsageError(f"xai-assert: {error}") from error
