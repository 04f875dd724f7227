"""Stands in for your training: a small ViT of timm's learns which object is nearest in the 24 bundled rooms."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

import xai_assert as xa
from xai_assert.datasets import scenes
from xai_assert.datasets.nearest import OBJECTS

OPTIONS = {"img_size": 96, "depth": 4, "num_classes": len(OBJECTS)}
HALF = [0.5, 0.5, 0.5]


def main() -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", **OPTIONS)
    about = {"task": "classification", "mean": HALF, "std": HALF, "input_size": (96, 96), "classes": OBJECTS}
    data = scenes(xa.describe(network, name="training", **about).card)
    images, labels = data.tensor(), data.ground_truth()
    assert labels is not None
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network(images), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(network.state_dict(), Path(__file__).with_name("release.safetensors"))
    print(f"loss {loss.item():.2f}")


if __name__ == "__main__":
    main()
