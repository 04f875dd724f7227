"""The heatmaps of the networks that come with the project, guarded as users guard theirs."""

import pytest

import xai_assert as xa
from xai_assert.datasets import bundled_images


@pytest.mark.parametrize("name", ["meter-xxs-scenes", "pixelformer-nano"])
@pytest.mark.parametrize("method", ["saliency", "attention_rollout"])
def test_bundled_heatmaps(name, method, heatmap_snapshot):
    subject = xa.load_model(name, "scenes", device="cpu")
    images = bundled_images(subject.card, limit=2)
    xa.assert_heatmap_matches(subject, method, images, heatmap_snapshot)
