"""Perturbations. Importing this package registers our own."""

from xai_assert.perturbations import (  # noqa: F401  (they register)
    adversarial,
    blur,
    colour,
    fillers,
    imputation,
    noise,
    patches,
)
from xai_assert.perturbations.base import Perturbation, Perturbed, perturbation, register_perturbation
from xai_assert.perturbations.selection import Ranking, decided_by_lot, pixel_count, rank, warn_of_ties

__all__ = [
    "Perturbation",
    "Perturbed",
    "Ranking",
    "decided_by_lot",
    "perturbation",
    "pixel_count",
    "rank",
    "register_perturbation",
    "warn_of_ties",
]
