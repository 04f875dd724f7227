"""Attribution fidelity (AF) and attack success rate (ASR) of "Shedding Light on Depth" (2509.15980)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xai_assert.batching import Passes
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.score import Score
from xai_assert.packing import Job, Steps
from xai_assert.perturbations import Perturbation, Perturbed, pixel_count
from xai_assert.significance import sign_flips

Reference = Literal["prediction", "ground_truth"]
Aggregate = Literal["image", "set"]
AsrRule = Literal["relevant", "degrades"]

UNEQUAL_CHANGE = 1.5  # one end changed this much more than the other: AF then mixes relevance with the size of it
SATURATED = 0.5  # of the spread of the clean map: errors near it cannot tell two regions apart


def fidelity(relevant: Tensor, irrelevant: Tensor) -> Tensor:
    """(rel - irr) / (|rel| + |irr|) in [-1, 1] (Eq. 7), 0 where both are 0; any shape.

    >>> fidelity(torch.tensor([3.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])).tolist()
    [0.5, 0.0, 1.0]
    """
    total = relevant.abs() + irrelevant.abs()
    return torch.where(total > 0, (relevant - irrelevant) / total.where(total > 0, torch.ones_like(total)), 0.0)


class Seen(NamedTuple):
    """One side of a batch: R or I (B, 1, H, W), the pictures it was perturbed in, and what was predicted on them."""

    mask: Tensor
    perturbed: Tensor
    prediction: Tensor


@dataclass(frozen=True, eq=False)
class FidelityCell(Cell):
    """AF and ASR: R and I of `fraction` of the pixels are perturbed."""

    perturbation: Perturbation
    fraction: float = 0.05

    @property
    def key(self) -> tuple[object, ...]:
        return ("fidelity", self.perturbation.key, self.fraction)

    @property
    def passes(self) -> Passes:
        return Passes(forward=2)

    def check(self, size: tuple[int, int]) -> None:
        pixel_count(self.fraction, size)

    def measure(self, batch: Prepared, perturb: Perturbed, seen: list[Seen] | None = None) -> Steps[Measured]:
        return measure(batch, perturb, self.fraction, seen)

    def about(self) -> dict[str, Any]:
        return {"fraction": self.fraction}


def measure(batch: Prepared, perturb: Perturbed, fraction: float, seen: list[Seen] | None = None) -> Steps[Measured]:
    """Perturb R, then I: two forward passes an image.

    What the network was shown is left in `seen`, for those who want to look.
    """
    measured: Measured = {"floor": batch.floor, "spread": batch.task.spread(batch.clean)}
    relevant, irrelevant = batch.ranking.ends(fraction)
    measured["edge_overlap"] = edge_overlap(relevant, batch.edges)
    if batch.truth is not None:
        measured["clean_error"] = batch.task.truth_error(batch.clean, batch.truth)
    sides = yield [side_job(batch, perturb, end, keep=seen is not None) for end in (relevant, irrelevant)]
    for name, (found, kept) in zip(("relevant", "irrelevant"), sides, strict=True):
        measured |= {f"{name}_{what}": column for what, column in found.items()}
        if seen is not None:
            seen.append(kept)
    return measured


def side_job(batch: Prepared, perturb: Perturbed, positions: Tensor, *, keep: bool) -> Job:
    """One end (B, k): its errors, how far its pixels moved, and how many did not; what was `Seen` if asked."""
    mask = batch.ranking.mask(positions)
    places = positions[:, None].expand(-1, batch.images.shape[1], -1)

    def read(perturbed: Tensor, output: Tensor) -> tuple[Measured, Seen | None]:
        prediction = batch.task.read(output)
        found = {"error": batch.task.error(prediction, batch.clean)}
        if batch.truth is not None:
            found["truth_error"] = batch.task.truth_error(prediction, batch.truth)
        before, after = (pictures.flatten(2).gather(2, places) for pictures in (batch.images, perturbed))  # (B, C, k)
        change = ((after - before) / batch.unit[..., 0]).abs()
        found["change"] = change.flatten(1).mean(1)
        found["unchanged"] = (change == 0).all(1).sum(1)
        return found, Seen(mask, perturbed, prediction) if keep else None

    return Job(lambda: perturb(mask), read)


def errors(measured: Measured, reference: Reference) -> tuple[Tensor, Tensor, Tensor]:
    """rel, irr, and whether the prediction moved at all, (B,) each; an error that is rounding counts as 0."""
    truth = reference == "ground_truth"
    if truth and "clean_error" not in measured:
        raise ValueError("reference='ground_truth' needs ground_truth=, or a data set that has it")
    changes = [measured["relevant_error"], measured["irrelevant_error"]]
    responsive = (changes[0] > measured["floor"]) | (changes[1] > measured["floor"])
    if truth:
        return measured["relevant_truth_error"], measured["irrelevant_truth_error"], responsive
    relevant, irrelevant = (e.where(e > measured["floor"], torch.zeros_like(e)) for e in changes)
    return relevant, irrelevant, responsive


def edge_overlap(relevant: Tensor, edges: Tensor) -> Tensor:
    """Share of the relevant pixels, at positions (B, k), that are among the k strongest edges (B, H, W); (B,).

    0 for a picture without edges.

    >>> edge_overlap(torch.tensor([[0, 1]]), torch.tensor([[[3.0, 0.0], [2.0, 1.0]]])).tolist()
    [0.5]
    """
    strongest = edges.flatten(1).topk(relevant.shape[1], dim=1)
    among = torch.zeros_like(edges.flatten(1)).scatter_(1, strongest.indices, (strongest.values > 0).to(edges))
    return among.gather(1, relevant).mean(1)


def sign_agreement(attribution: Tensor, step: Tensor) -> Tensor:
    """Share of the values where an attack's step has the sign of the attribution, (B,); 0.5 if none moves."""
    if attribution.ndim == 3:
        attribution = attribution[:, None].expand_as(step)
    both = ((attribution != 0) & (step != 0)).flatten(1)
    same = (attribution.sign() == step.sign()).flatten(1) & both
    count = both.sum(1)
    return torch.where(count > 0, same.sum(1) / count.clamp(min=1), 0.5)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FidelityScore(Score):
    """AF of every image, and what it was made of.

    `relevant_error`, `irrelevant_error` (n,) are the errors after R and I were perturbed, in `unit_of_error`, against
    `reference`. `responsive` (n,) is False where neither changed the prediction: AF is 0 there. Errors below `floor`
    count as 0 (where the clean prediction is 0 everywhere, only an error of 0 does).

    >>> from xai_assert.evaluation import Evaluation
    >>> ev = Evaluation(torch.nn.Conv2d(3, 1, 1), torch.rand(4, 3, 8, 8), task="depth")
    >>> ev.attribution_fidelity("edges").relevant_error.shape
    torch.Size([4])
    """

    relevant_error: Tensor
    irrelevant_error: Tensor
    clean_error: Tensor | None
    responsive: Tensor
    reference: Reference
    aggregate: Aggregate
    asr_rule: AsrRule
    unit_of_error: str | None
    circular: bool

    @classmethod
    def build(
        cls,
        measured: Measured,
        image_ids: tuple[Any, ...],
        *,
        reference: Reference,
        aggregate: Aggregate,
        asr: AsrRule,
        unit: str | None,
        circular: bool,
        provenance: dict[str, Any],
    ) -> FidelityScore:
        """From what `measure` returned for all images. See `xa.attribution_fidelity` for the arguments."""
        check_rules(reference, aggregate, asr)
        relevant, irrelevant, responsive = errors(measured, reference)
        return cls(
            torch.where(responsive, fidelity(relevant, irrelevant), 0.0),
            image_ids,
            metric="af",
            unit=None,
            higher_is_better=True,
            provenance=provenance,
            chance=0.0,
            range=(-1.0, 1.0),
            relevant_error=relevant,
            irrelevant_error=irrelevant,
            clean_error=measured.get("clean_error"),
            responsive=responsive,
            details=measured,
            reference=reference,
            aggregate=aggregate,
            asr_rule=asr,
            unit_of_error=unit,
            circular=circular,
        )

    @property
    def successes(self) -> Tensor:
        """1.0 where the attack on R succeeded: rel > irr, or with asr="degrades" rel > the clean error; (n,)."""
        if self.asr_rule == "degrades" and self.clean_error is not None:
            moved = self.details["relevant_error"] > self.details["floor"]  # else rounding decides
            return ((self.relevant_error > self.clean_error) & moved).double()
        return ((self.relevant_error > self.irrelevant_error) & self.responsive).double()

    @property
    def asr(self) -> float:
        """Attack success rate: the share of images where the attack on R succeeded."""
        return float(self.successes.mean())

    @functools.cached_property
    def paired_p(self) -> float:
        """One-sided p of rel - irr of each image under random signs: how often chance would make rel this much larger.

        Beside AF, because it weighs an image by the size of its errors, as AF does not.
        """
        return float(sign_flips((self.relevant_error - self.irrelevant_error).double().numpy()))

    @property
    def unresponsive(self) -> int:
        """Images whose prediction neither end changed."""
        return int((~self.responsive).sum())

    @property
    def sign_agreement(self) -> float | None:
        """Of an attack of one step with the attribution, mean over the images; None for other perturbations."""
        return self._mean("sign_agreement") if "sign_agreement" in self.details else None

    @property
    def change(self) -> tuple[float, float]:
        """Mean absolute change of the pixels of R and of I, in ImageNet standard deviations."""
        return self._mean("relevant_change"), self._mean("irrelevant_change")

    @property
    def unequal_change(self) -> bool:
        """One end was changed more than 1.5 times as much as the other."""
        low, high = sorted(self.change)
        return high > UNEQUAL_CHANGE * low

    @property
    def saturated(self) -> bool:
        """Both mean errors (against the prediction) exceed half the spread of the clean map."""
        return min(self._mean("relevant_error"), self._mean("irrelevant_error")) > SATURATED * self._mean("spread")

    @property
    def marks(self) -> list[str]:
        """What to know before believing the number."""
        marks = []
        if self.circular:
            marks.append(f"circular (signs agree {self.sign_agreement:.0%})")
        if self.saturated:
            marks.append("saturated")
        if self.unequal_change:
            marks.append("unequal change ({:.2f} / {:.2f})".format(*self.change))
        if self.unresponsive:
            marks.append(f"unresponsive {self.unresponsive}/{len(self)}")
        if self.provenance.get("served"):
            marks.append(f"from the store {self.provenance['served']}/{len(self)}")
        artefact = self.provenance.get("artefact")
        if artefact:
            apart = f", {artefact['difference']:.2g} of their spread apart" if "difference" in artefact else ""
            marks.append(f"predictions from the artefact {artefact['file']}, maps from the {artefact['maps']}{apart}")
        accelerated = self.provenance.get("acceleration")
        if accelerated:
            moved = f"predictions move by {accelerated['error']:.2g} of their maximum"
            marks.append(f"accelerated: {accelerated['what']} ({moved})")
        return marks

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {
            "reference": self.reference,
            "aggregate": self.aggregate,
            "unit_of_error": self.unit_of_error,
            "relevant_error": self.relevant_error.tolist(),
            "irrelevant_error": self.irrelevant_error.tolist(),
            "asr": self.asr,
            "paired_p": self.paired_p,
            "asr_rule": self.asr_rule,
            "unresponsive": self.unresponsive,
            "marks": self.marks,
        }

    def _mean(self, name: str) -> float:
        return float(self.details[name].double().mean())

    def _samples(self) -> tuple[np.ndarray, ...]:
        if self.aggregate == "image":
            return super()._samples()
        return (self.relevant_error.double().numpy(), self.irrelevant_error.double().numpy())

    @staticmethod
    def _statistic(*samples: np.ndarray, axis: int = -1) -> Any:
        if len(samples) == 1:
            return Score._statistic(*samples, axis=axis)
        relevant, irrelevant = (np.mean(s, axis=axis) for s in samples)
        total = relevant + irrelevant
        return np.where(total > 0, (relevant - irrelevant) / np.where(total > 0, total, 1.0), 0.0)


def check_rules(reference: Reference, aggregate: Aggregate, asr: AsrRule) -> None:
    """Refuse an unknown reference, aggregate or asr, and a pair that does not go together."""
    check_choice("reference", reference, ("prediction", "ground_truth"))
    check_choice("aggregate", aggregate, ("image", "set"))
    check_choice("asr", asr, ("relevant", "degrades"))
    if asr == "degrades" and reference != "ground_truth":
        raise ValueError("asr='degrades' compares with the clean error, so it needs reference='ground_truth'")


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is not one of those known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")
