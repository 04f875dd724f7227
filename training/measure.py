"""How good a network is on the held-out scenes, beside what knows nothing of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xai_assert.datasets.scenes import scenes
from xai_assert.metrics.depth import depth_errors
from xai_assert.subject import Card

SHOWN = ("rmse", "abs_rel", "d1")


def measure(network: nn.Module, card: Card, mean_depth: Tensor, device: str = "cpu") -> dict[str, object]:
    """RMSE (in the card's unit), AbsRel and d1, means over the scenes: of the network and of what it must beat.

    That is the mean depth at each pixel, of the training's scenes (`mean_map`) and of the held-out ones themselves
    (`own_mean_map`), and the network's depth of another scene (`shuffled`). `ratio` is the network's RMSE over that of
    the better mean map.
    """
    held_out = scenes(card)
    truth = held_out.ground_truth()
    assert truth is not None
    with torch.no_grad():
        depth = torch.cat([network(image[None].to(device))[:, 0].float().cpu() for image in held_out.tensor()])
    predictions = {
        "network": depth,
        "mean_map": mean_depth.expand_as(truth),
        "own_mean_map": truth.mean(0).expand_as(truth),
        "shuffled": depth.roll(1, 0),
    }
    found = {name: errors(prediction, truth) for name, prediction in predictions.items()}
    best = min(found["mean_map"]["rmse"], found["own_mean_map"]["rmse"])
    return {**found, "ratio": round(found["network"]["rmse"] / best, 4)}


def errors(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    each = depth_errors(prediction, truth, truth > 0)
    return {name: round(each[name].mean().item(), 4) for name in SHOWN}
