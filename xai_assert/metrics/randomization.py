"""Parameter randomisation (Adebayo et al., 1810.03292): an explanation of the model has to change with the model."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from xai_assert import randomness
from xai_assert.attributions import Method
from xai_assert.errors import NotApplicableError
from xai_assert.metrics.cell import Cell
from xai_assert.metrics.fidelity import check_choice
from xai_assert.metrics.infidelity import check_count
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.prepared import Measured, Prepared
from xai_assert.metrics.ranks import spearman
from xai_assert.perturbations import Perturbed
from xai_assert.subject import Subject

Order = Literal["cascading", "independent"]
LAYERS = 5
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and torch.compile: the network inside is the same


@dataclass(frozen=True, eq=False)
class RandomizationCell(Cell):
    """Heatmaps of a copy with redrawn layers against the model's own: `layers` explanations.

    The copy is made for the first batch and serves all of them.
    """

    mode: Order = "cascading"
    layers: int = LAYERS
    copies: WeakKeyDictionary[nn.Module, Redrawn] = field(default_factory=WeakKeyDictionary, repr=False)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("cascading", "independent"))
        check_count("layers", self.layers)

    @property
    def key(self) -> tuple[object, ...]:
        return ("randomization", self.mode, self.layers)

    @property
    def explanations(self) -> tuple[Method | None, ...]:
        return (None,) * self.shown

    @property
    def shown(self) -> int:
        """How many layers are redrawn: a small model, once it is known, may have fewer than were asked for."""
        return min([self.layers, *(len(redrawn.layers) for redrawn in self.copies.values())])

    def measure(self, batch: Prepared, perturb: Perturbed) -> Measured:
        module, before = batch.subject.explained.module, batch.heatmap.flatten(1)
        redrawn = self.copies.get(module)
        if redrawn is None or redrawn.seed != batch.seed:
            redrawn = self.copies[module] = Redrawn(module, batch.seed)
        found, dead = [], []
        for depth in spread(len(redrawn.layers), self.layers):
            redrawn.show(module, redrawn.layers[0 if self.mode == "cascading" else depth : depth + 1])
            changed = batch.explain(subject=Subject(redrawn.module, batch.subject.card))
            after = batch.method.heatmap(changed).flatten(1)
            found.append(spearman(before, after).abs())
            dead.append(after.amax(1) == after.amin(1))
        correlations = torch.stack(found, 1)
        return {
            "sensitivity": 1 - correlations.mean(1),
            "correlations": correlations,
            "constant": torch.stack(dead, 1).double().mean(1),
        }

    def about(self) -> dict[str, Any]:
        return {"mode": self.mode, "layers": self.shown}


RANDOMIZATION = Metric(
    "randomization_sensitivity",
    "1810.03292",
    lambda measured: measured["sensitivity"],
    range=(0.0, 1.0),
    caveat="any map that follows the weights passes, also a wrong one: it finds maps that ignore the model",
)


class Redrawn:
    """A copy of a module of which any layers can be shown redrawn. `layers` are their parameters, output first.

    A layer is a module with floating-point parameters of its own, also one that is not called. The layers stand in the
    order in which they were registered, reversed; parameters of the module itself (tokens, position embeddings) are
    nearest to the input. Buffers, running means of a BatchNorm among them, are data and stay.
    """

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.seed = seed
        self.layers = layers_of(module)[::-1]
        if not self.layers:
            raise NotApplicableError(f"{type(module).__name__} has no parameters that could be redrawn")
        own = dict(module.named_parameters())
        self._drawn = {name: redraw(own[name], name, seed) for layer in self.layers for name in layer}
        try:
            self.module = copy.deepcopy(module)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            words = f"{type(module).__name__} cannot be copied, so its layers cannot be redrawn: {error}"
            raise NotApplicableError(words) from error

    def show(self, original: nn.Module, layers: Iterable[Sequence[str]]) -> None:
        """Make the copy the original but for these layers."""
        chosen, own = {name for layer in layers for name in layer}, dict(original.named_parameters())
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(self._drawn[name] if name in chosen else own[name])


def layers_of(module: nn.Module) -> list[list[str]]:
    """The names of the parameters of each layer, in the order of registration; a shared one belongs to the first.

    >>> layers_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    [['0.weight', '0.bias'], ['2.weight', '2.bias']]
    """
    wanted = {name for name, p in module.named_parameters() if p.is_floating_point() and p.numel()}
    owners = (
        [name for name, _ in owner.named_parameters(path, recurse=False)] for path, owner in module.named_modules()
    )
    layers = ([name for name in names if name in wanted] for names in owners)
    return [names for names in layers if names]


def redraw(parameter: Tensor, name: str, seed: int) -> Tensor:
    """Normal numbers like the parameter, on the CPU, keyed by its name, with the root mean square of its values.

    So the scales of a norm, all 1, become N(0, 1). Where all values are 0 the deviation is 1 / sqrt(fan in).
    """
    scale = float(parameter.detach().double().square().mean().sqrt())
    if not scale:
        scale = (parameter.shape[1:].numel() if parameter.ndim > 1 else parameter.numel()) ** -0.5
    name = WRAPPERS.sub("", name)
    drawn = randomness.normal(parameter.shape, seed=seed, image_ids=[name], purpose="parameter randomisation")[0]
    return (scale * drawn).to(parameter.dtype)


def spread(count: int, chosen: int) -> list[int]:
    """Up to `chosen` of 0..count-1, spread evenly with both ends; one alone is the last.

    >>> spread(9, 5), spread(2, 5), spread(9, 1)
    ([0, 2, 4, 6, 8], [0, 1], [8])
    """
    chosen = min(chosen, count)
    return [count - 1 - round((count - 1) * k / max(1, chosen - 1)) for k in reversed(range(chosen))]
