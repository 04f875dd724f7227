"""A small network and its exports, each made once a session: exporting takes seconds, measuring does not."""

import warnings

import pytest
import torch
from torch import nn

import xai_assert as xa

SIZE = (3, 8, 8)
COLOURS = {"mean": [0.5] * 3, "std": [0.25] * 3}


def network(seed=0):
    """Curved and with a clear spread over the pixels, so that other weights predict something else."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 3, padding=1), nn.Softplus())
    return net.eval()


def classifier(seed=0):
    """Mostly a linear layer, which dynamic quantisation knows."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        net[3].weight.mul_(8)  # the classes are told apart clearly
    return net.eval()


def images(count=6, dtype=torch.float32):
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(7)).to(dtype)


def subject(net=None):
    return xa.describe(net or network(), name="float", task="depth", unit="m", **COLOURS)


def torchscript(net, path, dtype=torch.float32, count=2):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; people ship it
        torch.jit.save(torch.jit.trace(net, images(count, dtype)), path)
    return path


def exported(net, path, count=2, dynamic=True):
    batch = {0: torch.export.Dim("batch", min=1, max=64)} if dynamic else None
    torch.export.save(torch.export.export(net, (images(count),), dynamic_shapes=batch and (batch,)), path)
    return path


def onnx(net, path, count=2, dynamic=True):
    for needed in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(needed, reason="needs onnxruntime, and onnx and onnxscript to export")
    batch = {0: torch.export.Dim("batch", min=1, max=64)} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        torch.onnx.export(net, (images(count),), path, dynamic_shapes=batch and (batch,), verbose=False)
    return path
