"""Small networks of timm, one of each family, without weights.

`python tests/timm_zoo.py` prints the table of docs/timm.md.
"""

import timm
import torch
from known_models import draw
from torch import nn

import xai_assert as xa

CLASSES = 5
WINDOWS = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
TOKENS = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3}
ZOO = {  # name: side of the images in pixels, arguments
    "resnet18": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "efficientnet_lite0": (64, {}),
    "convnext_atto": (64, {}),
    "densenet121": (64, {"growth_rate": 8, "block_config": (2, 2, 2, 2)}),
    "vgg11_bn": (64, {"mlp_ratio": 0.01}),
    "regnetx_002": (64, {}),
    "mobilevit_xxs": (64, {}),
    "poolformer_s12": (64, {}),
    "pvt_v2_b0": (64, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "xcit_nano_12_p16_224": (64, {"depth": 2}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 2}),
    "efficientformer_l1": (224, {"depths": (1, 1, 1, 2), "embed_dims": (16, 24, 32, 48)}),
    "vit_tiny_patch16_224": (64, TOKENS),
    "deit_tiny_distilled_patch16_224": (64, TOKENS),
    "vit_small_patch14_reg4_dinov2": (56, {**TOKENS, "img_size": 56}),
    "beit_base_patch16_224": (64, TOKENS),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "vit_relpos_small_patch16_224": (64, TOKENS),
    "swin_tiny_patch4_window7_224": (64, WINDOWS),
    "swinv2_tiny_window8_256": (64, WINDOWS),
}
FLAT = tuple(name for name in ZOO if name.startswith(("vit", "deit", "beit", "eva")))
SWIN = tuple(name for name in ZOO if name.startswith("swin"))


def build(name: str, **more: object) -> nn.Module:
    """The network in evaluation mode. Flat attention would hide mistakes, so it is sharpened; a head that timm starts
    with zeros depends on nothing, so it is drawn."""
    _, arguments = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=CLASSES, **{**arguments, **more})
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if any(part in key for part in ("qkv", "q_proj", "k_proj", "bias_table")):
                parameter.mul_(8)
            if parameter.ndim > 1 and not parameter.any() and "token" not in key:
                parameter.copy_(draw(*parameter.shape) / 10)
    return network.eval()


def images(name: str, count: int = 2) -> torch.Tensor:
    return draw(count, 3, ZOO[name][0], ZOO[name][0])


def target(output: torch.Tensor) -> torch.Tensor:
    """The logit of the first class, (B,)."""
    return output[:, 0]


METHODS = (
    xa.method("saliency"),
    xa.method("input_x_gradient"),
    xa.method("smoothgrad", draws=2),
    xa.method("integrated_gradients", steps=2, baseline="mean"),
    xa.method("attention_rollout"),
    xa.method("gradient_rollout"),
    xa.method("grad_cam"),
    xa.method("random"),
    xa.method("edges"),
)
DESCRIBED = {"target": target, "mean": [0.5] * 3, "std": [0.5] * 3}


def table() -> str:
    """Methods x networks in Markdown: which give a map, and which say that they do not apply."""
    lines = ["| network | " + " | ".join(method.name for method in METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for name in ZOO:
        network, x, cells = build(name), images(name, 1), []
        for method in METHODS:
            try:
                xa.heatmap(network, x, method, **DESCRIBED)
                cells.append("yes")
            except xa.NotApplicableError:
                cells.append("-")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
