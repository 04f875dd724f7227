"""What a sweep measures of every method, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xai_assert import registry
from xai_assert.attributions import Method, choose_target
from xai_assert.attributions.controls import CONTROLS
from xai_assert.batching import Passes, without_gradient
from xai_assert.cost import measure_speed, passes_an_image, predict_cost
from xai_assert.errors import UnknownNameError
from xai_assert.evaluation import Evaluation
from xai_assert.metrics import Cell
from xai_assert.perturbations import Perturbation, perturbation
from xai_assert.preserve import undisturbed
from xai_assert.sweep.gradient_noise import PASSES as NOISE_PASSES

PARTS = ("sigma", "fraction", "perturbation", "metric", "gradient_noise")
REFERENCE = "gaussian_noise"  # at FRACTION: where the choice is made, because it changes R and I equally
FRACTION = 0.05
SIGMA = 0.8  # of gaussian_noise if nothing is said
SIGMAS = (0.05, 0.1, 0.2, 0.4, SIGMA, 1.5, 3.0)  # about twice the one before
FRACTIONS = (0.005, 0.01, 0.02, FRACTION, 0.1, 0.2, 0.3)
QUICK_SIGMAS = (0.05, 0.2, SIGMA, 3.0)
QUICK_FRACTIONS = (0.005, FRACTION, 0.3)
METRICS = ("deletion_auc", "insertion_auc", "srg", "road", "sufficiency")  # AF is compared with what exists of these
UNDER = (REFERENCE, "black", "mean", "blur")  # a whole curve under each perturbation would take hours
QUICK_UNDER = (REFERENCE, "mean")


@dataclass(frozen=True, eq=False)
class Point:
    """One number of every method. `parts` are the sweeps that it belongs to; none, for the reference alone.

    `beside` is the perturbation under which AF is compared with another metric: its own where it has one.
    """

    metric: str
    perturbation: Perturbation
    fraction: float
    parts: tuple[str, ...] = ()
    beside: Perturbation | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.metric, self.perturbation.key, self.fraction)

    @property
    def is_reference(self) -> bool:
        """Whether the method is chosen by this number."""
        return (self.metric, str(self.perturbation), self.fraction) == ("af", REFERENCE, FRACTION)

    @property
    def sigma(self) -> float | None:
        """Strength of the noise, in the sweep over it."""
        return float(self.perturbation.parameters.get("sigma", SIGMA)) if "sigma" in self.parts else None

    def cells(self) -> list[Cell]:
        """What the evaluation must compute for it."""
        cells: list[Cell] = registry.metrics.get(self.metric).cells(self.perturbation, self.fraction)
        return cells


@dataclass(frozen=True)
class Plan:
    """The points of a sweep and what was left out of it, with the reason. `noise` asks for the gradient's."""

    points: list[Point]
    left_out: list[dict[str, str]] = field(default_factory=list)
    noise: bool = True

    def cost(self, evaluation: Evaluation, methods: Iterable[Method]) -> tuple[Passes, float, list[str]]:
        """Passes, seconds on this machine (a few images are run to see), and the methods that do not say their own."""
        source, subject = evaluation.source, evaluation.subject
        plan = [(m, [cell for point in self.points for cell in point.cells()]) for m in methods]
        batch = source.batch(0, min(4, len(source))).images.to(subject.device)
        with undisturbed(subject):
            target = choose_target(subject, None, without_gradient(subject, batch))
            speed = measure_speed(subject, batch, target)
        passes, _ = predict_cost(plan, len(source), speed)
        passes.gradient += self.noise * NOISE_PASSES * len(source)
        return passes, speed.seconds(passes), [str(m) for m, cells in plan if passes_an_image(m, cells) is None]


def plan_sweep(*, quick: bool = False, parts: Sequence[str] = PARTS, metrics: Sequence[str] | None = None) -> Plan:
    """The points of these parts; the reference, AF under gaussian_noise at 5 %, is always one.

    Args:
        quick: fewer sigmas and fractions, no attack of several steps, other metrics under two perturbations.
        parts: of `PARTS`.
        metrics: names to compare AF with; those of `METRICS` that are registered if nothing is said.

    Raises:
        UnknownNameError: no such part, or metric.

    Example:
        >>> [(p.perturbation.parameters, p.fraction) for p in plan_sweep(quick=True, parts=["sigma"]).points]
        [({}, 0.05), ({'sigma': 0.05}, 0.05), ({'sigma': 0.2}, 0.05), ({'sigma': 3.0}, 0.05)]
    """
    for part in parts:
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
    for name in metrics or ():
        registry.metrics.get(name)
    left_out: list[dict[str, str]] = []
    wanted: list[Point] = [Point("af", perturbation(REFERENCE), FRACTION)]
    if "sigma" in parts:
        wanted += [Point("af", noise(s), FRACTION, ("sigma",)) for s in (QUICK_SIGMAS if quick else SIGMAS)]
    if "fraction" in parts:
        fractions = QUICK_FRACTIONS if quick else FRACTIONS
        wanted += [Point("af", perturbation(REFERENCE), f, ("fraction",)) for f in fractions]
    if "perturbation" in parts:
        wanted += _perturbations(quick, left_out)
    if "metric" in parts:
        wanted += _metrics(QUICK_UNDER if quick else UNDER, metrics, left_out)
    return Plan(_once(wanted), left_out, "gradient_noise" in parts)


def noise(sigma: float) -> Perturbation:
    """gaussian_noise of this strength, under its plain name where that is the usual one."""
    return perturbation(REFERENCE) if sigma == SIGMA else perturbation(REFERENCE, sigma=sigma)


def with_controls(methods: Iterable[Method], controls: Iterable[Method]) -> list[Method]:
    """Each method once, and the controls behind them."""
    return list({m.key: m for m in (*(m for m in methods if str(m) not in CONTROLS), *controls)}.values())


def _perturbations(quick: bool, left_out: list[dict[str, str]]) -> list[Point]:
    points = []
    for name in registry.perturbations.names():
        what = perturbation(name)
        if quick and what.gradients > 1:
            words = f"costs {what.gradients} gradient passes an image; left out by --quick"
            left_out.append({"perturbation": name, "reason": words})
        else:
            points.append(Point("af", what, FRACTION, ("perturbation",)))
    return points


def _metrics(under: Sequence[str], metrics: Sequence[str] | None, left_out: list[dict[str, str]]) -> list[Point]:
    """The other metrics, and the AF that each is compared with."""
    known = registry.metrics.names()
    left_out += [{"metric": name, "reason": "not registered"} for name in metrics or METRICS if name not in known]
    points = []
    for name in (name for name in metrics or METRICS if name in known):
        seen: set[Any] = set()
        for what in (perturbation(each) for each in under if each in registry.perturbations.names()):
            cells = registry.metrics.get(name).cells(what, FRACTION)
            measured = tuple(cell.key for cell in cells) or what.key
            if measured not in seen:  # a metric with a perturbation of its own, or with none, is measured once
                seen.add(measured)
                beside = (cells[0].perturbation if cells else None) or what
                points.append(Point(name, what, FRACTION, ("metric",), beside))
                points.append(Point("af", beside, FRACTION, ("metric",)))
    return points


def _once(points: Iterable[Point]) -> list[Point]:
    """Points that measure the same as one, which belongs to the parts of all."""
    found: dict[Any, Point] = {}
    for point in points:
        before = found.get(point.key, point)
        parts = tuple(dict.fromkeys(before.parts + point.parts))
        found[point.key] = Point(point.metric, point.perturbation, point.fraction, parts, before.beside)
    return list(found.values())
