"""What the library's own tests share."""

from pathlib import Path

import pytest
import torch

import xai_assert

torch.set_num_threads(1)  # the tensors are small, and on a busy machine spinning threads cost tenfold


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and official weights, which are not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return folder


@pytest.fixture(autouse=True)
def _not_a_measurement():
    """What these tests measure is no verdict on anything: it stays out of the record of this run."""
    token = xai_assert._running_test.set(None)
    yield
    xai_assert._running_test.reset(token)
