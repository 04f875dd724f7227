"""What Captum would do without a word and is not the method that was asked for: refused, with the reason."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.errors import NotApplicableError
from xai_assert.preserve import hooks, uncompiled
from xai_assert.subject import Subject

RELU = {"GuidedBackprop", "Deconvolution", "GuidedGradCam"}  # that change the gradient of nn.ReLU, and of nothing else
RULES = {"DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap"}  # that hook the non-linear modules they know
GAP = 0.1  # of DeepLift's sum; it is rounding (1e-4) where all rules apply, and .9 on a ViT, where none does
NON_LINEAR = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax, nn.MaxPool2d)
FLOOR = 0.01  # of |f|, below which f(x) - f(b) is no scale for a gap
NO_IMAGE = {
    "DataLoaderAttribution": "it attributes a data loader, not an image; give xa.attribute the data set",
    "FeaturePermutation": "it swaps features between the images of a batch, so a map depends on the other images; use "
    "captum/FeatureAblation",
    "LayerFeaturePermutation": "it swaps features between the images of a batch; use captum/LayerGradCam",
    "LayerFeatureAblation": "its features are numbers of a layer, a pass each; use captum/FeatureAblation(patch=16)",
}


def explains_an_image(kind: type) -> None:
    """Refuse a class that is abstract, or explains something other than the target of an image."""
    name = kind.__name__
    if not hasattr(kind, "attribute") or getattr(kind, "__abstractmethods__", None):
        raise TypeError(f"captum/{name} is abstract: it has no attribute() of its own")
    why = NO_IMAGE.get(name)
    if name.startswith("Neuron"):
        why = "it explains a neuron of a layer, not the target; give the neuron as target= of another method"
    if "BaseLLMAttribution" in {c.__name__ for c in kind.__mro__}:
        why = "it explains a language model"
    if why:
        raise TypeError(f"captum/{name} is no method for a vision model here: {why}")


def relus(name: str, subject: Subject, images: Tensor) -> None:
    """Refuse a network whose ReLUs the method would not see, or would see once where they are called twice.

    Raises:
        NotApplicableError: no `nn.ReLU` runs, some ReLU is a function call, or a hooked module runs twice.
    """
    if name not in RELU | RULES:
        return
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1

    named: dict[nn.Module, str] = {m: n for n, m in subject.module.named_modules() if isinstance(m, NON_LINEAR)}
    with uncompiled(), hooks(*(m.register_forward_hook(count) for m in named)), torch.enable_grad():
        output = subject(images[:1].clone().requires_grad_(True))
    own = sum(calls[m] for m in calls if isinstance(m, nn.ReLU))
    in_graph = relus_of(output)
    if name in RELU and not own:
        raise NotApplicableError(
            f"captum/{name} does not apply to {subject.name}: no nn.ReLU runs in it, so the map would be the plain "
            "gradient; use saliency"
        )
    if name in RELU and in_graph > own:
        raise NotApplicableError(
            f"captum/{name} does not apply to {subject.name}: {in_graph - own} of its {in_graph} ReLUs are function "
            "calls that it cannot hook, so the map would be half a plain gradient; make them modules (nn.ReLU)"
        )
    twice = [named[m] for m in calls if calls[m] > 1]
    if name in RULES and twice:
        raise NotApplicableError(
            f"captum/{name} does not apply to {subject.name}: {', '.join(twice[:3])} runs more than once, and its rule "
            "would mix the inputs; give each call a module of its own"
        )


def relus_of(output: Tensor) -> int:
    """How many ReLUs the graph of a tensor holds."""
    todo, seen = [output.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return sum(node.name().startswith("ReluBackward") for node in seen)


def complete(name: str, subject: Subject, images: Tensor, found: Any, explained: nn.Module, baseline: Any) -> None:
    """Refuse a DeepLift whose sum is not f(x) - f(b): some of its rules were not applied.

    Raises:
        NotApplicableError: with the gap of the worst image.
    """
    if name not in RULES or not isinstance(found, Tensor):
        return
    rows = torch.arange(len(images))
    start = baseline if isinstance(baseline, Tensor) else torch.full_like(images, float(baseline))
    with torch.no_grad():
        value = explained(images, rows).double()
        if name.endswith("Shap"):  # one image, and the mean over the baselines
            reference = explained(start, torch.zeros(len(start), dtype=torch.long)).double().mean()
        else:
            reference = explained(start.expand_as(images), rows).double()
    scale = torch.maximum((value - reference).abs(), FLOOR * torch.maximum(value.abs(), reference.abs()))
    gaps = (found.detach().double().flatten(1).sum(1) - (value - reference)).abs() / scale.clamp(min=1e-30)
    if float(gaps.max()) > GAP:
        raise NotApplicableError(
            f"captum/{name} does not apply to {subject.name}: its map sums to something {float(gaps.max()):.0%} away "
            f"from f(x) - f(b), where {GAP:.0%} is allowed. DeepLift knows rules only for modules such as nn.ReLU and "
            "nn.MaxPool2d; attention, GELU or functions are passed as plain gradients. Use integrated_gradients"
        )
