"""Stands in for your training: a small DPT with random weights and its image processor, in a folder `network`."""

from pathlib import Path

import torch
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

FOLDER = Path(__file__).with_name("network")

if __name__ == "__main__":
    torch.manual_seed(3)
    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        is_hybrid=False,
        initializer_range=0.15,  # with the default, an untrained DPT says 1e-10 everywhere
    )
    DPTForDepthEstimation(config).save_pretrained(FOLDER)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(FOLDER)
