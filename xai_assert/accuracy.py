"""`depth_metrics`: the errors of a depth network, as its authors count them. Is it the model you think it is?"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.batching import ImageSource, Samples, without_gradient
from xai_assert.datasets.images import ImageSet
from xai_assert.errors import ModelOutputError
from xai_assert.metrics.depth import (
    HIGHER_IS_BETTER,
    DepthProtocol,
    DepthScore,
    DepthScores,
    as_protocol,
    depth_errors,
    valid_pixels,
)
from xai_assert.preserve import undisturbed
from xai_assert.randomness import ImageId
from xai_assert.subject import UNITS_PER_METRE, Subject, as_subject
from xai_assert.tasks import Depth, Task


def depth_metrics(
    subject: nn.Module,
    images: Tensor | Samples,
    *,
    protocol: str | DepthProtocol = "output",
    ground_truth: Tensor | None = None,
    task: str | Task | None = None,
    unit: str | None = None,
) -> DepthScores:
    """RMSE, AbsRel, log10, d1, d2, d3 of a depth network: check that it is the model you think it is.

    An explanation of a network that was loaded or fed wrongly explains nothing. So compare these numbers with the
    published ones first, under the protocol that they were published with:

    - "output" (METER): at the output's size, every known pixel, in the card's unit;
    - "full": at the picture's size, every known pixel, the output brought to that size;
    - "eigen" (PixelFormer, BTS on NYU): at 480x640, Eigen's crop, between 1 mm and 10 m, prediction clamped;
    - "garg" (PixelFormer, BTS on KITTI): at the picture's size, Garg's crop, between 1 mm and 80 m, prediction clamped;
      with `kitti(..., crop=True)` the picture is KITTI's benchmark crop;
    - a `DepthProtocol(...)` of your own.

    Every image counts the same (`.value`), as in the literature; `.pooled` takes all pixels together.

    Args:
        subject: a `Subject`, or a bare module.
        images: a data set with ground truth, read one image at a time; or the network's input (B, C, H, W).
        protocol: a name from above or a `DepthProtocol`.
        ground_truth: (B, H, W) in the card's unit, for a tensor of images; 0 or not finite where unknown.
        task, unit: for a bare module, see `xa.describe`.

    Raises:
        ValueError: no ground truth, of another size than the prediction, or without a pixel that counts.
        TypeError: the subject is no depth network, or a protocol in metres meets a card without unit.
        ModelOutputError: the model fails, or returns NaN.

    Example:
        >>> network = nn.Conv2d(3, 1, 1)
        >>> images, depth = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) + 1
        >>> scores = depth_metrics(network, images, ground_truth=depth, task="depth", unit="m")
        >>> len(scores.abs_rel), scores.rmse.unit, scores.d1.higher_is_better
        (2, 'm', True)
    """
    subject = as_subject(subject, task=task, unit=unit)
    rule = as_protocol(protocol)
    if not isinstance(subject.card.task, Depth):
        raise TypeError(f"{subject.name} is no depth network; pass task='depth', or make a subject with xa.describe")
    per_metre = metres(rule, subject)
    if rule.full_size and isinstance(images, ImageSet):
        images = images.full_size()
    source = ImageSource(images, ground_truth=ground_truth, channels=subject.card.channels)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    ids: list[ImageId] = []
    with undisturbed(subject):
        for index in range(len(source)):  # one at a time: full-size ground truths may differ in size
            batch = source.batch(index, index + 1)
            if batch.ground_truth is None:
                raise ValueError("depth metrics need ground truth; the images have none")
            prediction = predict(subject, batch.images.to(subject.device), rule)
            try:
                found = compare(prediction, batch.ground_truth.to(prediction), rule, per_metre)
            except ValueError as error:
                raise type(error)(f"{subject.name}, image {batch.ids[0]}: {error}") from None
            for name, value in found.items():
                parts[name].append(value.cpu())
            ids += batch.ids
    columns = {name: torch.cat(values) for name, values in parts.items()}
    provenance = {"model": subject.name, "weights": subject.card.weights, "protocol": repr(rule)}
    scores = {
        name: DepthScore(
            columns[name],
            tuple(ids),
            name,
            subject.card.unit if name == "rmse" else None,
            higher,
            provenance,
            pixels=columns["pixels"],
        )
        for name, higher in HIGHER_IS_BETTER.items()
    }
    return DepthScores(**scores)


def metres(rule: DepthProtocol, subject: Subject) -> float:
    """The card's units per metre; 1 where nobody needs to know."""
    if rule.min_depth is None and rule.max_depth is None:
        return 1.0
    if subject.card.unit not in UNITS_PER_METRE:
        raise TypeError(
            f"the protocol's bounds are in metres, and the card of {subject.name} has unit {subject.card.unit!r}; give "
            f"it one of {', '.join(UNITS_PER_METRE)} (unit=...)"
        )
    return UNITS_PER_METRE[str(subject.card.unit)]


def predict(subject: Subject, images: Tensor, rule: DepthProtocol) -> Tensor:
    """(B, H', W'), as the task reads it."""
    task: Any = subject.card.task
    prediction: Tensor = task.read(without_gradient(subject, images))
    if rule.flip:
        prediction = (prediction + task.read(without_gradient(subject, images.flip(-1))).flip(-1)) / 2
    if not bool(prediction.isfinite().all()):
        raise ModelOutputError(f"{subject.name} returned NaN or infinity")
    return prediction


def compare(prediction: Tensor, truth: Tensor, rule: DepthProtocol, per_metre: float) -> dict[str, Tensor]:
    """The errors of (B, H', W') under the protocol, and the count of pixels that they are taken over."""
    if prediction.shape != truth.shape:
        if not rule.full_size:
            raise ValueError(
                f"ground_truth is {tuple(truth.shape[1:])}, the output {tuple(prediction.shape[1:])}; resize the depth "
                "in the data set (the card's output_size), or compare at full size"
            )
        prediction = F.interpolate(prediction[:, None], truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    low, high = (None if bound is None else bound * per_metre for bound in (rule.min_depth, rule.max_depth))
    if low is not None or high is not None:
        prediction = prediction.clamp(low, high)
    valid = valid_pixels(truth, crop=rule.crop, min_depth=low, max_depth=high)
    return depth_errors(prediction, truth, valid) | {"pixels": valid.flatten(1).sum(1)}
