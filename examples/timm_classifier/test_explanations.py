"""A fine-tuned classifier of timm's, judged by gates of its own (gates.toml)."""

from pathlib import Path

import xai_assert as xa

WEIGHTS = Path(__file__).with_name("release.safetensors")


def release():
    return xa.load_model("timm/vit_tiny_patch16_224(img_size=96, depth=4, num_classes=11)", WEIGHTS)


@xa.parametrize_with_gates(models={"release": release}, methods=["saliency"], perturbations=["gaussian_noise"])
def test_release(gate):
    gate.check()
