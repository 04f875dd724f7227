"""AF at several fractions, from one attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from xai_assert.batching import Samples
from xai_assert.evaluation import Evaluation, EvaluationOptions
from xai_assert.metrics import FidelityCell, FidelityScore
from xai_assert.metrics.road import as_fractions
from xai_assert.metrics.score import FEWEST
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.scores.base import Subjectlike, as_evaluation

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, eq=False, repr=False)
class FidelityCurve:
    """AF at each of `fractions`: `scores` of the method, `control` of a random map on the same images.

    >>> import torch
    >>> from torch import nn
    >>> curve = fidelity_curve(nn.Conv2d(3, 1, 1), "edges", torch.rand(12, 3, 8, 8), fractions=(0.1, 0.3), task="depth")
    >>> len(curve.scores), curve.fractions
    (2, (0.1, 0.3))
    """

    fractions: tuple[float, ...]
    scores: tuple[FidelityScore, ...]
    control: tuple[FidelityScore, ...]

    def __repr__(self) -> str:
        about = self.scores[0].provenance
        return f"<FidelityCurve of {about['model']} / {about['method']}\n{self}>"

    def __str__(self) -> str:
        lines = ["fraction      AF    95% interval  random"]
        for fraction, score, control in zip(self.fractions, self.scores, self.control, strict=True):
            low, high = score.interval() if len(score) >= FEWEST else (float("nan"), float("nan"))
            lines.append(f"{fraction:8.1%}  {score.value:+.3f}  [{low:+.2f}, {high:+.2f}]  {control.value:+.3f}")
        return "\n".join(lines)

    def save_picture(self, path: str | Path) -> Path:
        """Draw AF over the fraction, with its 95 % interval (of at least 10 images) and the control, as a PNG."""
        from xai_assert.reporting.curve_picture import draw  # matplotlib, which nothing else here needs

        return draw(self.fractions, self.scores, self.control, Path(path))


def fidelity_curve(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    perturbation: str | Perturbation = "gaussian_noise",
    **options: Unpack[EvaluationOptions],
) -> FidelityCurve:
    """Attribution fidelity at several fractions, and that of a random map beside it.

    Args:
        subject, method, images, perturbation, **options: as for `attribution_fidelity`.
        fractions: of the pixels, above 0 and at most 0.5 each; two forward passes an image for each, and one
            attribution for all.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> curve = fidelity_curve(nn.Conv2d(3, 1, 1), "edges", torch.rand(12, 3, 8, 8), task="depth")
        >>> print(curve)  # doctest: +ELLIPSIS
        fraction      AF    95% interval  random
            1.0%  ...
    """
    evaluation = as_evaluation(subject, images, options)
    ordered = as_fractions(fractions)
    measured = (_measure(evaluation, what, ordered, as_perturbation(perturbation)) for what in (method, "random"))
    return FidelityCurve(ordered, *measured)


def _measure(
    evaluation: Evaluation, method: Any, fractions: Sequence[float], perturbation: Perturbation
) -> tuple[FidelityScore, ...]:
    evaluation.plan(method, [FidelityCell(perturbation, fraction) for fraction in fractions])
    return tuple(
        evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction) for fraction in fractions
    )
