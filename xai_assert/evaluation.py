"""Evaluation: the streaming engine. All cells of a (subject, method) in one pass, memory bounded by a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from torch import Tensor, nn

from xai_assert.acceleration import Accelerated, acceleration_error
from xai_assert.artefacts import Artefact, check_twin
from xai_assert.attributions import Method, as_method
from xai_assert.batching import BatchSizer, ImageSource, Passes, Samples, counted, run_batches
from xai_assert.cost import Spent, passes_an_image
from xai_assert.datasets import scenes
from xai_assert.early import ShuffledSource
from xai_assert.errors import Failure
from xai_assert.evidence import Develop, Keep, Keeper, Kept
from xai_assert.metrics import Cell, FaithfulnessCell, FaithfulnessScore, FidelityCell, FidelityScore, Metric, Score
from xai_assert.metrics.faithfulness import GROUPS, Mode
from xai_assert.metrics.fidelity import Aggregate, AsrRule, Reference, check_rules
from xai_assert.metrics.prepared import Measured
from xai_assert.perturbations import Perturbation
from xai_assert.perturbations import perturbation as as_perturbation
from xai_assert.preserve import undisturbed
from xai_assert.provenance import SameWeights, versions
from xai_assert.randomness import ImageId
from xai_assert.registry import models
from xai_assert.store import Shelf, Store
from xai_assert.subject import as_subject
from xai_assert.table import Found, Table, joined
from xai_assert.tasks import Target, Task


class NotYetMeasured(Exception):
    """An early gate asked for a cell that the images measured so far do not have."""


Enough = Callable[[Method], int | None]


class EvaluationOptions(TypedDict, total=False):
    """What an `Evaluation` takes beside subject and images; metrics and assertions pass it on."""

    ground_truth: Tensor | None
    image_ids: Sequence[ImageId] | None
    seed: int
    target: Target | None
    batch_size: int | str
    task: str | Task | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    unit: str | None


class Evaluation:
    """One subject on one set of images. Accepted by every metric and assertion in place of (subject, images).

    The first score asked of a method computes all cells planned for it (`plan`) in one streaming pass; what stays in
    memory is a few numbers an image. Each fidelity cell costs two forward passes an image, beside one clean forward
    and one attribution for the method (of saliency they are one pass), and one gradient for each attack.

    Args:
        subject: a `Subject`, or a bare module (then say `task=`, and `mean=, std=` where a colour is needed).
        images: the network's input (B, C, H, W), already preprocessed, or a data set (`xai_assert.batching.Samples`);
            None, for a registered model, stands for the 24 bundled scenes.
        ground_truth: (B, H', W') in the card's unit at the output's size; 0 or not finite where unknown. Of classes
            labels, (B,) or (B, H', W').
        image_ids: names of a tensor's images, which key its random draws; the positions by default.
        seed: of everything drawn at random.
        target: output -> (B,), the scalar that is explained; the task's default otherwise.
        batch_size: images at a time, or "auto".
        task, mean, std, unit: for a bare module, see `xa.describe`.

    Example:
        >>> import torch
        >>> ev = Evaluation(nn.Conv2d(3, 1, 1), torch.rand(4, 3, 8, 8), task="depth")
        >>> ev.attribution_fidelity("edges", perturbation="gaussian_noise").metric
        'af'
    """

    def __init__(
        self,
        subject: nn.Module,
        images: Tensor | Samples | None = None,
        *,
        ground_truth: Tensor | None = None,
        image_ids: Sequence[ImageId] | None = None,
        seed: int = 0,
        target: Target | None = None,
        batch_size: int | str = "auto",
        task: str | Task | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        unit: str | None = None,
    ) -> None:
        self.subject = as_subject(subject, task=task, mean=mean, std=std, unit=unit)
        if images is None and self.subject.name.removesuffix("-random") in models.names():
            images = scenes(self.subject.card)
        self.source = ImageSource(
            images, ground_truth=ground_truth, image_ids=image_ids, channels=self.subject.card.channels
        )
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"seed must be a whole number, not {seed!r}")
        self.seed = seed
        self.passes = Passes()
        self.progress: Callable[[str, int, int], None] = lambda what, done, total: None  # told after each batch
        self.keep: Keep = "none"  # of which images what they were shown is kept, for pictures
        self.develop: Develop | None = None  # makes pictures of it at once if all images are kept
        self.enough: Enough | None = None  # how many images of a method are enough, if what was measured tells
        self.store: Store | None = None  # attributions on disk, which need not be computed again
        self._target = target
        self._sizer = BatchSizer(batch_size, self.subject.device)
        self._planned: dict[Any, dict[Any, Cell]] = defaultdict(dict)
        self._outcomes: dict[Any, dict[Any, Found | Failure]] = defaultdict(dict)
        self._ids: tuple[ImageId, ...] = ()
        self._weights = SameWeights(self.subject)
        self._spent = Spent(self.passes)
        self._keepers: dict[Any, Keeper] = {}
        self._task = self.subject.card.task  # or as the first output shows
        self._acceleration: dict[str, Any] | None = None  # how, and how far it moves the predictions
        self._artefact: dict[str, Any] | None = None  # where predictions and maps come from, and how far apart they are
        self._shelves: dict[Any, Shelf] = {}  # of the store, by method
        self._asking = False  # `enough` looks at what was measured so far

    def __repr__(self) -> str:
        return f"<Evaluation of {self.subject.name} on {len(self.source)} images, seed {self.seed}>"

    def plan(self, method: Any, cells: Iterable[Cell]) -> None:
        """Have these cells computed together with the first one that is asked of the method."""
        wanted = as_method(method)
        for cell in cells:
            self._planned[wanted.key].setdefault(cell.key, cell)

    def shuffle(self) -> None:
        """Visit the images in a random order from now on, so that one may stop early.

        Raises:
            ValueError: images were visited in their own order already.
        """
        if isinstance(self.source, ShuffledSource):
            return
        if self._ids:
            raise ValueError(
                "early visits the images in random order, but this Evaluation has measured some in theirs; "
                "make a new Evaluation, or ask what is early first"
            )
        self.source = ShuffledSource(self.source, self.seed)

    def attribution_fidelity(
        self,
        method: Any,
        *,
        perturbation: str | Perturbation = "gaussian_noise",
        fraction: float = 0.05,
        reference: Reference = "prediction",
        aggregate: Aggregate = "image",
        asr: AsrRule = "relevant",
    ) -> FidelityScore:
        """See `xa.attribution_fidelity`."""
        check_rules(reference, aggregate, asr)
        wanted, cell = as_method(method), FidelityCell(as_perturbation(perturbation), fraction)
        ids, measured = self._measured(wanted, cell)
        about = self._provenance(wanted, cell) | {"reference": reference, "aggregate": aggregate, "asr": asr}
        if cell.perturbation.gradients:
            about["attacked"] = "ground_truth" if "clean_error" in measured else "target"
        return FidelityScore.build(
            measured,
            ids,
            reference=reference,
            aggregate=aggregate,
            asr=asr,
            unit=self.subject.card.unit,
            circular=wanted.gradient and cell.perturbation.single_step,
            provenance=about,
        )

    def faithfulness_estimate(
        self,
        method: Any,
        *,
        perturbation: str | Perturbation = "gaussian_noise",
        groups: int = GROUPS,
        mode: Mode = "single",
    ) -> FaithfulnessScore:
        """See `xa.faithfulness_estimate`."""
        wanted, cell = as_method(method), FaithfulnessCell(as_perturbation(perturbation), groups, mode)
        ids, measured = self._measured(wanted, cell)
        return FaithfulnessScore.build(
            measured, ids, groups=groups, mode=mode, provenance=self._provenance(wanted, cell)
        )

    def score(self, method: Any, cell: Cell, metric: Metric) -> Score:
        """Any metric, from the cell that measures it."""
        wanted = as_method(method)
        ids, measured = self._measured(wanted, cell)
        return metric.score(measured, ids, unit=self.subject.card.unit, provenance=self._provenance(wanted, cell))

    def has_measured(self, method: Any, cell: Cell) -> bool:
        """Whether asking for it costs no pass."""
        found = self._outcomes[as_method(method).key].get(cell.key)
        return found is not None and not isinstance(found, Failure)

    def passes_of(self, method: Any) -> Passes:
        """The passes that this method has cost so far, in images."""
        return self._spent.of(as_method(method).key)

    def expected_passes(self, method: Any) -> Passes | None:
        """The passes that the cells measured need; None if a method does not say its own, or a cell failed."""
        wanted = as_method(method)
        outcomes = self._outcomes[wanted.key]
        counts = [0 if isinstance(found, Failure) else len(found[0]) for found in outcomes.values()]
        each = passes_an_image(wanted, [self._planned[wanted.key][key] for key in outcomes])
        if each is None or not all(counts):
            return None
        shelf = self._shelves.get(wanted.key)
        spared = shelf.spared(self._ids[: max(counts)]) if shelf else Passes()
        # the store asks for the clean prediction first; of an artefact no method makes it, and its twin is asked too
        apart = self.subject.explained is not self.subject
        clean = max(counts) * (int(wanted.predicts and (bool(shelf) or apart)) + int(bool(shelf) and apart))
        return Passes(each.forward * max(counts) + clean, each.gradient * max(counts)) - spared

    def take_evidence(self, method: Any, perturbation: str | Perturbation, fraction: float) -> list[Kept]:
        """What was kept (`keep`) while a fidelity cell was measured, the worst image first. It is large: given once."""
        cell = FidelityCell(as_perturbation(perturbation), fraction)
        keeper = self._keepers.get(as_method(method).key)
        return keeper.take(cell.key) if keeper else []

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        """The ids of the images, once a score was measured."""
        return self._ids

    def image(self, image_id: ImageId) -> Tensor:
        """One image (C, H, W) by its id."""
        if image_id not in self._ids:
            raise KeyError(f"{image_id!r} is not among the {len(self._ids)} images measured so far")
        position = self._ids.index(image_id)
        return self.source.batch(position, position + 1).images[0]

    def _measured(self, method: Method, cell: Cell) -> Found:
        cell = self._planned[method.key].setdefault(cell.key, cell)
        done = self._outcomes[method.key]
        if self._asking and cell.key not in done:
            raise NotYetMeasured(f"{cell.key} of {method}")
        to_run = not self._asking and self._is_open(method, cell.key)
        if not self._asking:
            self._weights.check(measured=not to_run)
        if to_run:
            todo = [c for key, c in self._planned[method.key].items() if self._is_open(method, key)]
            try:
                self._run(method, todo)
            except Exception as error:  # the attribution itself failed: so did every cell that stands on it
                done.update({c.key: Failure.of(error) for c in todo})
        outcome = done[cell.key]
        if isinstance(outcome, Failure):
            raise outcome.error.with_traceback(outcome.trace)
        return outcome

    def _is_open(self, method: Method, key: Any) -> bool:
        """Whether a cell was not measured yet, or ended earlier than is asked for now."""
        outcome = self._outcomes[method.key].get(key)
        if outcome is None or isinstance(outcome, Failure):
            return outcome is None
        count = len(outcome[0])
        return count < len(self.source) and self._stop(method, count) is None

    def _stop(self, method: Method, count: int) -> int | None:
        """How many of the `count` images measured are enough; None if all of them are not."""
        if self.enough is None:
            return None
        self._asking = True
        try:
            wanted = self.enough(method)
        except NotYetMeasured:
            return None
        finally:
            self._asking = False
        return wanted if wanted is not None and wanted <= count else None

    def _run(self, method: Method, cells: Sequence[Cell]) -> None:
        """One streaming pass over the images; an error in a cell ends that cell alone.

        With `enough` it ends early. What a batch had measured beyond that is left out, so that the size of a batch
        changes no score.
        """
        stop: int | None = None
        parts: dict[Any, list[Measured]] = {cell.key: [] for cell in cells}
        ids: list[ImageId] = []
        if self.keep != "none":
            self._keepers.setdefault(method.key, Keeper(self.keep, self.subject.card, self.develop))
        if self.store:
            shelf = Shelf(self.store, self.subject, self._weights.fingerprint, method, self.seed)
            self._shelves.setdefault(method.key, shelf)
        table = Table(
            self.subject,
            method,
            cells,
            target=self._target,
            seed=self.seed,
            sizer=self._sizer,
            shelf=self._shelves.get(method.key),
            keeper=self._keepers.get(method.key),
        )
        failed = table.failed
        self._measure_acceleration()
        self._compare_with_twin()
        with self._spent.by(method.key), undisturbed(self.subject), counted(self.subject, self.passes):
            self.progress(f"{self.subject.name} {method}", 0, len(self.source))
            for batch_ids, measured in run_batches(self.source, self._sizer, table.measure):
                ids += batch_ids
                self.progress(f"{self.subject.name} {method}", len(ids), len(self.source))
                for key, values in measured.items():
                    parts[key].append(values)
                if self.enough:
                    self._outcomes[method.key].update(failed | joined(parts, ids, failed))
                    stop = self._stop(method, len(ids))
                if stop is not None or len(failed) == len(cells):
                    break
        self._task = table.task
        if len({str(i) for i in ids}) != len(ids):
            raise ValueError("images: two images of the data set have the same id, so they would share random draws")
        self._ids = max(self._ids, tuple(ids[:stop]), key=len)
        self._outcomes[method.key].update(failed | joined(parts, ids, failed, stop))

    def _measure_acceleration(self) -> None:
        """Once, on the first images; these passes are nobody's."""
        if isinstance(self.subject, Accelerated) and self._acceleration is None:
            batch = self.source.batch(0, min(self._sizer.size, len(self.source)))
            with undisturbed(self.subject), undisturbed(self.subject.exact):
                error = acceleration_error(self.subject, batch.images.to(self.subject.device))
            self._acceleration = {"what": self.subject.how, "error": error}

    def _compare_with_twin(self) -> None:
        """Once, of an artefact; these passes are nobody's."""
        if isinstance(self.subject, Artefact) and self._artefact is None:
            with undisturbed(self.subject):
                self._artefact = check_twin(self.subject, self.source, self._sizer.size)

    def _provenance(self, method: Method, cell: Cell) -> dict[str, Any]:
        card = self.subject.card
        outcome, shelf = self._outcomes[method.key].get(cell.key), self._shelves.get(method.key)
        served = shelf.served(outcome[0]) if shelf and isinstance(outcome, tuple) else 0
        return {
            "model": card.name,
            "weights": card.weights,
            "fingerprint": self._weights.fingerprint,
            "task": self._task.name if self._task else None,
            "method": str(method),
            "perturbation": str(cell.perturbation) if cell.perturbation else None,
            "seed": self.seed,
            "device": self._weights.device,
            **({"images": len(self.source), "order": "random"} if isinstance(self.source, ShuffledSource) else {}),
            **({"served": served} if served else {}),
            **({"acceleration": self._acceleration} if self._acceleration else {}),
            **({"artefact": self._artefact} if self._artefact else {}),
            "versions": versions(),
            **cell.about(),
        }
