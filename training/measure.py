"""How good a network is on the held-out scenes, beside what knows nothing of the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.datasets.nearest import NONE
from xai_assert.datasets.scenes import scenes
from xai_assert.metrics.classes import class_accuracy
from xai_assert.metrics.depth import depth_errors
from xai_assert.subject import Card

SHOWN = ("rmse", "abs_rel", "d1")


def measure(network: nn.Module, card: Card, trained: Tensor, device: str = "cpu") -> dict[str, object]:
    """Errors on the scenes, as `errors` takes them: of the network and of what it must beat.

    Args:
        network: in evaluation mode.
        card: of the network.
        trained: the ground truth that it was trained on.
        device: where the network is.

    Of depth that is the mean depth at each pixel, of the training's scenes (`mean_map`) and of the held-out ones
    themselves (`own_mean_map`), and the network's depth of another scene (`shuffled`); `ratio` is the network's RMSE
    over that of the better mean map. Of classes it is the most frequent label of the training's scenes, of a
    segmentation that at each pixel (`commonest`), and the network's answer to another scene.
    """
    assert card.task is not None
    held_out = scenes(card)
    truth = held_out.ground_truth()
    assert truth is not None
    with torch.no_grad():
        output = torch.cat([network(image[None].to(device)).float().cpu() for image in held_out.tensor()])
    if card.task.name != "depth":
        answers = {"network": output, "commonest": commonest(trained, output), "shuffled": output.roll(1, 0)}
        return {name: errors(card, answer, truth) for name, answer in answers.items()}
    maps = {
        "network": output,
        "mean_map": trained.mean(0).expand_as(truth)[:, None],
        "own_mean_map": truth.mean(0).expand_as(truth)[:, None],
        "shuffled": output.roll(1, 0),
    }
    found = {name: errors(card, depth, truth) for name, depth in maps.items()}
    best = min(found["mean_map"]["rmse"], found["own_mean_map"]["rmse"])
    return {**found, "ratio": round(found["network"]["rmse"] / best, 4)}


def commonest(trained: Tensor, output: Tensor) -> Tensor:
    """As logits like the output: the most frequent known label, at each place."""
    counts = torch.stack([(trained == k).sum(0) for k in range(output.shape[1])])
    return F.one_hot(counts.argmax(0), output.shape[1]).movedim(-1, 0).float().expand_as(output)


def errors(card: Card, output: Tensor, truth: Tensor) -> dict[str, float]:
    """RMSE (in the card's unit), AbsRel and d1 of depth; the share of known labels that are hit, of a segmentation also
    the mean over the classes that occur of intersection over union."""
    assert card.task is not None
    if card.task.name == "depth":
        each = depth_errors(output[:, 0], truth, truth > 0)
        return {name: round(each[name].mean().item(), 4) for name in SHOWN}
    labelled = (truth != NONE).flatten(1).any(1) if truth.ndim > 1 else truth != NONE
    return {name: round(value, 4) for name, value in class_accuracy(output[labelled], truth[labelled]).items()}
