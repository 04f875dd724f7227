"""Hypothesis strategies: edge cases that are generated rather than remembered.

What they draw is small (a name, whole numbers, a seed) and makes its tensors on demand, so that a failure prints one
line for each argument and shrinks to the simplest case. `profile` is a ready `hypothesis.settings`, usable as a
decorator:

    @xa.strategies.profile
    @given(perturbation=xa.strategies.perturbations(max_strength=0.5), seed=xa.strategies.seeds())
    def test_release(perturbation, seed): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import hypothesis
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from xai_assert import _register_hypothesis_profile, registry
from xai_assert import known_models as known
from xai_assert.recipes import DEGENERATE, IMAGES, LAYOUTS, RANKABLE, Heatmap, Images, Mask, Size

T = TypeVar("T")

_register_hypothesis_profile()  # again: this may be a checkout that is not installed
profile = hypothesis.settings.get_profile("xai")

STEPS = 100
# The parameter that is a perturbation's strength, in ImageNet standard deviations, and the largest one drawn: well
# beyond the default (.8, 1 and 3), and beyond the 2 to 2.6 between a picture's mean colour and black or white.
STRENGTHS = {
    "gaussian_noise": ("sigma", 4.0),
    "fgsm": ("epsilon", 5.0),
    "patch_noise": ("sigma", 4.0),
    "brightness": ("delta", 4.0),
    "pgd": ("epsilon", 5.0),
}


def sizes(*, side: int = 9) -> SearchStrategy[Size]:
    """(height, width) of at least two pixels: odd, tiny, and single rows and columns; no side is longer than `side`."""
    sides = st.integers(1, side)
    return st.tuples(sides, sides).filter(lambda size: size != (1, 1))


def seeds() -> SearchStrategy[int]:
    """Seeds for everything that is drawn at random."""
    return st.integers(0, 2**16 - 1)


def fractions(size: Size) -> SearchStrategy[float]:
    """Every usable fraction of `size` (height, width): from one pixel to half of them.

    Raises:
        ValueError: an image of one pixel has no relevant half.
    """
    pixels = size[0] * size[1]
    if pixels < 2:
        raise ValueError(f"size {size[0]}x{size[1]}: R and I need a pixel each")
    return _shares(pixels)


@st.composite
def _shares(draw: st.DrawFn, pixels: int) -> float:
    return draw(st.integers(1, pixels // 2)) / pixels  # a lambda in `map` would be printed in place of the number


def images(
    size: Size | SearchStrategy[Size] | None = None,
    *,
    max_count: int = 3,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64, torch.bfloat16),
) -> SearchStrategy[Images]:
    """Batches of images: contents, memory layouts, types and, unless `size` is given, sizes vary."""
    return st.builds(
        Images,
        st.sampled_from(list(IMAGES)),
        size if isinstance(size, SearchStrategy) else st.just(size) if size else sizes(),
        st.integers(1, max_count),
        st.sampled_from(LAYOUTS),
        st.sampled_from(dtypes),
        seeds(),
    )


def heatmaps(*, degenerate: bool = False) -> SearchStrategy[Heatmap]:
    """Heatmaps that rank pixels however they may (ties, one hot pixel, denormals, negative and huge values).

    Args:
        degenerate: only those that rank none (constant, NaN, infinite), which must raise `DegenerateHeatmapError`.
    """
    return st.builds(Heatmap, st.sampled_from(list(DEGENERATE if degenerate else RANKABLE)), seeds())


def masks() -> SearchStrategy[Mask]:
    """Masks that select at least one pixel, such as `xa.tasks.depth_in_mask` takes."""
    return st.builds(Mask, st.sampled_from(("pixel", "box", "scattered")), seeds())


def known_models() -> SearchStrategy[known.KnownModel]:
    """Small models with their true relevance."""
    return st.builds(known.KnownModel, st.sampled_from(known.KINDS), seeds())


def perturbations(names: Sequence[str] | None = None, *, max_strength: float | None = None) -> SearchStrategy[str]:
    """Perturbations as everything of ours takes them, such as "gaussian_noise(sigma=0.24)".

    Strengths are whole hundredths of the largest one, so that a failure shrinks to the smallest strength that breaks
    the property, and says so. Those without a strength come last: a failure shrinks to one with a strength if it can.

    Args:
        names: of registered perturbations; all of them by default.
        max_strength: the largest strength, in ImageNet standard deviations; perturbations that have none are left out
            then. By default noise goes to sigma=4, brightness to delta=4 and attacks to epsilon=5.

    Raises:
        UnknownNameError: nobody registered such a perturbation.
        ValueError: no perturbation is left, or max_strength is not positive.

    Example:
        >>> strategy = perturbations(["gaussian_noise"], max_strength=1.0)
        >>> afresh = hypothesis.settings(profile, database=None)
        >>> hypothesis.find(strategy, lambda spec: float(spec[21:-1]) > 0.237, settings=afresh)
        'gaussian_noise(sigma=0.24)'
    """
    return _specs(names, max_strength).map(lambda spec: _told(spec, spec, max_strength))


@dataclass(frozen=True)
class Case:
    """One way to measure fidelity: what is done to the images, to how many pixels of which heatmap, with which seed."""

    perturbation: str
    fraction: float
    heatmap: Heatmap
    seed: int

    def __str__(self) -> str:
        fraction = f"{100 * self.fraction:.3g}% of the pixels"
        return f"{self.perturbation}, seed {self.seed}, {fraction}, heatmap of {self.heatmap.kind}"


def cases(size: Size, names: Sequence[str] | None = None, *, max_strength: float | None = None) -> SearchStrategy[Case]:
    """A perturbation (see `perturbations`), fraction, heatmap and seed for images of `size` (height, width)."""
    drawn = st.builds(Case, _specs(names, max_strength), fractions(size), heatmaps(), seeds())
    return drawn.map(lambda case: _told(case, case.perturbation, max_strength))


def _specs(names: Sequence[str] | None, max_strength: float | None) -> SearchStrategy[str]:
    if max_strength is not None and not 0 < max_strength < float("inf"):
        raise ValueError(f"max_strength must be a positive number, not {max_strength!r}")
    names = registry.perturbations.names() if names is None else names
    for name in names:
        registry.perturbations.get(name)
    wanted = [name for name in STRENGTHS if name in names]
    if max_strength is None:
        wanted += [name for name in names if name not in STRENGTHS]
    if not wanted:
        raise ValueError(f"names: {list(names)} leaves no perturbation; those with a strength: {', '.join(STRENGTHS)}")
    # One number says both: below the weakest of one perturbation lies the strongest of the next, so that shrinking it
    # passes from each to the next simpler one, whose strength then shrinks.
    return st.integers(0, len(wanted) * STEPS - 1).map(lambda n: _spec(wanted[n // STEPS], n % STEPS + 1, max_strength))


def _spec(name: str, step: int, max_strength: float | None) -> str:
    if name not in STRENGTHS:
        return name
    strength = float(f"{step * _step(name, max_strength):.6g}")
    return registry.format_spec(name, {STRENGTHS[name][0]: strength})


def _step(name: str, max_strength: float | None) -> float:
    return (max_strength or STRENGTHS[name][1]) / STEPS


def _told(drawn: T, spec: str, max_strength: float | None) -> T:
    """`drawn`, and a sentence on it, which Hypothesis shows if it is what a failure was shrunk to."""
    name, chosen = spec.partition("(")[0], hypothesis.settings()
    if name not in STRENGTHS:
        hypothesis.note(f"what breaks it: {drawn}")
    elif hypothesis.Phase.shrink in chosen.phases:
        # what Hypothesis replays from its database it does not shrink again
        replays = hypothesis.Phase.reuse in chosen.phases and chosen.database is not None
        how = f"in steps of {_step(name, max_strength):.6g}{', when it first failed' if replays else ''}"
        hypothesis.note(f"smallest strength that breaks it: {drawn} (Hypothesis shrank it {how})")
    return drawn
