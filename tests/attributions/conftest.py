"""The network that the methods' tests share."""

import pytest
import torch
from known_models import seeded

import xai_assert as xa
from xai_assert.models.meter import Meter
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Subject


def build_meter(dtype: torch.dtype) -> Subject:
    module = seeded(Meter("xxs")).to(dtype).eval()
    return xa.describe(module, name="meter", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.fixture(scope="session")
def meter() -> Subject:
    """METER-XXS with seeded random weights."""
    return build_meter(torch.float32)


@pytest.fixture(scope="session")
def meter64() -> Subject:
    """The same in float64: where two ways to sum must agree, no rounding flips the sign of a ReLU in between."""
    return build_meter(torch.float64)
