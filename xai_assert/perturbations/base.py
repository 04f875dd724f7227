"""What a perturbation is and how users name one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xai_assert import registry
from xai_assert.randomness import ImageId
from xai_assert.subject import Card

CONTEXT = ("card", "image_ids", "seed", "gradient", "mask")


Gradient = Callable[..., Tensor]  # gradient() of the attacked loss at the images, or gradient(others) at others


@dataclass(frozen=True, eq=False)
class Perturbed:
    """A perturbation at work on one batch: `perturbed(mask)` are the images with the pixels of the mask perturbed.

    `field` (B, C, H, W) is the whole picture perturbed, of which the pixels are taken; it is None where what a pixel
    becomes depends on which others are perturbed, and `fill(mask)` says what.
    """

    images: Tensor
    field: Tensor | None = None
    fill: Callable[[Tensor], Tensor] | None = None

    def __call__(self, mask: Tensor) -> Tensor:
        if self.field is not None:
            return torch.where(mask, self.field, self.images)
        return self.images if self.fill is None else torch.where(mask, self.fill(mask), self.images)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A named perturbation with its parameters; made by `xa.perturbation` and `xa.register_perturbation`.

    `function(images, *, ...)` returns the whole picture perturbed, (B, C, H, W); only the selected pixels are taken
    from it, so R and I see the same field. A function with the keyword `mask` is given the pixels that will be taken.
    `gradient` says that it costs one gradient pass (or, of its parameters, how many), `single_step` that it is an
    attack of one step from the clean input: gradient maps are judged by themselves then (`circular`).

    >>> perturbation("fgsm").single_step
    True
    """

    name: str
    function: Callable[..., Tensor]
    parameters: dict[str, Any] = field(default_factory=dict)
    gradient: bool | Callable[..., int] = False
    single_step: bool = False

    def __str__(self) -> str:
        return registry.format_spec(self.name, self.parameters)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for two perturbations that would do the same."""
        return (self.name, self.function, registry.parameters_key(self.parameters))

    @property
    def gradients(self) -> int:
        """Gradient passes an image."""
        return self.gradient(**self.parameters) if callable(self.gradient) else int(self.gradient)

    def on(
        self, images: Tensor, *, card: Card, image_ids: Sequence[ImageId], seed: int, gradient: Gradient
    ) -> Perturbed:
        """Ready to perturb pixels of these images (B, C, H, W)."""
        context = {"card": card, "image_ids": image_ids, "seed": seed, "gradient": gradient}
        wanted = inspect.signature(self.function).parameters
        known = {key: value for key, value in context.items() if key in wanted}
        if "mask" in wanted:
            return Perturbed(images, fill=lambda mask: self._run(images, mask=mask, **known))
        return Perturbed(images, self._run(images, **known))

    def _run(self, images: Tensor, **known: Any) -> Tensor:
        perturbed = self.function(images.clone(), **known, **self.parameters)  # a function may write on its argument
        if not isinstance(perturbed, Tensor) or perturbed.shape != images.shape:
            got = tuple(perturbed.shape) if isinstance(perturbed, Tensor) else type(perturbed).__name__
            raise ValueError(f"perturbation {self} returned {got} for images {tuple(images.shape)}; it must be alike")
        return perturbed.detach().to(images)


def perturbation(what: str | Perturbation, **parameters: Any) -> Perturbation:
    """A perturbation with parameters, by name.

    Raises:
        UnknownNameError: nobody registered that name.
        TypeError: it takes no such parameter.

    Example:
        >>> str(perturbation("gaussian_noise", sigma=0.4))
        'gaussian_noise(sigma=0.4)'
    """
    if isinstance(what, Perturbation):
        found, parameters = what, {**what.parameters, **parameters}
    elif isinstance(what, str):
        name, given = registry.parse_spec(what, "perturbation")
        found = registry.perturbations.get(name)
        parameters = {**given, **parameters}
    else:
        raise TypeError(f"perturbation must be a name or an xa.perturbation(...), not {type(what).__name__}")
    registry.bind("perturbation", found.name, parameters, registry.keywords(found.function, skip=1, given=CONTEXT))
    return Perturbation(found.name, found.function, parameters, found.gradient, found.single_step)


def register_perturbation(
    name: str, *, gradient: bool | Callable[..., int] = False, single_step: bool = False, replace: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator: give `(images, *, ...) -> perturbed images` a name.

    The function may declare `card`, `image_ids`, `seed` (for keyed randomness), `gradient` (a call returns the gradient
    (B, C, H, W) of the attacked loss at the images, or at those it is given) and `mask` (B, 1, H, W), and is given
    them; other keywords are its parameters. It returns the whole picture perturbed. See `Perturbation` for the flags.

    Raises:
        ValueError: the name is taken and `replace` is not set.

    Example:
        >>> from xai_assert import registry
        >>> with registry.isolated():
        ...     @register_perturbation("negative")
        ...     def negative(images, *, scale=1.0):
        ...         return -scale * images
        ...     "negative" in registry.perturbations.names()
        True
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        registry.perturbations.register(name, Perturbation(name, function, {}, gradient, single_step), replace=replace)
        return function

    return decorate


def positive(what: str, value: float) -> float:
    """A strength, checked."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{what} must be a positive number, not {value!r}")
    return value


def whole(what: str, value: int, least: int) -> int:
    """A whole number, checked."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return value


def arrays(images: Tensor) -> npt.NDArray[np.float64]:
    """Images in float64 on the CPU: what is made of them there is the same for any device and batch."""
    return images.detach().cpu().double().contiguous().numpy()


def clipped(images: Tensor, card: Card) -> Tensor:
    """Keep the picture between black and white."""
    black, white = card.colour((0.0, 0.0, 0.0)).to(images), card.colour((1.0, 1.0, 1.0)).to(images)
    return torch.maximum(torch.minimum(images, white), black)
