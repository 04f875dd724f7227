"""Metrics by name, as gates ask for them: evaluation, method, perturbation, fraction -> Score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import scipy.stats
import torch

from xai_assert import registry
from xai_assert.errors import NotApplicableError
from xai_assert.evaluation import Evaluation
from xai_assert.metrics import Cell, FaithfulnessCell, FidelityCell, Metric, Score
from xai_assert.metrics.faithfulness import FE, FE_CUMULATIVE
from xai_assert.metrics.score import ALL_IMAGES
from xai_assert.perturbations import Perturbation

Measure = Callable[[Evaluation, Any, Perturbation, float], Score]
Plan = Callable[[Perturbation, float], list[Cell]]


def _nothing(perturbation: Perturbation, fraction: float) -> list[Cell]:
    return []


@dataclass(frozen=True)
class NamedMetric:
    """A metric that a gate can name. `about` is "explanation", or "run" for what must hold for any numbers at all;
    `cells` are what the evaluation should compute in the same pass as everything else; `facts` say what its numbers
    mean."""

    name: str
    measure: Measure
    about: Literal["explanation", "run"] = "explanation"
    cells: Plan = field(default=_nothing)
    facts: Metric | None = None


def register_metric(
    name: str,
    *,
    about: Literal["explanation", "run"] = "explanation",
    cells: Plan = _nothing,
    facts: Metric | None = None,
    replace: bool = False,
) -> Callable[[Measure], Measure]:
    """Decorator: give `(evaluation, method, perturbation, fraction) -> Score` a name that gates can use.

    See `NamedMetric` for the other arguments.

    Raises:
        ValueError: the name is taken and `replace` is not set.

    Example:
        >>> from xai_assert import registry
        >>> with registry.isolated():
        ...     @register_metric("worst_af")
        ...     def worst_af(evaluation, method, perturbation, fraction):
        ...         score = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
        ...         return Score(score.values.min().reshape(1), ("set",), "worst_af")
        ...     "worst_af" in registry.metrics.names()
        True
    """

    def decorate(measure: Measure) -> Measure:
        registry.metrics.register(name, NamedMetric(name, measure, about, cells, facts), replace=replace)
        return measure

    return decorate


def register_cell(metric: Metric, cell: Callable[[Perturbation, float], Cell]) -> None:
    """Give a metric that one cell measures its name."""

    def measure(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
        return evaluation.score(method, cell(perturbation, fraction), metric)

    register_metric(metric.name, cells=lambda p, f: [cell(p, f)], facts=metric)(measure)


def list_metrics() -> list[Metric]:
    """What the numbers of every registered metric mean; `print` one to read it.

    Example:
        >>> print(next(metric for metric in list_metrics() if metric.name == "af"))
        af: higher is better, -1 to 1, a random map at 0, arXiv 2509.15980
    """
    entries = map(registry.metrics.get, registry.metrics.names())
    return [entry.facts or Metric(entry.name, "") for entry in entries]


def _fidelity(perturbation: Perturbation, fraction: float) -> list[Cell]:
    return [FidelityCell(perturbation, fraction)]


AF = Metric("af", "2509.15980", range=(-1.0, 1.0), chance=0.0)
ASR = Metric("asr", "2509.15980", range=(0.0, 1.0), caveat="counts who is ahead, not by how much")


@register_metric("af", cells=_fidelity, facts=AF)
def af(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Attribution fidelity."""
    return evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)


@register_metric("asr", cells=_fidelity, facts=ASR)
def asr(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Attack success rate: an image counts 1 where rel > irr."""
    found = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
    return Score(
        found.successes, found.image_ids, "asr", provenance=found.provenance, range=ASR.range, caveat=ASR.caveat
    )


@register_metric("fe", cells=lambda perturbation, fraction: [FaithfulnessCell(perturbation)], facts=FE)
def fe(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Faithfulness estimate of single groups."""
    return evaluation.faithfulness_estimate(method, perturbation=perturbation)


@register_metric(
    "fe_cumulative",
    cells=lambda perturbation, fraction: [FaithfulnessCell(perturbation, mode="cumulative")],
    facts=FE_CUMULATIVE,
)
def fe_cumulative(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Faithfulness estimate of cumulative groups."""
    return evaluation.faithfulness_estimate(method, perturbation=perturbation, mode="cumulative")


@register_metric("finite", about="run", cells=_fidelity, facts=Metric("finite", "", range=(0.0, 1.0)))
def finite(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """1 for an image whose prediction the perturbation moved, else 0.

    A number that is not finite never comes so far: it ends its cell as an error.
    """
    found = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
    return Score(found.responsive.double(), found.image_ids, "finite", provenance=found.provenance)


@register_metric(
    "bias",
    about="run",
    cells=_fidelity,
    facts=Metric("bias", "", range=(0.0, math.inf), higher_is_better=False, unit="standard errors"),
)
def bias(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Distance of the mean AF from 0, in standard errors: of a random map it is 0 but for chance.

    Of few images it is put on the normal scale through Student's t, so that a bound means the same for any number.
    """
    found = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
    if found.standard_error == 0 and found.mean != 0:
        raise ValueError(f"AF of {method} is {found.mean:.3f} on each of {len(found)} images: chance has no part in it")
    t = abs(found.mean) / found.standard_error if found.standard_error else 0.0
    distance = float(scipy.stats.norm.isf(scipy.stats.t.sf(t, len(found) - 1))) if t else 0.0
    distance = distance if math.isfinite(distance) else t  # too far out for a probability
    return Score(torch.tensor([distance]), (ALL_IMAGES,), "bias", "standard errors", False, found.provenance)


@register_metric(
    "passes",
    about="run",
    cells=_fidelity,
    facts=Metric("passes", "", range=(0.0, math.inf), higher_is_better=False, unit="x needed"),
)
def passes(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Passes that a method cost over those that its cells need, whichever is further from 1: all, or the gradients."""
    found = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
    expected, spent = evaluation.expected_passes(method), evaluation.passes_of(method)
    if expected is None:
        words = "does not say how many passes it needs (register_method(passes=...)), or a cell of it failed"
        raise NotApplicableError(f"method {method} {words}")
    ratios = [
        (spent.forward + spent.gradient) / (expected.forward + expected.gradient),
        spent.gradient / expected.gradient if expected.gradient else 1.0 + spent.gradient,
    ]
    return Score(
        torch.tensor([max(ratios, key=lambda ratio: abs(ratio - 1))]),
        (ALL_IMAGES,),
        "passes",
        "x needed",
        False,
        found.provenance,
    )


@register_metric(
    "passes_per_image",
    about="run",
    facts=Metric("passes_per_image", "", range=(0.0, math.inf), higher_is_better=False, unit="passes"),
)
def passes_per_image(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Forward and gradient passes that an attribution costs an image."""
    from xai_assert.latency import attribution_latency  # which stands on this module

    return attribution_latency(evaluation, method).of_passes()


@register_metric(
    "forward_ratio",
    about="run",
    facts=Metric("forward_ratio", "", range=(0.0, math.inf), higher_is_better=False, unit="forward passes"),
)
def forward_ratio(evaluation: Evaluation, method: Any, perturbation: Perturbation, fraction: float) -> Score:
    """Time of an attribution over the time of one forward pass of the same images."""
    from xai_assert.latency import attribution_latency

    return attribution_latency(evaluation, method)
