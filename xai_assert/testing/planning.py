"""`--xai-plan`: the passes and minutes of a run, from the speed of each model, without running it."""

from __future__ import annotations

import pytest

from xai_assert.attributions import choose_target
from xai_assert.batching import ImageSource, without_gradient
from xai_assert.cost import Speed, measure_speed, passes_an_image, predict_cost
from xai_assert.preserve import undisturbed
from xai_assert.subject import Subject
from xai_assert.testing import session_of
from xai_assert.testing.session import Images

LOOKED_AT = 4  # images at a time, as the first batch of a run on a CPU has


def plan(session: pytest.Session) -> tuple[list[str], int]:
    """A line for each method of each model, and the sum; and how many models cannot be planned."""
    run = session_of(session.config)
    lines: list[str] = []
    total, failed = 0.0, 0
    for name, cells_of in run.work().items():
        try:
            subject, images = run.subject_of(name)
            speed = _speed(subject, images)
        except Exception as error:  # of the user's model or data: the others can still be planned
            lines.append(f"{name} cannot be planned: {type(error).__name__}: {error}".splitlines()[0])
            failed += 1
            continue
        for method, cells in cells_of:
            passes, seconds = predict_cost([(method, cells)], len(images), speed)
            total += seconds
            unknown = "" if passes_an_image(method, cells) else "  (and its own passes, which it does not declare)"
            count = f"{passes.forward} forward and {passes.gradient} gradient passes"
            lines.append(f"{name} {method}: {count}, about {seconds / 60:.1f} min{unknown}")
    if not lines:
        return ["no cells are planned: nothing would be judged"], failed
    return [
        *lines,
        f"in all about {total / 60:.1f} min in one process, beside loading; nothing was run (--xai-plan)",
    ], failed


def _speed(subject: Subject, images: Images) -> Speed:
    source = ImageSource(images, channels=subject.card.channels)
    chunk = source.batch(0, min(LOOKED_AT, len(source))).images.to(subject.device)
    with undisturbed(subject):
        return measure_speed(subject, chunk, choose_target(subject, None, without_gradient(subject, chunk)))
