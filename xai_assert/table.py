"""The cells of one method, measured batch by batch: their passes share full batches, and what they found comes to the
CPU at once."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xai_assert.attributions import Method
from xai_assert.attributions.gradients import input_gradient
from xai_assert.batching import Batch, BatchSizer, without_gradient
from xai_assert.errors import Failure
from xai_assert.evidence import Keeper
from xai_assert.metrics import Cell, FidelityCell
from xai_assert.metrics.fidelity import Seen, sign_agreement
from xai_assert.metrics.prepared import Measured, Prepared, check_finite, prepare
from xai_assert.packing import Packer, Steps
from xai_assert.perturbations import Perturbation, Perturbed, decided_by_lot, warn_of_ties
from xai_assert.randomness import ImageId
from xai_assert.store import Shelf
from xai_assert.subject import Subject
from xai_assert.tasks import Target

Found = tuple[tuple[ImageId, ...], Measured]  # of these images
BY_LOT = "by_lot"  # a column that is looked at and left out of what is kept


class Table:
    """The cells of a method on a subject. An error in a cell ends that cell alone, and is kept in `failed`."""

    def __init__(
        self,
        subject: Subject,
        method: Method,
        cells: Sequence[Cell],
        *,
        target: Target | None,
        seed: int,
        sizer: BatchSizer,
        shelf: Shelf | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.subject, self.method = subject, method
        self.failed: dict[Any, Failure] = {}
        self.task = subject.card.task  # of a card that does not say, as its first output shows
        self._cells = cells
        self._by_perturbation: dict[Any, list[Cell]] = defaultdict(list)
        for cell in cells:
            self._by_perturbation[cell.perturbation and cell.perturbation.key].append(cell)
        self._target, self._seed, self._sizer = target, seed, sizer
        self._shelf, self._keeper = shelf, keeper

    def measure(self, batch: Batch) -> tuple[tuple[ImageId, ...], dict[Any, Measured]]:
        """The ids of a batch, and what its cells found by their key; those that failed, now or before, are left out."""
        prepared = prepare(self.subject, self.method, batch, target=self._target, seed=self._seed, shelf=self._shelf)
        self.task = prepared.task
        packer = Packer(functools.partial(without_gradient, self.subject), self._sizer.size // len(batch))
        found: dict[Any, Measured] = {}
        seen: dict[Any, list[Seen]] = defaultdict(list)
        for same in self._by_perturbation.values():
            open_cells = [cell for cell in same if cell.key not in self.failed]
            try:
                if open_cells:
                    perturb = self._perturbed(open_cells[0].perturbation, prepared)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.failed.update({cell.key: Failure.of(error) for cell in open_cells})
                continue
            for cell in open_cells:
                steps = self._steps(cell, prepared, perturb, seen[cell.key] if self._keeper else None)
                finished = functools.partial(found.__setitem__, cell.key)
                packer.add(steps, finished, functools.partial(self._fail, cell.key))
        packer.finish()
        return batch.ids, self._settled(prepared, found, seen)

    def _fail(self, key: Any, error: Exception) -> None:
        self.failed[key] = Failure.of(error)

    def _steps(self, cell: Cell, prepared: Prepared, perturb: Perturbed, seen: list[Seen] | None) -> Steps[Measured]:
        """What a cell measures of a batch, on the device where the batch lies."""
        cell.check((prepared.images.shape[2], prepared.images.shape[3]))
        if not isinstance(cell, FidelityCell):
            measured = cell.measure(prepared, perturb)
            return (yield from measured) if isinstance(measured, Generator) else measured
        found: Measured = yield from cell.measure(prepared, perturb, seen)
        found |= prepared.details
        found[BY_LOT] = decided_by_lot(prepared.heatmap, prepared.ranking, cell.fraction)
        if cell.perturbation.single_step and self.method.gradient and perturb.field is not None:
            step = perturb.field - prepared.images
            found["sign_agreement"] = sign_agreement(prepared.attribution, _attack_direction(prepared) * step)
        return found

    def _settled(
        self, prepared: Prepared, found: Mapping[Any, Measured], seen: Mapping[Any, list[Seen]]
    ) -> dict[Any, Measured]:
        """What a batch found, on the CPU and checked; an error in a cell ends that cell alone."""
        settled: dict[Any, Measured] = {}
        on_cpu = _on_cpu(found)
        for cell in self._cells:
            measured = on_cpu.get(cell.key)
            if measured is None:
                continue
            try:
                if BY_LOT in measured and isinstance(cell, FidelityCell):
                    warn_of_ties(measured.pop(BY_LOT), cell.fraction, self.method)
                under = f" perturbed by {cell.perturbation}" if cell.perturbation else ""
                columns = torch.cat([column.reshape(len(column), -1) for column in measured.values()], 1)
                check_finite(columns, prepared.image_ids, self.subject, under)
                if self._keeper and seen.get(cell.key):
                    self._keeper.look(cell.key, prepared, seen[cell.key], measured)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self._fail(cell.key, error)
            else:
                settled[cell.key] = measured
        return settled

    def _perturbed(self, what: Perturbation | None, prepared: Prepared) -> Perturbed:
        if what is None:
            return Perturbed(prepared.images)

        def loss(output: Tensor) -> Tensor:
            if prepared.truth is None:
                return _attack_direction(prepared) * prepared.target(output)
            return prepared.task.loss(prepared.task.read(output), prepared.truth)

        def gradient(images: Tensor | None = None) -> Tensor:
            return input_gradient(self.subject.explained, prepared.images if images is None else images, loss)

        ids, card = prepared.image_ids, self.subject.card
        return what.on(prepared.images, card=card, image_ids=ids, seed=self._seed, gradient=gradient)


def _attack_direction(prepared: Prepared) -> int:
    """1 where an attack raises the target, -1 where it lowers it; with labels it does so by raising their loss."""
    return -1 if prepared.task.attack_lowers_target else 1


def _on_cpu(found: Mapping[Any, Measured]) -> dict[Any, Measured]:
    """In float64 on the CPU, all cells in one transfer."""
    columns = [column for measured in found.values() for column in measured.values()]
    if not columns:
        return {}
    flat = torch.cat([column.reshape(len(column), -1).double() for column in columns], 1).cpu()
    parts = iter(torch.split(flat, [column.shape[1:].numel() for column in columns], dim=1))
    return {
        key: {name: next(parts).reshape(column.shape) for name, column in measured.items()}
        for key, measured in found.items()
    }


def joined(
    parts: Mapping[Any, list[Measured]],
    ids: Sequence[ImageId],
    failed: Mapping[Any, Failure],
    stop: int | None = None,
) -> dict[Any, Found]:
    """What the batches of each cell gave, as one; of the first `stop` images."""
    return {
        key: (tuple(ids[:stop]), {name: torch.cat([part[name] for part in found])[:stop] for name in found[0]})
        for key, found in parts.items()
        if found and key not in failed
    }
