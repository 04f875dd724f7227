"""The words for a device, and what is said where it does not exist."""

import pytest
import torch

from xai_assert.models.devices import resolve_device


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has so many CUDA devices, and Apple's or not."""

    def pretend(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("auto", "cuda"),
        ("cpu", "cpu"),
        ("cpu:0", "cpu"),
        ("cuda", "cuda"),
        ("cuda:1", "cuda:1"),
        ("mps", "mps"),
        (torch.device("cuda", 0), "cuda:0"),
    ],
)
def test_there(machine, name, device):
    machine(cuda=2, mps=True)
    assert resolve_device(name) == torch.device(device)


def test_auto_without_cuda_is_the_cpu(machine):
    machine(cuda=0, mps=True)
    assert resolve_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "cuda", "there"),
    [("cuda", 0, "cpu"), ("cuda:2", 2, "cpu, cuda:0, cuda:1"), ("mps", 1, "cpu, cuda:0")],
)
def test_not_there(machine, name, cuda, there):
    machine(cuda=cuda)
    with pytest.raises(ValueError, match=f"^device '{name}' is not available; there is: {there}$"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:-1", "meta", "xpu", None])
def test_no_device(machine, name):
    machine(cuda=1)
    with pytest.raises(
        ValueError, match=f"^device '{name}' is not auto, cpu, cuda, cuda:N or mps; there is: cpu, cuda:0$"
    ):
        resolve_device(name)
