"""What every public metric takes: a subject with images, or an Evaluation of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from xai_assert.batching import Samples
from xai_assert.errors import UnknownNameError
from xai_assert.evaluation import Evaluation, EvaluationOptions

Subjectlike = nn.Module | Evaluation


def as_evaluation(subject: Subjectlike, images: Tensor | Samples | None, options: Mapping[str, Any]) -> Evaluation:
    """The evaluation that was given, or a new one of (subject, images)."""
    for name in options:
        if name not in EvaluationOptions.__annotations__:
            raise TypeError(str(UnknownNameError("argument", name, EvaluationOptions.__annotations__)))
    if not isinstance(subject, Evaluation):
        return Evaluation(subject, images, **options)
    if images is not None or options:
        extra = ", ".join((["images"] if images is not None else []) + sorted(options))
        raise TypeError(f"{extra}: already fixed by the Evaluation; give it there")
    return subject
