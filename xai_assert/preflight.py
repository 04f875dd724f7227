"""Minutes before an hour of gates: can this model be measured at all, and what will it cost?

What cannot be seen from here: colours in the wrong order (BGR for RGB), and weights of another training.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_assert import randomness, registry
from xai_assert.artefacts import Artefact, check_twin
from xai_assert.attributions import Method, as_method, check_ranks
from xai_assert.attributions.gradients import input_gradient
from xai_assert.batching import ImageSource, Passes, Samples, counted
from xai_assert.cost import Speed, measure_speed, passes_an_image, predict_cost, timed
from xai_assert.errors import NearBaselineWarning, NotApplicableError
from xai_assert.metrics import Cell
from xai_assert.metrics.prepared import check_finite
from xai_assert.model_checks import CHECKS, Looked, Outcome, Said, input_scale, input_size, output, training_mode
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.preserve import undisturbed
from xai_assert.subject import Subject

LOOKED_AT = 4  # images
PATIENCE = 30.0  # seconds for one method on one image


@dataclass(frozen=True)
class Finding:
    """One check and what it found; `words` have the figure and, where it is not ok, the remedy."""

    check: str
    outcome: Outcome
    words: str


def preflight(
    subject: Subject,
    images: Tensor | Samples,
    methods: Sequence[Any],
    perturbations: Sequence[str | Perturbation],
    *,
    fractions: Sequence[float] = (0.05,),
    seed: int = 0,
) -> list[Finding]:
    """Check a subject and the planned methods and perturbations on 4 images, and predict what all images will cost.

    It measures as the gates do, in evaluation mode, and leaves the model as it was. A check that ends in an exception
    has failed; what stands on it is skipped.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from xai_assert.subject import describe
        >>> subject = describe(nn.Conv2d(3, 1, 1), name="pixelwise", task="depth", mean=[0.5] * 3, std=[0.25] * 3)
        >>> pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> findings = preflight(subject, (pictures - 0.5) / 0.25, ["saliency"], ["gaussian_noise"])
        >>> [finding.check for finding in findings if finding.outcome == "fail"]  # its gradient is the same everywhere
        ['method saliency']
    """
    wanted, fields = [as_method(m) for m in methods], [as_perturbation(p) for p in perturbations]
    source = ImageSource(images, channels=subject.card.channels)
    batch = source.batch(0, min(LOOKED_AT, len(source)))
    inputs = batch.images.to(subject.device)
    found = [Finding("mode", *training_mode(subject)), Finding("input size", *input_size(subject, inputs))]
    found.append(Finding("input scale", *input_scale(subject, inputs)))
    with undisturbed(subject):
        try:
            looked = Looked.at(subject, inputs, batch.ids, seed)
        except Exception as error:
            rest = Finding("everything else", "skip", "stands on an output that can be read")
            return [*found, failed("output", error), rest]
        found.append(Finding("output", *output(looked)))
        if isinstance(subject, Artefact):
            found.append(attempt("artefact", functools.partial(one_network, subject, source)))
        for name, check in CHECKS.items():
            found.append(attempt(name, functools.partial(check, looked)))
        if found[-1].outcome == "fail":
            return [*found, Finding("methods, cost", "skip", "stand on the gradient")]
        speed = measure_speed(subject, inputs, looked.target(len(inputs)))
        own: dict[Any, Passes] = {}
        of_methods = [attempt(f"method {m}", functools.partial(applicable, looked, m, speed, own)) for m in wanted]
        found += of_methods
        found += [attempt(f"perturbation {p}", functools.partial(perturbs, looked, p)) for p in fields]
    running = [m for m, finding in zip(wanted, of_methods, strict=True) if finding.outcome in ("ok", "warn")]
    plan = [(m, planned_cells(fields, fractions)) for m in running]
    return [*found, Finding("cost", *cost(plan, len(source), speed, own))]


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings as a table, a line each."""
    width = max(len(finding.check) for finding in findings)
    return [f"{f.outcome:<4}  {f.check:<{width}}  {f.words}" for f in findings]


def attempt(name: str, check: Callable[[], Said]) -> Finding:
    """A check as a finding, also if it raises."""
    try:
        return Finding(name, *check())
    except NotApplicableError as error:
        return Finding(name, "skip", f"does not apply: {error}")
    except Exception as error:
        return failed(name, error)


def failed(name: str, error: Exception) -> Finding:
    return Finding(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0])


def one_network(subject: Artefact, source: ImageSource) -> Said:
    """Whether artefact and twin predict the same within the tolerance."""
    about = check_twin(subject, source, LOOKED_AT)
    words = f"{about['format']} {about['file']}, maps from the {about['maps']}"
    if "difference" not in about:
        return "ok", f"{words}; no gradient method applies without a twin="
    return "ok", f"{words}, {about['difference']:.2g} of their spread apart on {about['images']} images"


def applicable(looked: Looked, method: Method, speed: Speed, own: dict[Any, Passes]) -> Said:
    """Explain one image; its passes are noted in `own`."""
    declared = Passes(*method.declared_passes) if method.declared_passes else None
    expected = speed.seconds(declared) if declared else 0.0
    if expected > PATIENCE:
        return "warn", f"not tried: one image would take about {duration(expected)}"
    spent, ids = Passes(), looked.ids[:1]
    with counted(looked.subject, spent), heard(NearBaselineWarning) as near:
        seconds, attribution = timed(
            looked.subject.device,
            lambda: method.attribute(
                looked.subject, looked.images[:1], looked.target(1), image_ids=ids, seed=looked.seed
            ),
        )
    check_ranks(method.heatmap(attribution), ids, method)
    own[method.key] = spent
    words = f"{spent.forward} forward, {spent.gradient} gradient passes an image, {duration(seconds)}"
    if declared not in (None, spent):
        return "warn", f"{words}; it declares {declared.forward} and {declared.gradient}"
    return ("warn", f"{words}; {near[0]}") if near else ("ok", words)


@contextmanager
def heard(category: type[Warning]) -> Iterator[list[str]]:
    """The texts of the warnings of one kind that are given inside, in place of these; others are given as ever."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    for one in caught:
        if issubclass(one.category, category):
            texts.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def perturbs(looked: Looked, perturbation: Perturbation) -> Said:
    """Perturb whole pictures, and look what that does to the prediction.

    Of a perturbation that depends on the pixels that are left (`noisy_linear`), a whole picture says nothing; half of
    it is perturbed then, drawn by lot, as much as R or I may have.
    """
    card, images = looked.subject.card, looked.images

    def gradient(at: Tensor | None = None) -> Tensor:
        return input_gradient(looked.subject.explained, images if at is None else at, looked.target(len(images)))

    perturbed = perturbation.on(images, card=card, image_ids=looked.ids, seed=looked.seed, gradient=gradient)
    mask, what = torch.ones_like(images[:, :1], dtype=torch.bool), "whole picture"
    if perturbed.field is None:
        draws = randomness.uniform(mask.shape[1:], seed=looked.seed, image_ids=looked.ids, purpose="preflight")
        mask, what = (draws < 0.5).to(images.device), "half of the pixels"
    field = perturbed(mask)
    change = float(((field - images).abs() / card.strength(images.shape[1]).to(images))[mask.expand_as(images)].mean())
    moved = looked.task.error(looked.predict(field), looked.prediction)
    check_finite(moved[:, None], looked.ids, looked.subject, f" perturbed by {perturbation}")
    words = f"{what} moved by {change:.2g} ImageNet std, the prediction by {float(moved.mean()):.3g}"
    words += f" {card.unit}" if card.unit else ""
    still = int((moved <= looked.floor).sum())
    return ("warn", f"{words}; not at all on {still} of {len(moved)} images") if still else ("ok", words)


def planned_cells(perturbations: Sequence[Perturbation], fractions: Sequence[float]) -> list[Cell]:
    """What the fidelity suite measures of a method: AF, and FE under gaussian_noise."""
    cells: list[Cell] = []
    for p in perturbations:
        for name in ("af", "fe") if p.name == "gaussian_noise" else ("af",):
            cells += [cell for fraction in fractions for cell in registry.metrics.get(name).cells(p, fraction)]
    return cells


def cost(plan: Sequence[tuple[Method, list[Cell]]], images: int, speed: Speed, own: dict[Any, Passes]) -> Said:
    passes, seconds = predict_cost(plan, images, speed, own)
    unknown = [str(m) for m, cells in plan if passes_an_image(m, cells, own.get(m.key)) is None]
    what = f"{images} image{'s' * (images != 1)}, {len(plan)} method{'s' * (len(plan) != 1)}"
    words = f"{what}: {passes.forward:,} forward and {passes.gradient:,} gradient passes"
    times = f"{1000 * speed.forward:.1f} and {1000 * speed.gradient:.1f} ms"
    beside = f"; without those of {', '.join(unknown)}" if unknown else ""
    return "ok", f"{words}, about {duration(seconds)} at {times}{beside}"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would say."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
