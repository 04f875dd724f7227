"""What an attribution method is, how users name one, and how its attribution becomes a heatmap."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from xai_assert import registry
from xai_assert.batching import finite_rows
from xai_assert.errors import DegenerateHeatmapError, NotApplicableError, UnknownNameError
from xai_assert.randomness import ImageId
from xai_assert.subject import Subject
from xai_assert.tasks import Target, at_least_float32

F = TypeVar("F", bound="Callable[..., Tensor | Explained]")
Signed = Literal["as_is", "abs"]
KEYED = ("image_ids", "seed")  # a method that draws random numbers declares these, and is given them
CAPTUM = "captum/"  # before the name of one of its classes


class Explained(NamedTuple):
    """What a method may return where it has more to say than the attribution: numbers (B,) of how it came about, and
    the model's output on the images themselves, if it made that pass."""

    attribution: Tensor
    details: Mapping[str, Tensor] = MappingProxyType({})
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A named attribution method with its parameters; made by `xa.method` and `xa.register_method`.

    `function(model, images, target, **parameters)` returns the attribution, (B, C, H, W) or (B, H, W), or an
    `Explained` with details of each image beside it, which are kept with the scores. `reduction` is
    "max_abs" (largest absolute value over the channels) or "abs_sum" (absolute value of their sum). `gradient` says
    that the map follows the gradient of the target, so that a single-step attack would judge it by itself. `passes`
    are the forward and gradient passes it makes for an image, where that is known (else None). `predicts` says that it
    gives the model's output on the images (`Explained.output`), and asks for the target of no other: then no pass is
    made to know it.

    >>> method("integrated_gradients", steps=64).passes(steps=64)
    (0, 64)
    """

    name: str
    function: Callable[..., Tensor | Explained]
    parameters: dict[str, Any] = field(default_factory=dict)
    reduction: Literal["max_abs", "abs_sum"] = "abs_sum"
    signed: Signed | None = None
    gradient: bool = False
    passes: Callable[..., tuple[int, int] | None] | None = None
    predicts: bool = False

    def __str__(self) -> str:
        return registry.format_spec(self.name, self.parameters)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for two methods that would return the same."""
        return (self.name, self.function, self.reduction, self.signed, registry.parameters_key(self.parameters))

    @property
    def declared_passes(self) -> tuple[int, int] | None:
        """Forward and gradient passes an image, where they are known beforehand."""
        return self.passes(**self.parameters) if self.passes else None

    def attribute(
        self, subject: Subject, images: Tensor, target: Target, *, image_ids: Sequence[ImageId], seed: int
    ) -> Tensor:
        """The attribution of one batch, signed, checked, on the images' device."""
        return self.explain(subject, images, target, image_ids=image_ids, seed=seed).attribution

    def explain(
        self, subject: Subject, images: Tensor, target: Target, *, image_ids: Sequence[ImageId], seed: int
    ) -> Explained:
        """The attribution of one batch, signed, checked, on the images' device, and what the method says of it."""
        keyed = {"image_ids": image_ids, "seed": seed}
        wanted = {key: value for key, value in keyed.items() if key in inspect.signature(self.function).parameters}
        only_predicts = subject.explained.only_predicts
        if self.gradient and only_predicts:
            raise NotApplicableError(f"method {self}: {only_predicts}")
        try:
            found = self.function(subject.explained, images.detach().clone(), target, **wanted, **self.parameters)
        except (NotApplicableError, UnknownNameError) as error:  # it looked for attention, or for a layer
            if only_predicts and only_predicts not in str(error):
                raise NotApplicableError(f"method {self}: {only_predicts}") from error
            raise
        found = found if isinstance(found, Explained) else Explained(found)
        wrong = [name for name, column in found.details.items() if tuple(column.shape) != (len(images),)]
        if wrong:
            raise ValueError(f"method {self} returned details {wrong} that are not one number an image (B,)")
        if self.predicts and found.output is None:
            raise ValueError(f"method {self} is registered with predicts=True, but gave no Explained(..., output=...)")
        return found._replace(attribution=self._checked(found.attribution, images))

    def _checked(self, attribution: Tensor, images: Tensor) -> Tensor:
        if not isinstance(attribution, Tensor):
            raise TypeError(f"method {self} returned a {type(attribution).__name__}, not a tensor")
        batch, channels, height, width = images.shape
        if tuple(attribution.shape) == (batch, 1, height, width) and channels != 1:
            attribution = attribution[:, 0]
        if tuple(attribution.shape) not in ((batch, channels, height, width), (batch, height, width)):
            raise ValueError(
                f"method {self} returned {tuple(attribution.shape)} for images {tuple(images.shape)}; an attribution "
                "is (B, C, H, W) or (B, H, W), at the size of the images"
            )
        return attribution.detach().to(images.device)

    def heatmap(self, attribution: Tensor) -> Tensor:
        """Reduce an attribution to relevance a pixel, (B, H, W) float32."""
        attribution = at_least_float32(attribution)
        if attribution.ndim == 4 and self.reduction == "max_abs":
            heatmap = attribution.abs().amax(1)
        elif attribution.ndim == 4:
            heatmap = attribution.sum(1)
            heatmap = heatmap if self.signed == "as_is" else heatmap.abs()
        else:
            heatmap = attribution.abs() if self.signed == "abs" else attribution
            if self.signed is None and (heatmap < 0).any():
                raise ValueError(
                    f"method {self} returned a map (B, H, W) with negative values, and it is not known what they mean; "
                    "wrap it as xa.method(..., signed='abs') if they matter as much as positive ones, "
                    "or signed='as_is' if they mean least relevant"
                )
        return heatmap.to(torch.float32)


def check_ranks(heatmap: Tensor, image_ids: Sequence[ImageId], method: object) -> None:
    """Refuse a heatmap that ranks no pixel before another.

    Raises:
        DegenerateHeatmapError: for some image the map is constant, or NaN or infinite somewhere.
    """
    flat = heatmap.flatten(1)
    constant = flat.amax(1) == flat.amin(1)
    for what, bad in (("not finite (NaN or infinity)", ~finite_rows(flat)), ("constant", constant)):
        if bad.any():
            ids = [str(i) for i, is_bad in zip(image_ids, bad.tolist(), strict=True) if is_bad]
            raise DegenerateHeatmapError(
                f"the heatmap of {method} is {what} for {len(ids)} of {len(flat)} images ({', '.join(ids[:5])}); "
                "it ranks no pixel, so no fidelity can be taken of it"
            )


def method(what: str | Method | Callable[..., Tensor], *, signed: Signed | None = None, **parameters: Any) -> Method:
    """A method with parameters, by name, from a callable `(model, images, target) -> tensor`, or of Captum's.

    Args:
        what: a registered name, such as "saliency"; "name(key=value)"; a callable; a `captum.attr.Attribution` made of
            the module under test, or "captum/NAME(key=value)" (docs/captum.md).
        signed: what negative values of a (B, H, W) map mean: "abs" (as relevant as positive ones) or "as_is" (less
            relevant than 0).
        **parameters: passed on to the method.

    Raises:
        UnknownNameError: nobody registered that name.
        TypeError: the method takes no such parameter.

    Example:
        >>> str(method("integrated_gradients", steps=64))
        'integrated_gradients(steps=64)'
    """
    if signed not in (None, "as_is", "abs"):
        raise ValueError(f"signed must be 'as_is' or 'abs', not {signed!r}")
    if isinstance(what, str):
        what, given = registry.parse_spec(what, "method")
        parameters = {**given, **parameters}
    elif isinstance(what, Method):
        parameters = {**what.parameters, **parameters}
    if is_captum(what):
        from xai_assert.attributions.captum import captum_method

        return captum_method(what, signed=signed, **parameters)
    if isinstance(what, str):
        found: Method = registry.methods.get(what)
    elif isinstance(what, Method):
        found = what
    elif callable(what):
        found = Method(getattr(what, "__name__", type(what).__name__), what)
    else:
        raise TypeError(f"method must be a name, an xa.method(...) or a callable, not {type(what).__name__}")
    registry.bind("method", found.name, parameters, registry.keywords(found.function, skip=3, given=KEYED))
    return Method(
        found.name,
        found.function,
        parameters,
        found.reduction,
        signed or found.signed,
        found.gradient,
        found.passes,
        found.predicts,
    )


def is_captum(what: object) -> bool:
    """Whether this is an object, a class or a method of Captum's, or the name of one; Captum is not imported to tell.

    >>> is_captum("captum/Saliency"), is_captum("saliency")
    (True, False)
    """
    if isinstance(what, str | Method):
        return (what if isinstance(what, str) else what.name).startswith(CAPTUM)
    kind = what if isinstance(what, type) else type(what)
    return any(c.__name__ == "Attribution" and c.__module__.startswith("captum.") for c in kind.__mro__)


def register_method(
    name: str,
    *,
    reduction: Literal["max_abs", "abs_sum"] = "abs_sum",
    signed: Signed | None = None,
    gradient: bool = False,
    passes: Callable[..., tuple[int, int] | None] | None = None,
    predicts: bool = False,
    replace: bool = False,
) -> Callable[[F], F]:
    """Decorator: give `(model, images, target, *, ...) -> attribution` a name.

    The model is a `Subject` (`model(images)` is a tensor, `model.card` its card), `target` maps the output to (B,). A
    function with the keywords `image_ids` and `seed` is given them, for random numbers keyed by image. See `Method`
    for the other arguments.

    Raises:
        ValueError: the name is taken and `replace` is not set.

    Example:
        >>> from xai_assert import registry
        >>> with registry.isolated():
        ...     @register_method("brightness")
        ...     def brightness(model, images, target):
        ...         return images.mean(1).exp()
        ...     "brightness" in registry.methods.names()
        True
    """

    def decorate(function: F) -> F:
        entry = Method(name, function, {}, reduction, signed, gradient, passes, predicts)
        registry.methods.register(name, entry, replace=replace)
        return function

    return decorate
