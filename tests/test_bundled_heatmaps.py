"""The heatmaps of the networks that come with the project, on another device; suites/test_heatmaps.py guards them."""

import pytest
import torch

import xai_assert as xa
from xai_assert.datasets import bundled_images
from xai_assert.stored_heatmap import StoredHeatmap, compare


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["meter-xxs-scenes", "pixelformer-nano"])
@pytest.mark.parametrize("method", ["saliency", "attention_rollout"])
def test_a_gpu_gives_the_heatmaps_of_the_cpu(name, method):
    about = {"subject": name, "fingerprint": "", "method": method, "image_id": "", "seed": 0}
    maps = []
    for device in ("cpu", "cuda"):
        subject = xa.load_model(name, "scenes", device=device)
        images = bundled_images(subject.card, limit=2)
        maps.append([StoredHeatmap.of(one, about) for one in xa.attribute(subject, images, method)])
    for here, there in zip(*maps, strict=True):
        assert compare(here, there).close, compare(here, there).numbers()
