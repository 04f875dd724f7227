"""The options of a run, as objects; a mistake in one of them ends the run with a sentence."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from xai_assert import registry, resources
from xai_assert.acceleration import accelerate, check_words
from xai_assert.attributions import Method, method
from xai_assert.evidence import Keep, checked_keep
from xai_assert.gates import Gate, read_gates
from xai_assert.models import load_model
from xai_assert.models.devices import resolve_device
from xai_assert.models.download import cache_folder
from xai_assert.perturbations import Perturbation, perturbation
from xai_assert.reporting.read import check_complete, read_results
from xai_assert.scores.named import NamedMetric
from xai_assert.store import Store
from xai_assert.subject import Subject, slug
from xai_assert.testing.flags import OPTIONS, option, option_path
from xai_assert.testing.workers import share_machine

T = TypeVar("T")
MODELS = {
    "depth": ("meter-xxs-scenes@scenes", "pixelformer-nano@scenes"),
    "classification": ("nearest-object-nano@scenes",),
    "segmentation": ("segmenter-nano@scenes",),
    "all": ("pixelformer-nano@scenes", "nearest-object-nano@scenes", "segmenter-nano@scenes"),  # of one encoder
}
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
        """From `[ALIAS=]SPEC[@WEIGHTS]`, where SPEC may have `(key=value)` behind it."""
        left, _, weights = text.partition("@")
        name, bracket, parameters = left.partition("(")
        alias, equals, name = name.rpartition("=")
        spec = name + bracket + parameters
        if not spec or (equals and not alias) or text.endswith("@"):
            raise pytest.UsageError(f"--xai-model {text!r} is not of the form [ALIAS=]SPEC[@WEIGHTS]")
        return cls(spec, weights or None, alias or None)

    @property
    def id(self) -> str:
        return slug(self.alias or str(self.spec))

    def load(self, device: torch.device, faster: Sequence[str] = ()) -> Subject:
        if not self.loaded:
            subject = load_model(self.spec, self.weights, device, name=self.alias)
            self.loaded.append(accelerate(subject, faster) if faster else subject)
        return self.loaded[0]


class Options:
    """What the user asked for, read when it is first needed."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @functools.cached_property
    def device(self) -> torch.device:
        device = self._usage(resolve_device, self._text("device"))
        share_machine(self.config, device)
        return device

    @functools.cached_property
    def models(self) -> list[ModelOption]:
        return [ModelOption.parse(text) for text in self._texts("model", self._own_models())]

    def _own_models(self) -> Sequence[str]:
        """The project's, of the task that the user asked for."""
        task = option(self.config, "task")
        if task and option(self.config, "model"):
            raise pytest.UsageError(
                f"--xai-task {task} chooses among the project's networks; leave it out with --xai-model"
            )
        if task and task not in MODELS:
            raise pytest.UsageError(f"--xai-task must be one of {', '.join(MODELS)}, not {task!r}")
        return MODELS[task or "depth"]

    @functools.cached_property
    def faster(self) -> list[str]:
        """How passes are accelerated, if they are."""
        found = self._texts("accelerate", ())
        if found:
            self._usage(check_words, found)
        return found

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
    def metrics(self) -> list[NamedMetric]:
        """What is measured in every cell beside what its gates ask for."""
        found = [self._usage(registry.metrics.get, name) for name in self._texts("metric", ())]
        for metric in found:
            if metric.about != "explanation":
                raise pytest.UsageError(f"--xai-metric must be one of an explanation, not {metric.name!r}")
        return found

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

    @functools.cached_property
    def store(self) -> Store | None:
        """Of attributions, if the user wants one; the workers of a run are one run to it."""
        path = option_path(self.config, "cache")
        if path is None:
            return None
        folder = cache_folder() / "attributions" if option(self.config, "cache") == "auto" else path
        size = self._number("cache-size", float, self._text("cache-size"))
        if not 0 < size < float("inf"):
            raise pytest.UsageError(f"--xai-cache-size must be above 0 MB, not {size:g}")
        strict = bool(option(self.config, "strict") and not option(self.config, "strict-cache"))
        run = getattr(self.config, "workerinput", {}).get("testrunuid", "")
        return self._usage(lambda: Store(folder, size * 2**20, strict=strict, run=run))

    def check_options(self) -> None:
        """Say a mistake before anything is computed, also in what this test would not need."""
        _ = self.methods, self.perturbations, self.metrics, self.fractions, self.seed, self.count
        _ = self.depth_scale, self.data, self.keep, self.margin, self.baseline, self.store, self.faster

    @functools.cached_property
    def gates(self) -> list[Gate]:
        return self._usage(read_gates, self.gates_path)

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
