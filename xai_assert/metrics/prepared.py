"""One batch, explained and ranked: what every metric starts from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_assert.attributions import Method, check_ranks, choose_target, task_of
from xai_assert.attributions.controls import edges
from xai_assert.batching import Batch, finite_rows, without_gradient
from xai_assert.errors import DegenerateHeatmapError, ModelOutputError
from xai_assert.packing import Job
from xai_assert.perturbations import Perturbed, Ranking, rank
from xai_assert.randomness import ImageId
from xai_assert.store import Shelf
from xai_assert.subject import Subject
from xai_assert.tasks import Target, Task

Measured = dict[str, Tensor]  # per-image scalars, (B,)

FLOOR = {torch.float16: 1e-2, torch.bfloat16: 1e-2}  # of max |f(x)|; below it an error is rounding
FLOOR_FLOAT = 1e-5


@dataclass(frozen=True)
class Prepared:
    """Everything that is known of a batch before it is perturbed.

    `images` (B, C, H, W) on the subject's device; `predict` one forward pass, read by the task, without gradient;
    `clean` = predict(images); `truth` (B, H', W') or None; `floor` (B,) the error below which a change is rounding;
    `unit` (1, C, 1, 1) one ImageNet standard deviation in the input; `target` the scalar that is explained, and
    `clean_target` (B,) its value on the images; `details` (B,) each, what the method says of its attribution;
    `positions` those of the images in the whole set.
    """

    subject: Subject
    method: Method
    seed: int
    positions: tuple[int, ...]

    images: Tensor
    image_ids: tuple[ImageId, ...]
    predict: Callable[[Tensor], Tensor]
    task: Task
    target: Target
    clean_target: Tensor
    clean: Tensor
    truth: Tensor | None
    floor: Tensor
    unit: Tensor
    attribution: Tensor
    details: Mapping[str, Tensor]
    heatmap: Tensor
    ranking: Ranking

    def explain(
        self, images: Tensor | None = None, *, subject: Subject | None = None, method: Method | None = None
    ) -> Tensor:
        """One more attribution: of other images, another subject or by another method; all else is as it was.

        Raises:
            DegenerateHeatmapError: it is not finite.
        """
        method = method or self.method
        found = method.attribute(
            subject or self.subject,
            self.images if images is None else images,
            self.target,
            image_ids=self.image_ids,
            seed=self.seed,
        )
        if not torch.isfinite(found).all():
            where = " of a changed copy of the model" if subject else " on changed images" if images is not None else ""
            raise DegenerateHeatmapError(f"the attribution of {method} is NaN or infinite{where}")
        return found

    def error_job(self, perturb: Perturbed, positions: Tensor) -> Job:
        """The error (B,) after the pixels at these positions (B, k) were perturbed; what is rounding counts as 0."""

        def read(images: Tensor, output: Tensor) -> Tensor:
            error = self.task.error(self.task.read(output), self.clean)
            return error.where((error > self.floor) | ~torch.isfinite(error), torch.zeros_like(error))

        return Job(lambda: perturb(self.ranking.mask(positions)), read)

    @functools.cached_property
    def edges(self) -> Tensor:
        """The edges of the images, (B, H, W)."""
        return edges(self.subject, self.images, self.target)


def prepare(
    subject: Subject, method: Method, batch: Batch, *, target: Target | None, seed: int, shelf: Shelf | None = None
) -> Prepared:
    """One clean forward and one attribution of a batch; of the attribution only what is not on the shelf.

    Raises:
        TypeError: the subject has no task.
        ModelOutputError: the model fails, or returns NaN.
        DegenerateHeatmapError: a heatmap is constant or not finite.
    """
    images = batch.images.to(subject.device)
    explained = None
    # the shelf looks its maps up by the clean prediction, and of an artefact the twin's prediction is not the clean one
    if method.predicts and shelf is None and subject.explained is subject:
        own = functools.partial(_target_of_itself, subject, target)
        explained = method.explain(subject, images, own, image_ids=batch.ids, seed=seed)
    seen = explained and explained.output
    output = without_gradient(subject, images) if seen is None else seen
    task = task_of(subject, output)
    clean = task.read(output)
    check_finite(clean.reshape(len(clean), -1), batch.ids, subject)
    target = choose_target(subject, target, output)
    if shelf is not None:
        same = subject.explained is subject  # else the twin's prediction shows whether the map is still the same
        seen_by_map = clean if same else task.read(without_gradient(subject.explained, images))
        explained = shelf.attributed(images, seen_by_map, target, image_ids=batch.ids)
    elif explained is None:
        explained = method.explain(subject, images, target, image_ids=batch.ids, seed=seed)
    attribution = explained.attribution
    heatmap = method.heatmap(attribution)
    check_ranks(heatmap, batch.ids, method)
    return Prepared(
        subject,
        method,
        seed,
        batch.positions,
        images,
        batch.ids,
        functools.partial(predicted, subject, task.read),
        task,
        target,
        target(output).detach(),
        clean,
        truth=None if batch.ground_truth is None else batch.ground_truth.to(clean),
        floor=max(map(floor_of, (images.dtype, output.dtype, subject.precision))) * task.magnitude(clean),
        unit=subject.card.strength(images.shape[1]).to(images),
        attribution=attribution,
        details=explained.details,
        heatmap=heatmap,
        ranking=rank(heatmap, seed=seed, image_ids=batch.ids),
    )


def _target_of_itself(subject: Subject, target: Target | None, output: Tensor) -> Tensor:
    """The target of an output of clean images, which is also what it is chosen by."""
    return choose_target(subject, target, output.detach())(output)


def floor_of(dtype: torch.dtype | None) -> float:
    """The share of max |f(x)| below which an error counts as 0: 1e-5, in half precision 1e-2."""
    return FLOOR_FLOAT if dtype is None else FLOOR.get(dtype, FLOOR_FLOAT)


def predicted(subject: Subject, read: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """One forward pass without gradient, read by the task."""
    return read(without_gradient(subject, images))


def check_finite(values: Tensor, image_ids: Sequence[ImageId], subject: Subject, where: str = "") -> None:
    """Refuse a model whose output made a row of `values` (B, n) NaN or infinite."""
    finite = finite_rows(values).tolist()
    if not all(finite):
        bad = [str(i) for i, ok in zip(image_ids, finite, strict=True) if not ok]
        raise ModelOutputError(f"{subject.name} returned NaN or infinity for images {', '.join(bad[:5])}{where}")
