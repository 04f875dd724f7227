"""Captum's attribution methods (2009.07896) as methods of ours: an object, a class, or `captum/NAME(key=value)`.

The model that Captum sees returns the target (B,). Beside the images it takes the number of the image that each row is
of: Captum repeats such an argument as it expands the images, so that the frozen class of an image follows its rows.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xai_assert.attributions import captum_checks
from xai_assert.attributions.base import CAPTUM as PREFIX
from xai_assert.attributions.base import Method, Signed, is_captum
from xai_assert.attributions.baselines import resolve_baseline, split
from xai_assert.attributions.captum_objects import TargetModel, layer_named, rebound
from xai_assert.errors import ModelOutputError, NotApplicableError, UnknownNameError
from xai_assert.preserve import modules_as_they_were, seeded, uncompiled
from xai_assert.randomness import ImageId
from xai_assert.registry import bind
from xai_assert.subject import Subject
from xai_assert.tasks import Target

INSTALL = "pip install 'xai-assert[captum]'"
# These draw nothing, and treat the images of a batch apart; every other class gets one image at a time.
BATCHED = {
    *("Saliency", "InputXGradient", "IntegratedGradients", "DeepLift", "GuidedBackprop", "Deconvolution", "LRP"),
    *("GuidedGradCam", "FeatureAblation", "Occlusion", "LayerActivation", "LayerGradCam", "LayerGradientXActivation"),
    *("LayerIntegratedGradients", "LayerConductance", "InternalInfluence", "LayerDeepLift", "LayerLRP"),
}
WRITES_WEIGHTS = {"LRP", "LayerLRP"}  # its rules change the weights for a while: it is given a copy
DISTRIBUTION = {"GradientShap", "DeepLiftShap", "LayerGradientShap", "LayerDeepLiftShap"}  # of baselines (N, C, H, W)
AT_ONCE = 16  # rows that a method which expands its images may have in one pass, if no more images are in the batch
OURS = {
    "target": "pass target= to xa.attribute, or to the assertion",
    "additional_forward_args": "put them into the module: an adapter with forward(images)",
    "return_convergence_delta": "see xa.completeness",
    "neuron_selector": "a neuron is not the target",
}


@dataclass(frozen=True)
class CaptumMethod:
    """The function of a method: `kind` is the class, `made` the caller's object of it, if he made one."""

    kind: type
    made: Any = None

    @property
    def name(self) -> str:
        return self.kind.__name__

    def __call__(
        self,
        model: Subject,
        images: Tensor,
        target: Target,
        *,
        image_ids: Sequence[ImageId],
        seed: int,
        **parameters: Any,
    ) -> Tensor:
        subject = model.with_card(model.card)
        if self.name in WRITES_WEIGHTS:
            subject.module = copy.deepcopy(model.module)
        with modules_as_they_were(subject.module), uncompiled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(?s)\s*Setting (forward, )?backward hooks")
            for m in subject.module.modules():
                if vars(m).get("inplace"):  # where no gradient can be hooked
                    vars(m)["inplace"] = False
            captum_checks.relus(self.name, subject, images)
            if self.name in BATCHED:
                return self._found(subject, images, TargetModel(subject, target, len(images)), parameters)
            found = []
            for row, image_id in enumerate(image_ids):
                with seeded(seed, image_id, f"captum {self.name}"):
                    explained = TargetModel(subject, target, len(images), row)
                    found.append(self._found(subject, images[row : row + 1], explained, parameters))
            return torch.cat(found)

    def _found(self, subject: Subject, images: Tensor, explained: TargetModel, parameters: Mapping[str, Any]) -> Tensor:
        """The attribution of these images, at their size."""
        explained.train(False)
        built = self._built(explained, parameters)
        given = {k: v for k, v in parameters.items() if k not in init_keywords(self.kind)}
        asked = self._arguments(built, subject, images, given)
        try:
            inputs = images.clone().requires_grad_(True)
            found = built.attribute(inputs, additional_forward_args=torch.arange(len(images)), **asked)
        except (ModelOutputError, NotApplicableError, torch.OutOfMemoryError, ImportError):
            raise
        except Exception as error:  # also an assertion of Captum's, which is no verdict of ours
            if "sklearn is not available" in str(error):
                raise ImportError(f"{PREFIX}{self.name} needs scikit-learn: {INSTALL}", name="sklearn") from error
            if "has no rule defined" in str(error):
                raise NotApplicableError(f"{PREFIX}{self.name} does not apply to {subject.name}: {error}") from error
            raise ValueError(f"{PREFIX}{self.name} failed on {subject.name}: {error}") from error
        found = found[0] if isinstance(found, tuple) and len(found) == 1 else found
        captum_checks.complete(self.name, subject, images, found, explained, asked.get("baselines"))
        return at_image_size(found, images, f"{PREFIX}{self.name}")

    def _built(self, explained: TargetModel, parameters: Mapping[str, Any]) -> Any:
        """A new object of the class around `explained`, made as the caller's was, or of the parameters."""
        if self.made is not None:
            return rebound(self.made, explained)
        wanted = {k: v for k, v in parameters.items() if k in init_keywords(self.kind)}
        if isinstance(wanted.get("layer"), str):
            wanted["layer"] = layer_named(explained.subject, wanted["layer"])
        if isinstance(wanted.get("attribution_method"), str):
            inner = find_class(wanted["attribution_method"])
            return self.kind(inner(explained))
        if "attribution_method" in init_keywords(self.kind):
            return self.kind(rebound(wanted["attribution_method"], explained))
        return self.kind(explained, **wanted)

    def _arguments(self, built: Any, subject: Subject, images: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        """The keywords of `attribute`: those given, baselines in colours, and limits on how much runs at once."""
        takes = set(inspect.signature(built.attribute).parameters)
        inner = getattr(built, "attribution_method", None)
        takes |= set(inspect.signature(inner.attribute).parameters) if inner is not None else set()
        asked = dict(given)
        if "patch" in asked:
            asked["feature_mask"] = patches(images, asked.pop("patch"))
        if "baselines" in takes:
            several = self.name in DISTRIBUTION
            default = "black+white" if several else "black"
            asked["baselines"] = baselines(subject, images, asked.get("baselines", default), several=several)
        if "internal_batch_size" in takes:
            asked.setdefault("internal_batch_size", max(AT_ONCE, 2 * len(images)))
        if "nt_samples_batch_size" in takes:
            asked.setdefault("nt_samples_batch_size", 1 if "internal_batch_size" in takes else AT_ONCE)
        return asked


def captum_method(what: Any, *, signed: Signed | None = None, **parameters: Any) -> Method:
    """A method of a Captum object or class, or of the name behind `captum/`; `xa.method` comes here.

    Raises:
        ImportError: Captum is not installed.
        TypeError: the class explains no image, or takes no such parameter.
        UnknownNameError: Captum has no class of that name.
    """
    if isinstance(what, Method) and isinstance(what.function, CaptumMethod):
        signed = signed or what.signed
        what = what.function.made or what.function.kind
    if isinstance(what, str):
        what = find_class(what.removeprefix(PREFIX))
    kind = what if isinstance(what, type) else type(what)
    function = CaptumMethod(kind, None if isinstance(what, type) else what)
    captum_checks.explains_an_image(kind)
    _check_parameters(function, parameters)
    names = {c.__name__ for c in kind.__mro__}
    inner = parameters.get("attribution_method", getattr(what, "attribution_method", None))
    inner_name = inner if isinstance(inner, str) else type(inner).__name__
    layered = "LayerAttribution" in names
    return Method(
        PREFIX + kind.__name__,
        function,
        parameters,
        "max_abs" if "Saliency" in (kind.__name__, inner_name) else "abs_sum",
        signed or ("abs" if layered else None),
        "GradientAttribution" in names or inner is not None,
        PASSES.get(kind.__name__),
    )


PASSES: dict[str, Callable[..., tuple[int, int] | None]] = {
    "Saliency": lambda **_: (0, 1),
    "InputXGradient": lambda **_: (0, 1),
    "IntegratedGradients": lambda n_steps=50, **_: (0, n_steps),
}


def find_class(name: str) -> type:
    """The class of `captum.attr` of that name."""
    try:
        library = importlib.import_module("captum.attr")
    except ImportError as error:
        raise ImportError(f"method {PREFIX}{name} needs Captum: {INSTALL}", name="captum") from error
    found = getattr(library, name, None)
    if not isinstance(found, type) or not is_captum(found):
        known = [key for key, value in vars(library).items() if isinstance(value, type) and is_captum(value)]
        raise UnknownNameError("class of captum.attr", name, known)
    return found


def init_keywords(kind: type) -> set[str]:
    """What the class is made with, beside the model."""
    return set(inspect.signature(kind).parameters) - {"forward_func", "model"}


def _check_parameters(function: CaptumMethod, parameters: dict[str, Any]) -> None:
    kind, name = function.kind, PREFIX + function.name
    for key in parameters:
        if key in OURS:
            raise TypeError(f"method {name!r}: {key}= is not for Captum here; {OURS[key]}")
    takes = set(inspect.signature(kind.attribute).parameters) - {"self", "inputs", *OURS}  # type: ignore[attr-defined]
    known = takes - {"kwargs"} | ({"patch"} if "feature_mask" in takes else set())
    if function.made is None:
        known |= init_keywords(kind)
        needed = {k for k, p in inspect.signature(kind).parameters.items() if p.default is p.empty}
        missing = needed - {"forward_func", "model"} - set(parameters)
        if missing:
            words = ", ".join(f"{key}=" for key in sorted(missing))
            raise TypeError(f"method {name!r} needs {words} (of a layer its name in the module, such as 'encoder.3')")
    bind("method", name, parameters, None if "kwargs" in takes else known)
    if "feature_mask" in takes and function.name != "Occlusion" and not {"feature_mask", "patch"} & set(parameters):
        raise TypeError(
            f"method {name!r} takes each number of an image for a feature of its own, which is 150 thousand passes at "
            "192 x 256; give patch=16 (squares of 16 pixels, all channels together) or a feature_mask="
        )


def baselines(subject: Subject, images: Tensor, what: Any, *, several: bool) -> Any:
    """Captum's own 0 is the mean colour of most networks, so a baseline is named: "black" as ever, or any number."""
    if isinstance(what, int | float):
        whole = torch.full_like(images[:1], float(what))
        return torch.cat([whole, whole]) if several else what
    if several and isinstance(what, Tensor):
        return what.detach().to(images).expand(-1, *images.shape[1:])
    try:
        found = [resolve_baseline(subject, images, one) for one in split(what)]
    except TypeError as error:
        raise TypeError(f"{error}; or give baselines=0, Captum's own default") from None
    if several:
        return torch.cat([one.expand(-1, *images.shape[1:]) for one in found])
    if len(found) > 1:
        raise ValueError(f"baselines={what!r}: this method takes one")
    return found[0].expand_as(images)


def patches(images: Tensor, side: int) -> Tensor:
    """Feature mask (1, 1, H, W) of squares, numbered row by row.

    >>> patches(torch.zeros(1, 3, 2, 4), 2).flatten().tolist()
    [0, 0, 1, 1, 0, 0, 1, 1]
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise ValueError(f"patch must be a whole number of pixels of at least 1, not {side!r}")
    height, width = images.shape[-2:]
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    return (rows[:, None] * math.ceil(width / side) + columns)[None, None].to(images.device)


def at_image_size(found: Any, images: Tensor, name: str) -> Tensor:
    """The attribution as it is, or of a layer (B, C', h, w) its sum over the channels, resized bilinearly."""
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    maps: Tensor
    if isinstance(found, Tensor) and found.shape == images.shape:
        maps = found.detach()
        return maps
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != len(images):
        raise NotApplicableError(
            f"{name} returned {shape} for images {tuple(images.shape)}, which has no place in the picture; give a "
            "layer whose output is (B, C, h, w), or for tokens a method that knows their grid (attention_rollout)"
        )
    small = found.detach().sum(1, keepdim=True)
    maps = F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
    return maps[:, 0]
