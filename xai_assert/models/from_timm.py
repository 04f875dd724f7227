"""Classifiers of timm by name: "timm/NAME" or "timm/NAME(key=value, ...)", as timm.create_model makes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xai_assert.errors import CheckpointError, UnknownNameError
from xai_assert.models.checkpoints import load_checkpoint
from xai_assert.registry import format_spec, parse_spec
from xai_assert.subject import Card, Subject
from xai_assert.tasks import as_task

PREFIX = "timm/"
PRETRAINED = "pretrained"  # the word for the weights that timm downloads
OURS = ("pretrained", "checkpoint_path", "features_only", "in_chans")  # arguments of create_model that nobody may give


def from_timm(spec: str, weights: str | os.PathLike[str] | None = None) -> Subject:
    """A network of timm's as a classification subject; size, mean and std are those of its data config.

    Args:
        spec: "timm/NAME", with arguments of timm.create_model in brackets if need be: "(img_size=96, num_classes=10)".
        weights: "pretrained" (what timm downloads, once), the path of a state dict or safetensors file of this
            architecture, or None: as timm draws them.

    Raises:
        UnknownNameError: timm has no such network; the nearest names are in the text.
        CheckpointError: weights that cannot be downloaded, or a file that is not of this network.
        TypeError, ValueError: an argument that this network does not take.
    """
    name, arguments = parse_spec(spec.removeprefix(PREFIX), "timm model")
    called = canonical(spec)
    network = create(name, arguments, called, pretrained=weights == PRETRAINED)
    source = f"random(seed={torch.initial_seed()})" if weights is None else PRETRAINED
    if weights is not None and weights != PRETRAINED:
        load_checkpoint(network, weights, name=called)
        source = Path(weights).name
    return Subject(network, card(network, arguments, called if weights is not None else f"{called}-random", source))


def canonical(spec: str) -> str:
    """How a subject with weights is called: the spec, its arguments written in one way.

    >>> canonical("timm/resnet18( num_classes = 10 )")
    'timm/resnet18(num_classes=10)'
    """
    return PREFIX + format_spec(*parse_spec(spec.removeprefix(PREFIX), "timm model"))


def create(name: str, arguments: dict[str, Any], called: str, *, pretrained: bool) -> nn.Module:
    """The network, on the CPU.

    Raises:
        see `from_timm`.
    """
    import timm  # late, because it takes its time to import

    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())
    if taken := [key for key in OURS if key in arguments]:
        raise ValueError(
            f"model {called!r}: {taken[0]}= cannot be given here; weights are asked for as {name}@pretrained or "
            f"{name}@PATH, and another form of the network is made in a function of your own, with xa.describe"
        )
    if pretrained and not has_weights(name):
        raise CheckpointError(f"timm publishes no weights of {name}; give a path, or leave weights out for random ones")
    try:
        with torch.device("cpu"):
            network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        if pretrained and not isinstance(error, TypeError):
            raise CheckpointError(
                f"the pretrained weights of {name} could not be loaded: {error}. Without a connection to the hub, "
                "fetch them elsewhere and give the path of the file as weights="
            ) from error
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"model {called!r}: timm cannot make it with {arguments or 'no arguments'}: {error}") from error
    return network


def has_weights(name: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(name)
    return bool(config and config.has_weights)


def card(network: nn.Module, arguments: dict[str, Any], name: str, weights: str) -> Card:
    """What timm's own data config says of the network's images."""
    from timm.data import config as data_config

    config = data_config.resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    height, width = config["input_size"][1:]
    size = arguments.get("img_size", (height, width))
    height, width = (size, size) if isinstance(size, int) else size
    return Card(
        name=name,
        task=as_task("classification"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        input_size=(height, width),
        output_size=(height, width),
        layout="RGB",
        weights=weights,
    )
