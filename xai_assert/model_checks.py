"""Checks of a model and of the images it is shown: each says an outcome, and words with the figure and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xai_assert.attributions import choose_target, task_of
from xai_assert.attributions.gradients import input_gradient
from xai_assert.batching import without_gradient
from xai_assert.metrics.prepared import check_finite, floor_of
from xai_assert.randomness import ImageId
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Subject
from xai_assert.tasks import Target, Task

Outcome = Literal["ok", "warn", "fail", "skip"]
Said = tuple[Outcome, str]
NEIGHBOUR = 1e-3  # of the largest output: what another convolution algorithm for another batch size may move
OVERSHOOT = 0.05  # of black..white: what resampling may add
CONTRAST = 0.1  # standard deviation over the pixels of a picture in 0..1; photographs have 0.15 to 0.3


@dataclass(frozen=True)
class Looked:
    """What the checks look at: a few images on the subject's device, and what the model makes of them."""

    subject: Subject
    images: Tensor
    ids: tuple[ImageId, ...]
    task: Task
    output: Tensor
    seed: int

    @classmethod
    def at(cls, subject: Subject, images: Tensor, ids: tuple[ImageId, ...], seed: int) -> Looked:
        output = without_gradient(subject, images)
        found = cls(subject, images, ids, task_of(subject, output), output, seed)
        check_finite(found.prediction.reshape(len(images), -1), ids, subject)
        return found

    @property
    def prediction(self) -> Tensor:
        return self.task.read(self.output)

    @property
    def largest(self) -> float:
        """Magnitude of the output, with which differences are compared."""
        return float(self.task.magnitude(self.prediction).max()) or 1.0

    @property
    def floor(self) -> float:
        """The difference below which everything is rounding."""
        return max(floor_of(self.images.dtype), floor_of(self.output.dtype)) * self.largest

    def predict(self, images: Tensor) -> Tensor:
        return self.task.read(without_gradient(self.subject, images))

    def target(self, count: int) -> Target:
        """The default target of the first `count` images."""
        return choose_target(self.subject, None, self.output[:count])


def training_mode(subject: Subject) -> Said:
    count = sum(m.training for m in subject.module.modules())
    if not count:
        return "ok", "evaluation mode"
    return "warn", f"training mode ({count} modules); gates measure in evaluation mode: call .eval() on the model"


def input_size(subject: Subject, images: Tensor) -> Said:
    height, width = images.shape[-2:]
    words, expected = f"images {height}x{width}", subject.card.input_size
    if expected and tuple(expected) != (height, width):
        return "warn", f"{words}, where the card says {expected[0]}x{expected[1]}: resize them, or correct the card"
    return "ok", words if expected else f"{words}; the card names none"


def input_scale(subject: Subject, images: Tensor) -> Said:
    """Whether the images can be pictures between black and white of the card, and if not, what else they may be."""
    card, span = subject.card, f"images from {float(images.min()):.3g} to {float(images.max()):.3g}"
    if card.mean is None or card.std is None:
        return "skip", f"{span}; the card has no mean and std, so nobody knows black and white: give mean= and std="
    mean, std = (torch.tensor(v).to(images).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
    picture = images * std + mean
    share, contrast = outside(picture), float(picture.std())
    words = f"{span}: {100 * share:.1f}% outside black..white of the card, contrast {contrast:.2f}"
    if share <= 0.01 and contrast >= CONTRAST:
        return "ok", words
    others = {
        "are RGB in 0..1: subtract the card's mean and divide by its std": images,
        "are RGB in 0..255: divide by 255, then normalise": images / 255,
        "were normalised without dividing by 255 first": picture / 255,
        "were normalised twice with the card's mean and std": picture * std + mean,
    }
    if len(card.mean) == 3:
        imagenet = (torch.tensor(v).to(images).reshape(1, 3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN))
        others["were normalised with ImageNet's mean and std, which are not the card's"] = images * next(
            imagenet
        ) + next(imagenet)
    for guess, other in others.items():
        if outside(other) <= 0.01 and float(other.std()) >= CONTRAST:
            return "fail", f"{words}; it looks as if they {guess}"
    return ("fail" if share > 0.25 else "warn"), f"{words}; check the preprocessing against the card's mean and std"


def outside(picture: Tensor) -> float:
    """The share of values outside 0..1."""
    return float(((picture < -OVERSHOOT) | (picture > 1 + OVERSHOOT)).double().mean())


def output(looked: Looked) -> Said:
    low, high = float(looked.prediction.min()), float(looked.prediction.max())
    unit = f" {looked.subject.card.unit}" if looked.subject.card.unit else ""
    return "ok", f"{tuple(looked.output.shape)} {looked.output.dtype}, finite, from {low:.3g} to {high:.3g}{unit}"


def deterministic(looked: Looked) -> Said:
    apart = float((looked.predict(looked.images) - looked.prediction).abs().max())
    if not apart:
        return "ok", "the same images twice give the same bits"
    words = f"the same images twice differ by {apart / looked.largest:.2g} of the largest output"
    if apart <= looked.floor:
        return "warn", f"{words}: rounding"
    return "fail", f"{words}: dropout or noise that evaluation mode does not switch off?"


def independent(looked: Looked) -> Said:
    count = len(looked.images)
    if count == 1:
        return "skip", "needs 2 images"
    alone = torch.cat([looked.predict(image[None]) for image in looked.images])
    apart = float((alone - looked.prediction).abs().max())
    words = f"an image alone and among {count - 1} others: {apart / looked.largest:.2g} of the largest output apart"
    if apart <= max(NEIGHBOUR * looked.largest, looked.floor):
        return "ok", words
    cause = "BatchNorm in training mode or without running statistics, or the model is not deterministic"
    return "fail", f"{words} (rounding is below {NEIGHBOUR:g}): {cause}?"


def varied(looked: Looked) -> Said:
    spread = looked.task.spread(looked.prediction)
    flat = int((spread <= looked.floor).sum())
    if flat:
        return "fail", f"the prediction is constant over the pixels of {flat} of {len(spread)} images"
    words = f"spread over pixels {float(spread.mean()):.3g}"
    if len(spread) == 1:
        return "ok", words
    first = looked.prediction[:1].expand_as(looked.prediction[1:])
    apart = float(looked.task.error(looked.prediction[1:], first).max())
    if apart <= looked.floor:
        return "fail", f"all {len(spread)} images get the same prediction: does the model look at them?"
    return "ok", f"{words}, images up to {apart:.3g} apart"


def differentiable(looked: Looked) -> Said:
    gradient = input_gradient(looked.subject.explained, looked.images, looked.target(len(looked.images)))
    if not bool(gradient.isfinite().all()):
        bad = 1 - float(gradient.isfinite().double().mean())
        return "fail", f"{100 * bad:.3g}% of the gradient is NaN or infinite: a square root or logarithm at 0?"
    zero = float((gradient == 0).all(1).double().mean())
    words = f"gradient finite, exactly 0 at {100 * zero:.1f}% of the pixels"
    if zero == 1:
        return "fail", f"{words}: a rounded or clamped output, or dead units?"
    return ("warn", f"{words}: the model never sees them") if zero > 0.5 else ("ok", words)


CHECKS: dict[str, Callable[[Looked], Said]] = {
    "deterministic": deterministic,
    "independent of batch": independent,
    "prediction varies": varied,
    "differentiable": differentiable,  # the last one: methods stand on it
}
