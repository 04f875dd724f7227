"""The errors that users meet by name, and the sentence for a name that does not exist."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

MANY = 100  # names: of more, an error lists the nearest alone


class UnknownNameError(ValueError):
    """A method, perturbation, metric or model that nobody registered; the text names the nearest known one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = f"known: {', '.join(known) or 'none'}"
        if len(known) > MANY:
            listed = f"the nearest of {len(known):,}: {', '.join(near) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {hint}{listed}")


class DegenerateHeatmapError(ValueError):
    """A heatmap that ranks nothing: constant, or not finite."""


class NotApplicableError(ValueError):
    """A method that cannot explain this subject (no attention, no spatial layer); the text says what would help."""


class ModelOutputError(ValueError):
    """The model under test failed, or its output cannot be judged: NaN, a tuple, another batch size."""


class CheckpointError(ValueError):
    """A weights file that is missing, truncated, or of another network."""


class DataError(ValueError):
    """A picture, depth map, HDF5 or results file that cannot be read as what it should be."""


class GatesError(ValueError):
    """A gates file with an unknown key, an impossible bound, or a gate that matches nothing."""


class TiedHeatmapWarning(UserWarning):
    """Most of the pixels called relevant (or irrelevant) were chosen among equals, by lot."""


class NearBaselineWarning(UserWarning):
    """An image is nearly the baseline of its map, such as a dark one against black: the map is 0 there anyway."""


class NotConvergedWarning(UserWarning):
    """An iterative method stopped at its limit before it reached the tolerance that was asked for."""


@dataclass(frozen=True)
class Failure:
    """An exception that ended a cell, and the lines it came from without the tensors that were alive there."""

    error: Exception
    trace: TracebackType | None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        return cls(error, error.__traceback__)
