"""Small networks of transformers, of the kinds that people ship, with random weights and their image processors."""

import torch
import transformers as hf

VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
NECK = {"fusion_hidden_size": 16, "reassemble_factors": [4, 2, 1, 0.5]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def square(side):
    return {"size": {"height": side, "width": side}}


def dpt():
    config = hf.DPTConfig(
        **VIT,
        **NECK,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        is_hybrid=False,
    )
    return hf.DPTForDepthEstimation(config), hf.DPTImageProcessor(**square(64), **HALF)


def depth_anything():
    backbone = hf.Dinov2Config(
        **VIT, mlp_ratio=2, image_size=70, patch_size=14, out_features=STAGES, reshape_hidden_states=False
    )
    config = hf.DepthAnythingConfig(
        **NECK,
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 32, 32],
        head_hidden_size=8,
        depth_estimation_type="metric",
        max_depth=20,
    )
    return hf.DepthAnythingForDepthEstimation(config), hf.DPTImageProcessor(**square(70))


def glpn():
    config = hf.GLPNConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=16
    )
    return hf.GLPNForDepthEstimation(config), hf.GLPNImageProcessor()


def zoedepth():
    backbone = hf.BeitConfig(
        **VIT, intermediate_size=64, image_size=64, patch_size=16, out_features=STAGES, reshape_hidden_states=False
    )
    config = hf.ZoeDepthConfig(
        **NECK,
        backbone_config=backbone,
        backbone_hidden_size=32,
        neck_hidden_sizes=[16, 16, 32, 32],
        bottleneck_features=16,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=16,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
    )
    return hf.ZoeDepthForDepthEstimation(config), hf.ZoeDepthImageProcessor(**square(64))


def vit():
    names = {i: f"kind {i}" for i in range(12)}
    config = hf.ViTConfig(**VIT, intermediate_size=64, image_size=64, patch_size=16, id2label=names)
    return hf.ViTForImageClassification(config), hf.ViTImageProcessor(**square(64))


def deit():
    config = hf.DeiTConfig(**VIT, intermediate_size=64, image_size=64, patch_size=16, num_labels=3)
    processor = hf.DeiTImageProcessor(size={"height": 72, "width": 72}, crop_size={"height": 64, "width": 64})
    return hf.DeiTForImageClassification(config), processor


def registers():
    config = hf.Dinov2WithRegistersConfig(**VIT, image_size=56, patch_size=14, num_labels=3, num_register_tokens=4)
    return hf.Dinov2WithRegistersForImageClassification(config), hf.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
    )


def resnet():
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    return hf.ResNetForImageClassification(config), hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=1.0)


def segformer():
    config = hf.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
        num_labels=4,
    )
    return hf.SegformerForSemanticSegmentation(config), hf.SegformerImageProcessor(**square(64))


SMALL = {f.__name__: f for f in (dpt, depth_anything, glpn, zoedepth, vit, deit, registers, resnet, segformer)}
FLAT = ("dpt", "depth_anything", "vit", "deit", "registers")


def make(name, folder):
    """Save the network and its processor as a user has them; the network."""
    torch.manual_seed(3)
    network, processor = SMALL[name]()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network.eval()
