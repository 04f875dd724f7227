"""Classes, of an image or of every pixel: what is compared are the probabilities after softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_assert.errors import ModelOutputError
from xai_assert.tasks.base import Target, Task, at_least_float32

IGNORED = 255  # the label of pixels that nobody knows; so is any below 0


class Classification(Task):
    """One class an image: output (B, K) of logits, K at least 2; labels (B,).

    Target: the logit of the class that is predicted on the clean image, frozen there. Error: the total variation
    distance between the two distributions (half the sum of |p - q|), in [0, 1]; against labels 1 - p(label). (A drop of
    the probability, clipped at 0, would make |AF| = 1 or AF = 0 on half of the images.) An attack lowers the target;
    with labels it raises the cross-entropy.

    >>> Classification().error(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])).tolist()
    [0.5]
    """

    name = "classification"
    attack_lowers_target = True  # a higher logit would make the network surer, and move a sure one by nothing

    def read(self, output: Tensor) -> Tensor:
        if output.ndim != 2 or output.shape[1] < 2:
            raise ModelOutputError(
                f"a classifier must return logits (B, K) of at least two classes, not {tuple(output.shape)}; "
                "give xa.describe an output= that picks the logits, or of one logit z the two (0, z)"
            )
        return at_least_float32(output)

    def target(self, clean: Tensor) -> Target:
        return frozen_logit(clean.argmax(1))

    def error(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return per_image(total_variation(prediction.softmax(1), reference.softmax(1)))

    def truth_error(self, prediction: Tensor, truth: Tensor) -> Tensor:
        labelled = known(prediction, truth)
        return per_known(1 - picked(prediction.softmax(1), truth), labelled)

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        labelled = known(prediction, truth)
        return per_known(-picked(prediction.log_softmax(1), truth), labelled)

    def magnitude(self, prediction: Tensor) -> Tensor:
        return prediction.new_ones(len(prediction))  # of probabilities, whatever the logits are

    def spread(self, prediction: Tensor) -> Tensor:
        return per_image(total_variation(prediction.softmax(1), torch.full_like(prediction, 1 / prediction.shape[1])))


class Segmentation(Classification):
    """A class for every pixel: output (B, K, H', W') of logits, K at least 2; labels (B, H', W').

    As `Classification`, and the mean over the pixels; labels of 255 or below 0 are left out. Target: the mean over
    the pixels of the logit of the class that is predicted there on the clean image, frozen there.

    >>> target = Segmentation().target(torch.tensor([[[[0.0, 3.0]], [[1.0, 2.0]]]]))
    >>> target(torch.tensor([[[[5.0, 7.0]], [[9.0, 1.0]]]]))
    tensor([8.])
    """

    name = "segmentation"

    def read(self, output: Tensor) -> Tensor:
        if output.ndim != 4 or output.shape[1] < 2:
            raise ModelOutputError(
                f"a segmentation network must return logits (B, K, H, W) of at least two classes, not "
                f"{tuple(output.shape)}; give xa.describe an output= that picks the logits, or of one logit z the two "
                "(0, z)"
            )
        return at_least_float32(output)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of |p - q| over the classes (B, K, ...), (B, ...)."""
    return (p - q).abs().sum(1) / 2


def per_image(values: Tensor) -> Tensor:
    """The mean of (B, ...) over all but the images, (B,)."""
    return values.reshape(len(values), -1).mean(1)


def per_known(values: Tensor, known: Tensor) -> Tensor:
    """The mean over the places with a label, (B,)."""
    weights = known.to(values).reshape(len(values), -1)
    return (values.reshape(len(values), -1) * weights).sum(1) / weights.sum(1)


def picked(values: Tensor, truth: Tensor) -> Tensor:
    """Of values (B, K, ...) those of the labels (B, ...); where there is no label, of class 0."""
    labels = truth.long().clamp(0, values.shape[1] - 1)
    return values.gather(1, labels[:, None])[:, 0]


def known(prediction: Tensor, truth: Tensor) -> Tensor:
    """Where there is a label, (B, ...).

    Raises:
        ValueError: labels of another shape, or of a class that the network does not have, or an image without any.
    """
    wanted = (len(prediction), *prediction.shape[2:])
    if tuple(truth.shape) != wanted:
        raise ValueError(f"ground_truth must be labels {wanted}, one for each prediction, not {tuple(truth.shape)}")
    found = (truth >= 0) & (truth != IGNORED) & torch.isfinite(truth)
    labels = truth[found]
    if (labels != labels.round()).any() or (labels >= prediction.shape[1]).any():
        raise ValueError(
            f"ground_truth must be whole numbers from 0 to {prediction.shape[1] - 1} (the network has "
            f"{prediction.shape[1]} classes; {IGNORED} or below 0 where unknown), not {float(labels.max()):g}"
        )
    if not found.reshape(len(truth), -1).any(1).all():
        raise ValueError(f"ground_truth has an image without a single label (all {IGNORED} or below 0)")
    return found


def frozen_logit(classes: Tensor) -> Target:
    """Target: the logit of these classes (B,), or the mean over the pixels of those of (B, H', W')."""

    def target(output: Tensor) -> Tensor:
        return per_image(output.gather(1, classes[:, None].to(output.device))[:, 0])

    return target


def class_logit(index: int) -> Target:
    """Target: the logit of one class, of a segmentation its mean over the pixels.

    >>> class_logit(1)(torch.tensor([[3.0, 5.0]]))
    tensor([5.])
    """

    def target(output: Tensor) -> Tensor:
        _check_class("class_logit", index, output)
        return per_image(output[:, index])

    return target


def class_log_probability(index: int) -> Target:
    """Target: the logarithm of the probability of one class, of a segmentation its mean over the pixels."""

    def target(output: Tensor) -> Tensor:
        _check_class("class_log_probability", index, output)
        return per_image(at_least_float32(output).log_softmax(1)[:, index])

    return target


def class_in_mask(index: int, mask: Tensor) -> Target:
    """Target: the mean logit of one class where `mask` (H', W') of a segmentation is true."""
    if not mask.any():
        raise ValueError("class_in_mask: the mask selects no pixel")

    def target(output: Tensor) -> Tensor:
        _check_class("class_in_mask", index, output)
        if output.shape[2:] != mask.shape:
            raise ValueError(f"class_in_mask: the mask is {tuple(mask.shape)}, the output {tuple(output.shape)}")
        return output[:, index][:, mask.to(output.device, torch.bool)].mean(1)

    return target


def _check_class(name: str, index: int, output: Tensor) -> None:
    if not 0 <= index < output.shape[1]:
        raise ValueError(f"{name}({index}): the network has the classes 0 to {output.shape[1] - 1}")
