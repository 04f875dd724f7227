"""The integral of the gradient from a baseline to an image, with as many gradients as each image needs.

The path is cut into panels that are narrow near the baseline: there networks with normalisation layers see an almost
constant image, and most of the integral arises. A panel is integrated by the trapezoidal rule, of which halving the
intervals reuses every gradient; how far that moved its part of the map is its residual, and the panel with the largest
one is refined next, image by image. So gradients go where the *map* still changes. (Where the sum of the map misses
f(x) - f(b) is a cheaper sign, but refining there makes a worse map.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xai_assert.attributions.gradients import value_and_gradient
from xai_assert.tasks import Target, at_least_float32, for_rows

PANELS = 8
# Of 20 photographs with METER-XXS the error at 97 gradients differs by a few per cent between 2.5 and 5.
GRADING = 3.5
EDGES = [math.expm1(GRADING * i / PANELS) / math.expm1(GRADING) for i in range(PANELS + 1)]
FEWEST = 2 * PANELS + 1  # gradients: the ends of all panels, and their middles
VARIATION = 0.05  # the share of the path's total variation below which f(x) - f(b) is no scale for a gap
ROUNDING = 1e-5  # of the largest |f| on the path: a gap below it is that of float32


class Node(NamedTuple):
    """A gradient to take: of which image, where on its path, and with what weight it enters which panels."""

    row: int
    alpha: float
    shares: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Integrated:
    """The integral (B, C, H, W) and, for each image (B,), the gradients used and the two signs of convergence.

    `gap` is |sum of the integral - (f(x) - f(b))|, relative to |f(x) - f(b)| or, if that is larger, to 5 % of the
    total variation of f on the path. `map_change` is the L1 distance of the map (summed over the channels) to the one
    from half of the same gradients, relative to the L1 norm of the map; of METER-XXS on photographs it is 1.5 to 2
    times the distance to the converged map.
    """

    integral: Tensor
    gradients: Tensor
    gap: Tensor
    map_change: Tensor


def integrate(
    model: nn.Module, images: Tensor, start: Tensor, target: Target, *, tolerance: float, most: int
) -> Integrated:
    """Integrate until gap and map change of an image are at most `tolerance`, or it has used `most` gradients.

    Args:
        model, images, target: as for every method; images (B, C, H, W).
        start: the baseline, broadcasts to the images.
        tolerance: of `Integrated.gap` and `Integrated.map_change`.
        most: gradients an image, at least 17. Memory holds the sums of 8 panels for each image.
    """
    path = _Path(model, images, start, target)
    path.refine([(row, panel) for row in range(len(images)) for panel in range(PANELS)])
    while wanted := path.open_panels(tolerance, most):
        path.refine(wanted)
    return path.result()


class _Path:
    def __init__(self, model: nn.Module, images: Tensor, start: Tensor, target: Target) -> None:
        self.model, self.target = model, target
        self.start = start.expand_as(images)
        self.path = images - self.start
        count, _, height, width = images.shape
        self.sums = at_least_float32(images).new_zeros(count, PANELS, *images.shape[1:])  # of gradient x path
        self.moved = self.sums.new_zeros(count, PANELS, height, width)  # a panel's map, by its last refinement
        self.steps = [[1] * PANELS for _ in range(count)]  # intervals of each panel
        self.values: list[dict[float, float]] = [{} for _ in range(count)]  # f on the path
        for panel in range(PANELS + 1):
            shares = [(p, 0.5) for p in (panel - 1, panel) if 0 <= p < PANELS]
            self.add([Node(row, EDGES[panel], tuple(shares)) for row in range(count)])

    def refine(self, wanted: Sequence[tuple[int, int]]) -> None:
        """Halve the intervals of these panels of these images."""
        rows, panels = (torch.tensor(column, device=self.sums.device) for column in zip(*wanted, strict=True))
        before = self.maps(wanted)
        nodes = []
        for row, panel in wanted:
            steps = self.steps[row][panel]
            low, width = EDGES[panel], (EDGES[panel + 1] - EDGES[panel]) / steps
            nodes += [Node(row, low + (i + 0.5) * width, ((panel, 1.0),)) for i in range(steps)]
            self.steps[row][panel] = 2 * steps
        self.add(nodes)
        self.moved[rows, panels] = self.maps(wanted) - before

    def maps(self, wanted: Sequence[tuple[int, int]]) -> Tensor:
        """What these panels give to the map of their image, (n, H, W)."""
        found = [self.sums[row, panel].sum(0) * self.interval(row, panel) for row, panel in wanted]
        return torch.stack(found)

    def interval(self, row: int, panel: int) -> float:
        return (EDGES[panel + 1] - EDGES[panel]) / self.steps[row][panel]

    def add(self, nodes: Sequence[Node]) -> None:
        """Take these gradients, a batch as large as that of the images at a time."""
        values: list[Tensor] = []
        for first in range(0, len(nodes), len(self.path)):
            part = nodes[first : first + len(self.path)]
            rows = torch.tensor([node.row for node in part], device=self.path.device)
            alphas = self.sums.new_tensor([node.alpha for node in part])[:, None, None, None]
            at = (self.start[rows] + self.path[rows] * alphas).to(self.path)  # half precision has no such places
            value, gradient = value_and_gradient(self.model, at, for_rows(self.target, rows, len(self.path)))
            values.append(value)
            change = gradient.to(self.sums) * self.path[rows]
            for i, node in enumerate(part):
                for panel, weight in node.shares:
                    self.sums[node.row, panel].add_(change[i], alpha=weight)
        for node, value_there in zip(nodes, torch.cat(values).tolist(), strict=True):
            self.values[node.row][node.alpha] = value_there

    def weights(self) -> Tensor:
        """The width of an interval, (B, PANELS)."""
        widths = [[self.interval(row, panel) for panel in range(PANELS)] for row in range(len(self.steps))]
        return self.sums.new_tensor(widths)

    def total(self) -> Tensor:
        """The integral so far, (B, C, H, W)."""
        return torch.einsum("bp...,bp->b...", self.sums, self.weights())

    def convergence(self) -> tuple[list[float], list[float]]:
        """Gap and map change of each image."""
        total = self.total()
        norm = total.sum(1).abs().flatten(1).sum(1)
        moved = self.moved.sum(1).abs().flatten(1).sum(1)
        sums = total.double().flatten(1).sum(1)
        changes = torch.where(moved > 0, moved / norm, moved)  # nothing moved: 0, though there be no map
        return [gap(s, v) for s, v in zip(sums.tolist(), self.values, strict=True)], changes.tolist()

    def open_panels(self, tolerance: float, most: int) -> list[tuple[int, int]]:
        """Of each image that is not done, the panel to refine: where the map moved most or, once the map is at rest,
        where the sum misses most of what f did."""
        moved = self.moved.abs().flatten(2).sum(2).tolist()
        missed = self.missed()
        wanted = []
        for row, (gap_now, change) in enumerate(zip(*self.convergence(), strict=True)):
            residual = moved[row] if change > tolerance else missed[row]
            left = most - len(self.values[row])
            affordable = [panel for panel in range(PANELS) if self.steps[row][panel] <= left]
            finite = math.isfinite(gap_now + change)
            if affordable and finite and max(gap_now, change) > tolerance:
                wanted.append((row, max(affordable, key=residual.__getitem__)))
        return wanted

    def missed(self) -> list[list[float]]:
        """|sum of a panel's integral - what f changes over it|, of each image."""
        sums = (self.sums.double().flatten(2).sum(2) * self.weights()).tolist()
        found = []
        for row, values in zip(sums, self.values, strict=True):
            ends = [values[edge] for edge in EDGES]
            found.append([abs(s - (b - a)) for s, (a, b) in zip(row, itertools.pairwise(ends), strict=True)])
        return found

    def result(self) -> Integrated:
        gaps, changes = self.convergence()
        used = [len(values) for values in self.values]
        return Integrated(self.total(), *(torch.tensor(column).double() for column in (used, gaps, changes)))


def gap(total: float, values: dict[float, float]) -> float:
    """How far the sum of an integral is from f(x) - f(b), relative; `values` are f at 0, 1 and between.

    >>> gap(5.0, {0.0: 0.0, 1.0: 4.0})
    0.25
    """
    along = [values[alpha] for alpha in sorted(values)]
    change = along[-1] - along[0]
    variation = sum(abs(after - before) for before, after in itertools.pairwise(along))
    scale = max(abs(change), VARIATION * variation, ROUNDING * max(map(abs, along)))
    return abs(total - change) / scale if total != change else 0.0
