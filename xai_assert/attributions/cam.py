"""Grad-CAM (Selvaraju et al., 1610.02391): where the last spatial layer speaks for the target."""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import ExposesAttention
from xai_assert.attributions.base import register_method
from xai_assert.attributions.gradients import checked_values
from xai_assert.errors import NotApplicableError
from xai_assert.preserve import hooks, uncompiled
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32

COARSEST = 32  # input pixels a side that one place stands for; pooled pyramids have fewer places, and no positions
REMEDY = "name a layer whose output is (B, C, h, w) or tokens (B, N, C), with layer='...', or use another method"


@register_method("grad_cam", gradient=True, passes=lambda layer=None: (0, 1))
def grad_cam(model: Subject, images: Tensor, target: Target, *, layer: str | None = None) -> Tensor:
    """relu of a layer's channels, weighted by the mean gradient of the target in each, (B, H, W).

    It is resized bilinearly to the images, and not stretched to [0, 1]. Gradients stop at the layer. A map that is 0
    everywhere (no channel speaks for the target) ranks nothing, and is refused where it is judged.

    Args:
        model, images, target: as for every method; images (B, C, H, W).
        layer: name of a submodule whose output is (B, C, h, w), or tokens (B, N, C) of a network that says where they
            lie; of one that runs several times the last output counts. By default, of the network of timm's that the
            module is or holds, the last of its `feature_info` (where a class token is read, the first norm of the last
            block, because what follows leaves out the other tokens); of any other network, of its convolutions with
            the coarsest map of up to 1/32 of the image a side, the last.

    Raises:
        NotApplicableError: there is no such layer, its output has no places, or the target does not depend on it.
    """
    found = Found(model, images, layer)
    with uncompiled(), torch.enable_grad(), ExitStack() as stack:
        for name, module in found.candidates():
            stack.enter_context(hooks(module.register_forward_hook(found.hook(name))))
        inputs = images.detach().clone().requires_grad_(True)
        values = checked_values(target(model(inputs)), len(images))
        activation = found.activation()
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), activation, allow_unused=True)
    if gradient is None:
        raise NotApplicableError(
            f"grad_cam: the target does not depend on layer {found.name!r} of {model.name}; choose another layer="
        )
    places, weights = found.places(activation), found.places(gradient).mean((2, 3), keepdim=True)
    cam = (weights * places).sum(1, keepdim=True).relu()
    return F.interpolate(cam, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


class Found:
    """The layer of one pass: which one it is, and what it gave."""

    def __init__(self, model: Subject, images: Tensor, layer: str | None) -> None:
        self.model, self.module = model, model.module
        root = timm_root(model.module)
        self.network = root[1] if root else model.module  # which says where its tokens lie
        self.size = (int(images.shape[-2]), int(images.shape[-1]))
        self.chosen = layer if layer is not None else timm_layer(model.module)
        if self.chosen is not None:
            check_layer(model, self.chosen)
        self.name: str | None = None
        self.output: Any = None

    def candidates(self) -> list[tuple[str, nn.Module]]:
        if self.chosen is not None:
            return [(self.chosen, self.module.get_submodule(self.chosen))]
        return [(name, m) for name, m in self.module.named_modules() if isinstance(m, nn.Conv2d)]

    def hook(self, name: str) -> Any:
        """Keeps the output if it is the layer's; the network goes on with a copy, which it may write on."""

        def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
            if self.chosen is None and not self.as_coarse(output):
                return None
            self.name, self.output = name, output
            return output.clone() if isinstance(output, Tensor) else None

        return keep

    def as_coarse(self, output: Any) -> bool:
        """Whether a convolution's map is spatial, and no finer than the one that is kept."""
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2] * output.shape[3] < 2:
            return False
        if any(places < side // COARSEST for places, side in zip(output.shape[2:], self.size, strict=True)):
            return False
        kept = self.output
        return kept is None or output.shape[2] * output.shape[3] <= kept.shape[2] * kept.shape[3]

    def activation(self) -> Tensor:
        if self.name is None and self.chosen is None:
            what = f"no convolution of {type(self.module).__name__} gives a map of more than one place"
        elif self.name is None:
            what = f"layer {self.chosen!r} of {self.model.name} did not run"
        elif not isinstance(self.output, Tensor):
            what = f"layer {self.name!r} of {self.model.name} gives a {type(self.output).__name__}"
        else:
            self.places(self.output.detach())  # refuses it before the way back
            found: Tensor = self.output
            return found
        raise NotApplicableError(f"grad_cam does not apply to {self.model.name}: {what}; {REMEDY}")

    def places(self, tensor: Tensor) -> Tensor:
        """A layer's output as (B, C, h, w), in float32 at least; prefix tokens are dropped."""
        tensor = at_least_float32(tensor)
        if tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", None) == "NHWC" else tensor
            if tensor.shape[2] * tensor.shape[3] > 1:
                return tensor
        grids, prefix = tokens_of(self.network, *self.size)
        for grid in grids if tensor.ndim == 3 else ():
            behind = tensor.shape[1] - grid[0] * grid[1]
            if behind in (0, prefix):
                return tensor[:, behind:].transpose(1, 2).reshape(len(tensor), -1, *grid)
        known = f", and its patches are {' or '.join(map(str, grids))} behind {prefix} other tokens" if grids else ""
        raise NotApplicableError(
            f"grad_cam does not apply to {self.model.name}: layer {self.name!r} gives {tuple(tensor.shape)}{known}; "
            f"{REMEDY}"
        )


def check_layer(model: Subject, layer: str) -> None:
    names = [name for name, _ in model.module.named_modules() if name]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.5) or names[-3:]
        raise NotApplicableError(f"grad_cam: {model.name} has no layer {layer!r}; there is {', '.join(near) or 'none'}")


def timm_root(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The one network of timm's in `module`, and its name there: "" if it is the module itself."""
    found = [(name, m) for name, m in module.named_modules() if is_timm(m) and features_of(m)]
    return found[0] if len(found) == 1 else None


def is_timm(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("timm.models.") for kind in type(module).__mro__)


def features_of(module: nn.Module) -> list[dict[str, Any]]:
    """What a network of timm's says of its features: name of a module, and input pixels a place and side."""
    info = getattr(module, "feature_info", None)
    info = getattr(info, "info", info)
    return info if isinstance(info, list) else []  # blocks have a method of that name


def timm_layer(module: nn.Module) -> str | None:
    """The last spatial layer of the network of timm's that `module` is or holds."""
    if (root := timm_root(module)) is None:
        return None
    home, network = root
    name, layers = features_of(network)[-1]["module"], dict(network.named_modules())
    if name not in layers:
        return None
    from xai_assert.attributions.timm_attention import FLAT  # late, because timm takes its time to import

    reads_class_token = isinstance(network, FLAT) and network.cls_token is not None
    if reads_class_token and f"{name}.norm1" in layers and "Post" not in type(layers[name]).__name__:
        name = f"{name}.norm1"
    return f"{home}.{name}" if home else str(name)


def tokens_of(module: Any, height: int, width: int) -> tuple[list[tuple[int, int]], int]:
    """The grids that tokens may lie on, and how many stand before them, where a network says so."""
    if isinstance(module, ExposesAttention):
        taps = module.attention_taps(height, width)
        return list(dict.fromkeys(tap.grid for tap in taps)), taps[-1].prefix
    grids = []
    embed: Any = getattr(module, "patch_embed", None)
    if hasattr(embed, "dynamic_feat_size"):
        rows, columns = embed.dynamic_feat_size((height, width))
        grids.append((int(rows), int(columns)))
    steps = [feature["reduction"] for feature in features_of(module)] if is_timm(module) else []
    grids += [(-(-height // step), -(-width // step)) for step in steps]
    return list(dict.fromkeys(grids)), getattr(module, "num_prefix_tokens", 0)
