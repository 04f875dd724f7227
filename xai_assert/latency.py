"""What an attribution costs: passes of the model, and time in multiples of one forward pass of the same images."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from xai_assert.assertions import failure
from xai_assert.attributions import Method, as_method, choose_target
from xai_assert.batching import Passes, Samples, counted, without_gradient
from xai_assert.cost import timed
from xai_assert.evaluation import Evaluation
from xai_assert.explain import circumstances
from xai_assert.metrics import Score
from xai_assert.metrics.score import ALL_IMAGES
from xai_assert.preserve import undisturbed
from xai_assert.provenance import versions
from xai_assert.reporting import record
from xai_assert.scores import Subjectlike, as_evaluation
from xai_assert.tasks import Target, Task
from xai_assert.verdicts import Bound

CHUNK = 4  # images at a time
SECONDS = 2.0  # for the rounds of one method
FEWEST, MOST = 3, 20  # rounds of the attribution
FORWARDS = 5  # at most, in each round: a short forward needs more tries to its minimum than a long attribution


@dataclass(frozen=True, eq=False, repr=False)
class LatencyScore(Score):
    """The time of an attribution over the time of one forward pass (`value`), and what else it costs.

    `passes` are forward and gradient passes an image, exact; `seconds` and `forward_seconds` an image, the minimum of
    `rounds`; `peak_memory` in bytes on CUDA (all that was allocated, weights included), else None. Seconds and bytes
    are for information: they belong to one machine.

    >>> network, images = torch.nn.Conv2d(3, 1, 1), torch.rand(2, 3, 8, 8)
    >>> score = attribution_latency(network, "saliency", images, task="depth", rounds=1)
    >>> score.passes, score.passes_per_image
    ((0.0, 1.0), 1.0)
    """

    passes: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0
    forward_seconds: float = 0.0
    rounds: int = 0
    peak_memory: int | None = None

    @property
    def passes_per_image(self) -> float:
        """Forward and gradient passes an image."""
        return sum(self.passes)

    @property
    def images_per_second(self) -> float:
        """How many images are explained in a second."""
        return 1 / self.seconds if self.seconds else float("inf")

    def of_passes(self) -> Score:
        """`passes_per_image` as a score of its own, for a bound or a gate."""
        value = torch.tensor([self.passes_per_image], dtype=torch.float64)
        return Score(value, (ALL_IMAGES,), "passes_per_image", "passes", False, self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        own = {
            "forward_passes": self.passes[0],
            "gradient_passes": self.passes[1],
            "milliseconds": 1000 * self.seconds,
            "forward_milliseconds": 1000 * self.forward_seconds,
            "images_per_second": self.images_per_second if self.seconds else None,
            "rounds": self.rounds,
            "peak_memory": self.peak_memory,
        }
        return super().to_dict() | own


class Pair:
    """A chunk of images, explained and predicted by turns; each turn is timed, and passes are counted.

    The target is chosen beforehand, from a prediction that is part of neither. To be used inside `undisturbed`.
    """

    def __init__(self, evaluation: Evaluation, method: Any, batch_size: int) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        self.subject, self.method, self.seed = evaluation.subject, as_method(method), evaluation.seed
        batch = evaluation.source.batch(0, min(batch_size, len(evaluation.source)))
        self.images, self.ids = batch.images.to(self.subject.device), batch.ids
        self.target = choose_target(self.subject, evaluation._target, without_gradient(self.subject, self.images))
        self.forwards: list[float] = []
        self.attributions: list[float] = []
        self.counts: list[Passes] = []
        self.peak: int | None = None
        self.tries = FORWARDS

    def forward(self) -> None:
        """Time bare forward passes: up to 5, as many as take about as long as the attribution."""
        for _ in range(self.tries):
            self.forwards.append(timed(self.subject.device, lambda: without_gradient(self.subject, self.images))[0])

    def attribute(self) -> Tensor:
        """Time one attribution, and count its passes."""
        device, spent = self.subject.device, Passes()
        explain = functools.partial(
            self.method.attribute, self.subject, self.images, self.target, image_ids=self.ids, seed=self.seed
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with counted(self.subject, spent):
            seconds, attribution = timed(device, explain)
        if device.type == "cuda":
            self.peak = max(self.peak or 0, torch.cuda.max_memory_allocated(device))
        self.tries = max(1, min(FORWARDS, int(seconds / min(self.forwards))))
        self.attributions.append(seconds)
        self.counts.append(spent)
        return attribution

    def warm_up(self) -> int:
        """One round, kept if it alone fills `SECONDS`; and how many to make: as fit into that time, from 3 to 20."""
        self.forward()
        self.attribute()
        cost = self.attributions[0] + self.tries * min(self.forwards)
        if cost < SECONDS:
            self.forwards, self.attributions = [], []
        return max(FEWEST, min(MOST, int(SECONDS / cost)))

    def score(self) -> LatencyScore:
        """The minimum of the rounds of each: whatever else a machine does only adds."""
        count, most = len(self.images), max(self.counts, key=lambda spent: spent.forward + spent.gradient)
        seconds, forward = min(self.attributions) / count, min(self.forwards) / count
        ratio = torch.tensor([seconds / forward], dtype=torch.float64)
        return LatencyScore(
            ratio,
            (ALL_IMAGES,),
            "forward_ratio",
            "forward passes",
            False,
            self._provenance(),
            range=(0.0, math.inf),
            passes=(most.forward / count, most.gradient / count),
            seconds=seconds,
            forward_seconds=forward,
            rounds=len(self.attributions),
            peak_memory=self.peak,
        )

    def _provenance(self) -> dict[str, Any]:
        card, device = self.subject.card, self.subject.device
        return {
            "model": card.name,
            "weights": card.weights,
            "fingerprint": self.subject.fingerprint(),
            "method": str(self.method),
            "seed": self.seed,
            "batch_size": len(self.images),
            "size": list(self.images.shape[1:]),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }


_remembered: weakref.WeakKeyDictionary[Evaluation, dict[Any, LatencyScore]] = weakref.WeakKeyDictionary()


def remember(evaluation: Evaluation, method: Any, score: LatencyScore) -> LatencyScore:
    """Have the evaluation answer with this score when it is asked again."""
    _remembered.setdefault(evaluation, {})[as_method(method).key] = score
    return score


class LatencyOptions(TypedDict, total=False):
    """What `attribution_latency` takes beside subject, method and images."""

    rounds: int | None
    batch_size: int | None
    target: Target | None
    seed: int
    task: str | Task | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


def attribution_latency(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    rounds: int | None = None,
    batch_size: int | None = None,
    target: Target | None = None,
    seed: int = 0,
    task: str | Task | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LatencyScore:
    """What an attribution costs an image: passes, counted exactly, and time in multiples of one forward pass.

    One chunk of images is explained and predicted by turns, `rounds` times after a warm-up; the minimum of each is
    taken, and their ratio is the score. Counted and timed is the method alone. The prediction from which the default
    target is chosen (the class of a classifier) is not part of it: whoever explains a prediction has made it before.

    Milliseconds, images a second and memory are for information: another machine has others, while the passes are the
    same everywhere and the ratio is nearly so, most of all with one thread (`OMP_NUM_THREADS=1`).

    Args:
        subject: a `Subject`, a bare module (then say `task=`), or an `Evaluation` in place of (subject, images), which
            measures each method once and then remembers.
        method: a name, an `xa.method(...)`, or a callable `(model, images, target) -> tensor`.
        images: the network's input (B, C, H, W), or a data set; the first `batch_size` of them are used.
        rounds: of the attribution; by default as many as fit into 2 seconds, from 3 to 20.
        batch_size: images at a time, in the attribution and in the forward pass that it is compared with; 4 by default.
        target, seed, task, mean, std: as for `xa.attribute`.

    Raises:
        ValueError: rounds or batch_size is no whole number of at least 1.
        What `xa.attribute` raises.

    Example:
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> cost = attribution_latency(nn.Conv2d(3, 1, 1), "integrated_gradients(steps=7)", images,
        ...                            task="depth", mean=[0.5] * 3, std=[0.25] * 3)
        >>> cost.passes, cost.passes_per_image
        ((0.0, 7.0), 7.0)
    """
    if rounds is not None and (not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1):
        raise ValueError(f"rounds must be None or a whole number of at least 1, not {rounds!r}")
    given: dict[str, Any] = {"target": target, "seed": seed or None, "task": task, "mean": mean, "std": std}
    evaluation = as_evaluation(subject, images, {name: value for name, value in given.items() if value is not None})
    known = _remembered.get(evaluation, {}).get(as_method(method).key)
    if known and rounds is None and batch_size in (None, known.provenance["batch_size"]):
        return known
    with undisturbed(evaluation.subject):
        pair = Pair(evaluation, method, CHUNK if batch_size is None else batch_size)
        wanted = pair.warm_up()
        while len(pair.attributions) < (rounds or wanted):
            pair.forward()
            pair.attribute()
    return remember(evaluation, method, pair.score())


def assert_attribution_latency(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    max_passes: float | None = None,
    max_forward_ratio: float | None = None,
    **options: Unpack[LatencyOptions],
) -> LatencyScore:
    """Assert bounds on what an attribution costs; see `xa.attribution_latency` for what is measured.

    Args:
        max_passes: forward and gradient passes an image, compared exactly.
        max_forward_ratio: time an image in multiples of one forward pass; leave room, 25 % on a shared machine.
        (the others): as for `xa.attribution_latency`.

    Raises:
        AssertionError: it costs more; the error carries `.score`.
        TypeError: no bound was given.

    Example:
        >>> from torch import nn
        >>> assert_attribution_latency(nn.Conv2d(3, 1, 1), "saliency", torch.rand(4, 3, 8, 8), task="depth",
        ...                            max_passes=1).passes
        (0.0, 1.0)
    """
    __tracebackhide__ = True
    if max_passes is None and max_forward_ratio is None:
        raise TypeError("an assertion needs a bound: give max_passes= or max_forward_ratio=")
    bounds = {
        "passes_per_image": None if max_passes is None else Bound(max=max_passes, label="_passes"),
        "forward_ratio": None if max_forward_ratio is None else Bound(max=max_forward_ratio, label="_forward_ratio"),
    }
    cost = attribution_latency(subject, method, images, **options)
    scores = {"passes_per_image": cost.of_passes(), "forward_ratio": cost}
    gates = [_judged(name, scores[name].value, bound) for name, bound in bounds.items() if bound]
    missed = "; and ".join(gate["because"] for gate in gates if gate["because"])
    record.add(lambda: record.make_record(scores, gates, "fail" if missed else "pass"))
    if missed:
        raise failure(cost, _text(cost, as_method(method), missed), None)
    return cost


def _judged(name: str, value: float, bound: Bound) -> record.Record:
    limit = bound.max or 0
    if value <= limit:
        return record.gate_record(name, str(bound), "pass", "")
    shown = "{:g}" if name == "passes_per_image" else "{:.1f}"
    unit = "passes" if name == "passes_per_image" else "forward passes' time"
    words = f"{shown.format(value)} {unit} an image, above {bound} (by {shown.format(value - limit)})"
    return record.gate_record(name, str(bound), "fail", words)


def _text(cost: LatencyScore, method: Method, missed: str) -> str:
    about, test, count = cost.provenance, record.current(), cost.provenance["batch_size"]
    declared = method.declared_passes
    passes = f"passes an image: {cost.passes[0]:g} forward, {cost.passes[1]:g} gradient"
    passes += f"; the method says that it makes {declared[0]} and {declared[1]}" if declared else ""
    times = f"{1000 * cost.seconds:.1f} ms, a forward pass {1000 * cost.forward_seconds:.1f} ms"
    rounds = f"minimum of rounds: {cost.rounds}, images at a time: {count}, threads: {about['threads']}"
    memory = f"; peak memory {cost.peak_memory / 2**20:.0f} MiB" if cost.peak_memory else ""
    call = f"xa.attribution_latency(subject, {about['method']!r}, images, batch_size={count})"
    lines = [f"{about['method']} on {about['model']} costs {missed}", passes]
    lines += [f"time an image, for information: {times}; {rounds}{memory}", circumstances(cost)]
    return "\n  ".join([*lines, f"reproduce: {test.reproduce if test else call}"])
