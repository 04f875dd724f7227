"""Attribution methods. Importing this package registers our own; `attribute` and `heatmap` run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.artefacts import Artefact, check_twin
from xai_assert.attributions import (  # noqa: F401  (they register)
    cam,
    controls,
    gradient_rollout,
    gradients,
    integrated_gradients,
    rollout,
)
from xai_assert.attributions.base import Method, check_ranks, method, register_method
from xai_assert.batching import Batch, BatchSizer, ImageSource, Samples, run_batches, without_gradient
from xai_assert.preserve import undisturbed
from xai_assert.randomness import ImageId
from xai_assert.subject import Subject, as_subject
from xai_assert.tasks import Target, Task, infer_task

CHUNK = 4  # images at a time that an artefact and its twin are compared on

__all__ = ["Method", "attribute", "check_ranks", "choose_target", "heatmap", "method", "register_method", "task_of"]


def choose_target(subject: Subject, target: Target | None, clean: Tensor) -> Target:
    """The caller's target, or the task's default one for this output of the clean image."""
    if target is not None:
        return target
    task = task_of(subject, clean)
    return task.target(task.read(clean))


def task_of(subject: Subject, output: Tensor) -> Task:
    """The task of its card, or the one that an output like this must have.

    Raises:
        TypeError: the card does not say, and the output might mean anything.
    """
    task = subject.card.task or infer_task(output)
    if task is None:
        raise TypeError(
            f"{subject.name} does not say what its output {tuple(output.shape)} means, so nothing can be explained or "
            "compared; pass task='depth', or make a subject with xa.describe"
        )
    return task


def target_without_clean(task: Task | None) -> Target | None:
    """The task's default target where no clean prediction need be made for it: a forward pass saved."""
    if task is None or task.target_of_clean:
        return None
    chosen, read = task.target(torch.empty(0)), task.read

    def target(output: Tensor) -> Tensor:
        read(output)  # refuses what is no output of the task, as it would have the clean one
        return chosen(output)

    return target


def attribute(
    subject: nn.Module,
    images: Tensor | Samples,
    method: str | Method | Any,
    *,
    target: Target | None = None,
    image_ids: Sequence[ImageId] | None = None,
    seed: int = 0,
    batch_size: int | str = "auto",
    task: str | Task | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """The attribution as the method returns it: signed, (B, C, H, W), or (B, H, W) for maps without channels.

    Args:
        subject: a `Subject`, or a bare module (then say `task=`, and `mean=, std=` where a colour is needed).
        images: the network's input (B, C, H, W), or a data set.
        method: a name, an `xa.method(...)`, or a callable `(model, images, target) -> tensor`.
        target: output -> (B,), the scalar that is explained; the task's default otherwise.
        image_ids: keys of the random draws, for a tensor of images; its positions by default.
        seed: of what is drawn at random.
        batch_size: images at a time, or "auto".
        task, mean, std: for a bare module, see `xa.describe`.

    Raises:
        NotApplicableError: the method cannot explain this subject.
        ModelOutputError: the model fails, or its output does not depend on the images.

    Example:
        >>> attribute(nn.Conv2d(3, 1, 1), torch.rand(2, 3, 4, 4), "saliency", task="depth").shape
        torch.Size([2, 3, 4, 4])
    """
    subject = as_subject(subject, task=task, mean=mean, std=std)
    wanted = as_method(method)
    source = ImageSource(images, image_ids=image_ids, channels=subject.card.channels)
    if target is None and wanted.gradient:  # which reads the output itself; others would not see a model that fails
        target = target_without_clean(subject.card.task)
    needs_clean = target is None

    def work(batch: Batch) -> Tensor:
        inputs = batch.images.to(subject.device)
        clean = without_gradient(subject, inputs) if needs_clean else inputs
        chosen = choose_target(subject, target, clean)
        found = wanted.attribute(subject, inputs, chosen, image_ids=batch.ids, seed=seed)
        return found.to(batch.images.device)

    with undisturbed(subject):
        if isinstance(subject, Artefact):
            check_twin(subject, source, CHUNK)
        return torch.cat(list(run_batches(source, BatchSizer(batch_size, subject.device), work)))


def heatmap(subject: nn.Module, images: Tensor | Samples, method: str | Method | Any, **options: Any) -> Tensor:
    """The relevance of each pixel, (B, H, W) float32, not negative (but for a method with `signed="as_is"`).

    Takes the arguments of `xa.attribute` and raises what it raises.

    Example:
        >>> heatmap(nn.Conv2d(3, 1, 1), torch.rand(2, 3, 4, 4), "saliency", task="depth").shape
        torch.Size([2, 4, 4])
    """
    wanted = as_method(method)
    return wanted.heatmap(attribute(subject, images, wanted, **options))


def as_method(what: str | Method | Any) -> Method:
    """A method by name, as it is, or from a callable."""
    return what if isinstance(what, Method) else method(what)
