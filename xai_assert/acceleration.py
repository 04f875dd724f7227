"""Faster passes at the price of other roundings: channels last, autocast, torch.compile. Off unless asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.artefacts import Artefact
from xai_assert.batching import without_gradient
from xai_assert.errors import UnknownNameError
from xai_assert.subject import Card, Subject, as_subject
from xai_assert.tasks import infer_task

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
WORDS = ("channels_last", *DTYPES, "compile")


class Accelerated(Subject):
    """A subject whose passes are made another way; made by `xa.accelerate`. `exact` is the subject as it was."""

    def __init__(self, subject: Subject, *, channels_last: bool, autocast: torch.dtype | None, compiled: bool) -> None:
        module = subject.module
        if channels_last:
            module = copy.deepcopy(module).to(memory_format=torch.channels_last)
        super().__init__(module, subject.card)
        self._exact = (subject,)  # in a tuple, so that it is no part of this module
        self._channels_last = channels_last
        self._compiled: Callable[..., Any] | None = torch.compile(module.forward) if compiled else None
        self.precision = autocast

    @property
    def exact(self) -> Subject:
        return self._exact[0]

    @property
    def how(self) -> str:
        """What was asked for, in the words of `--xai-accelerate`."""
        on = (self._channels_last, *(self.precision == dtype for dtype in DTYPES.values()), self._compiled is not None)
        return ", ".join(word for word, is_on in zip(WORDS, on, strict=True) if is_on)

    def with_card(self, card: Card) -> Subject:
        return accelerate(self.exact.with_card(card), self.how.split(", "))

    def forward(self, images: Tensor) -> Tensor:
        if self._channels_last and isinstance(images, Tensor) and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None), self._faster():
            return super().forward(images)

    @contextmanager
    def _faster(self) -> Iterator[None]:
        """The compiled forward, but for passes in which somebody looks into the module: a graph runs no hooks."""
        inner = (m for m in self.module.modules() if m is not self.module)
        if self._compiled is None or any(m._forward_hooks or m._forward_pre_hooks for m in inner):
            yield
            return
        self.module.forward = self._compiled  # of this instance alone, for this pass
        try:
            yield
        finally:
            del self.module.forward


def accelerate(subject: nn.Module, what: str | Sequence[str], **describing: Any) -> Subject:
    """A subject that computes the same faster, within its rounding; the subject and its module are left as they are.

    How far the predictions move by it is measured on the first batch of an evaluation and stands in every score
    (`provenance["acceleration"]`) and among the marks of the table.

    Args:
        subject: a `Subject`, or a bare module (then `task=` and so on, see `xa.describe`).
        what: one or several of "channels_last" (a copy of the module in that layout of memory), "bfloat16" or
            "float16" (autocast), and "compile" (`torch.compile`; methods that look into the module run it as it is).

    Raises:
        UnknownNameError: another word.
        ValueError: nothing, or both precisions.
        TypeError: the subject is an artefact.

    Example:
        >>> fast = accelerate(nn.Conv2d(3, 1, 1), ["channels_last", "bfloat16"], task="depth")
        >>> fast(torch.rand(2, 3, 8, 8)).dtype
        torch.bfloat16
    """
    words = [what] if isinstance(what, str) else list(what)
    dtypes = check_words(words)
    exact = as_subject(subject, **describing)
    exact = exact.exact if isinstance(exact, Accelerated) else exact
    if isinstance(exact, Artefact):
        raise TypeError(f"accelerate: {exact.name} is an artefact, which is judged as it is shipped; leave it out")
    precision = dtypes[0] if dtypes else None
    return Accelerated(exact, channels_last="channels_last" in words, autocast=precision, compiled="compile" in words)


def check_words(words: Sequence[str]) -> list[torch.dtype]:
    """Refuse what is not known or does not go together; the precision, if one is asked for."""
    for word in words:
        if word not in WORDS:
            raise UnknownNameError("acceleration", str(word), WORDS)
    dtypes = {DTYPES[word] for word in words if word in DTYPES}
    if not words or len(dtypes) > 1:
        given = ", ".join(words) or "nothing"
        raise ValueError(f"accelerate: give one or several of {', '.join(WORDS)}, of the precisions one, not {given}")
    return list(dtypes)


def acceleration_error(subject: Accelerated, images: Tensor) -> float | None:
    """How far the predictions of these images (B, C, H, W) move: the largest error relative to max |f(x)|.

    None if the subject has no task to take an error of.
    """
    outputs = [without_gradient(one, images) for one in (subject, subject.exact)]
    task = subject.card.task or infer_task(outputs[1])
    if task is None:
        return None
    fast, exact = map(task.read, outputs)
    return float((task.error(fast, exact) / task.magnitude(exact).clamp(min=torch.finfo(exact.dtype).tiny)).max())
