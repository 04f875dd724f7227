"""Attributions on disk: a run need not compute again what an earlier one did, or another worker. Off unless asked for.

A map is served only where everything that made it is the same, as far as it can be told; where it cannot, the map is
not stored at all. A wrong map would be worse than a lost minute.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from xai_assert.attributions.base import Explained, Method
from xai_assert.batching import Passes
from xai_assert.map_keys import Unnamed, digest, map_keys
from xai_assert.randomness import ImageId
from xai_assert.subject import Subject
from xai_assert.tasks import Target

LIMIT = 2 * 2**30  # bytes
KEEP = 0.9  # of the limit stays when it is passed, so that not every write has to clear away
LOOK = 0.01  # of the limit may be written before the folder is added up again, which other workers fill too
STALE = 3600.0  # seconds: no write takes as long, so an older temporary file is of a process that died
TOLERANCE = 1e-4  # of a prediction's range: other batch sizes move it by about 1e-6 (float32), other code by more
DETAIL = "detail "  # before its name in a file
ENTRY = re.compile(r"[0-9a-f]{40}\.map\.safetensors")  # nothing else in the folder is ever touched
PART = re.compile(r"[0-9a-f]{40}\.[0-9a-f]{32}\.part")


class StoreWarning(UserWarning):
    """The store cannot be written; the run goes on without."""


class StoredMapError(ValueError):
    """A map of an earlier run, in a run that is to judge only what it computed itself."""


class Entry(NamedTuple):
    """What is kept of an image: its attribution (C, H, W) or (H, W), its clean prediction, the run they are of, and
    what the method says of the attribution, a number each."""

    attribution: Tensor
    clean: Tensor
    run: str
    details: Mapping[str, Tensor] = MappingProxyType({})


class Store:
    """A folder of attributions, shared by runs and by workers; see docs/cache.md.

    Args:
        folder: made when the first map is stored.
        limit: bytes; beyond it those that were read least recently are deleted.
        strict: a map of an earlier run is an error, where it would be served.
        run: the name of this run, if several processes make it.

    Raises:
        ValueError: the limit is not above 0, or the folder is a file.

    Example:
        >>> import tempfile
        >>> from xai_assert.evaluation import Evaluation
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Softplus())
        >>> images = torch.rand(4, 3, 8, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in range(2):
        ...         ev = Evaluation(network, images, task="depth")
        ...         ev.store = Store(folder)
        ...         _ = ev.attribution_fidelity("saliency", perturbation="gaussian_noise")
        ...         print(ev.passes.gradient)
        4
        0
    """

    def __init__(self, folder: str | Path, limit: float = LIMIT, *, strict: bool = False, run: str = "") -> None:
        self.folder = Path(folder).expanduser().absolute()
        if not limit > 0:
            raise ValueError(f"limit must be above 0 bytes, not {limit!r}")
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"the store {self.folder} is a file; give a folder")
        self.limit = limit
        self.strict = strict
        self.run = run or uuid.uuid4().hex
        self.served = self.written = self.broken = self.outdated = 0  # entries, of this process
        self._unseen = float("inf")  # bytes written since the folder was added up
        self._warned = False

    def __repr__(self) -> str:
        counts = f"{self.served} served, {self.written} written, {self.broken} broken, {self.outdated} outdated"
        return f"<Store {self.folder}: {counts}>"

    def find(self, key: str, clean: Tensor) -> Entry | None:
        """The entry of that key, if it is whole and of this clean prediction; otherwise it is to be written anew."""
        path = self._path(key)
        try:
            entry = read_entry(path.read_bytes(), key)
        except OSError:  # there is none, or another worker just deleted it
            return None
        except Exception:  # whatever a damaged file raises is the same news
            self.broken += 1
            return None
        if not agree(entry.clean, clean):
            self.outdated += 1
            return None
        self.served += 1
        with suppress(OSError):
            os.utime(path)
        return entry

    def put(self, key: str, attribution: Tensor, clean: Tensor, details: Mapping[str, Tensor] | None = None) -> None:
        """Write an entry in one step: whoever reads finds all of it or none, also if this process is killed here.

        A machine that loses its power may leave half of one, which its checksum tells.

        Warns:
            StoreWarning: it cannot be written; said once.
        """
        content = entry_bytes(key, Entry(attribution, clean, self.run, details or {}))
        part = self.folder / f"{key}.{uuid.uuid4().hex}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(content)
                part.replace(self._path(key))
            finally:
                part.unlink(missing_ok=True)
            self.written += 1
            self._unseen += len(content)
            if self._unseen > LOOK * self.limit:
                self._clear_away()
        except OSError as error:
            if not self._warned:
                why = error.strerror or error
                words = f"the store {self.folder} cannot be written ({why}); the run goes on without"
                warnings.warn(words, StoreWarning, stacklevel=2)
            self._warned = True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.map.safetensors"

    def _clear_away(self) -> None:
        """Delete what died half written, and what was read least recently, until the folder is within its limit."""
        self._unseen = 0.0
        entries = []
        with os.scandir(self.folder) as items:
            for item in items:
                with suppress(FileNotFoundError):  # another worker was faster
                    if ENTRY.fullmatch(item.name):
                        entries.append((item.stat().st_mtime_ns, item.stat().st_size, item.path))
                    elif PART.fullmatch(item.name) and time.time() - item.stat().st_mtime > STALE:
                        os.unlink(item.path)
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, path in sorted(entries):
            if total <= KEEP * self.limit:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size


class Shelf:
    """What a store has of one method on one subject with these weights, and which images it gave."""

    def __init__(self, store: Store, subject: Subject, fingerprint: str, method: Method, seed: int) -> None:
        self.store = store
        self.subject = subject
        self.method = method
        self.seed = seed
        self._fingerprint = fingerprint
        self._computed: set[ImageId] = set()
        self._given: set[ImageId] = set()
        self._of_earlier_runs: set[ImageId] = set()

    def attributed(self, images: Tensor, clean: Tensor, target: Target, *, image_ids: Sequence[ImageId]) -> Explained:
        """The attribution of a batch: what is stored, and the rest computed as one smaller batch, and stored.

        Raises:
            StoredMapError: the store is strict, and has one of an earlier run.
        """
        kept = clean.detach().cpu()
        keys = self._keys(images, target, image_ids)
        entries = [key and self.store.find(key, now) for key, now in zip(keys, kept, strict=True)]
        self._note(image_ids, entries)
        maps = {i: Explained(entry.attribution, entry.details) for i, entry in enumerate(entries) if entry}
        missing = [i for i in range(len(images)) if i not in maps]
        if missing:
            ids = [image_ids[i] for i in missing]
            found = self.method.explain(self.subject, images[missing], target, image_ids=ids, seed=self.seed)
            self._computed.update(ids)
            for n, i in enumerate(missing):
                maps[i] = Explained(found.attribution[n], {name: column[n] for name, column in found.details.items()})
                if keys[i] and torch.isfinite(found.attribution[n]).all():
                    self.store.put(keys[i], maps[i].attribution, kept[i], maps[i].details)
        return _joined([maps[i] for i in range(len(images))], images.device)

    def served(self, image_ids: Iterable[ImageId]) -> int:
        """Of these images, those whose map is of an earlier run."""
        return len(self._of_earlier_runs.intersection(image_ids))

    def spared(self, image_ids: Iterable[ImageId]) -> Passes:
        """The passes that these images would have cost here, if the method says what it costs."""
        count = len((self._given - self._computed).intersection(image_ids))
        forward, gradient = self.method.declared_passes or (0, 0)
        return Passes(count * forward, count * gradient)

    def _note(self, image_ids: Sequence[ImageId], entries: Sequence[Entry | str | None]) -> None:
        for image_id, entry in zip(image_ids, entries, strict=True):
            if not isinstance(entry, Entry):
                continue
            self._given.add(image_id)
            if entry.run == self.store.run:
                continue
            self._of_earlier_runs.add(image_id)
            if self.store.strict:
                raise StoredMapError(
                    f"the map of {self.method} for image {image_id} is of an earlier run (the store "
                    f"{self.store.folder}), which --xai-strict refuses; leave --xai-cache out, or allow it with "
                    "--xai-strict-cache"
                )

    def _keys(self, images: Tensor, target: Target, image_ids: Sequence[ImageId]) -> list[str]:
        """A key for each image; empty where it cannot be told what makes the map."""
        about = (self.subject, self._fingerprint, self.method, target, images)
        try:
            return map_keys(*about, image_ids=image_ids, seed=self.seed)
        except Unnamed:
            return [""] * len(images)


def agree(stored: Tensor, now: Tensor) -> bool:
    """Whether two clean predictions of an image are one: then the code that made the map is taken to be the same.

    The prediction is kept and compared, and not rounded into the key: of its thousands of pixels some always lie on
    the border between two rounded values, so that the key would hardly ever be found again.

    >>> stored = torch.tensor([1.0, 3.0])
    >>> agree(stored, torch.tensor([1.0, 3.0001])), agree(stored, torch.tensor([1.0, 3.001]))
    (True, False)
    """
    if stored.shape != now.shape:
        return False
    stored, now = stored.double(), now.double()
    span = stored.max() - stored.min()
    scale = span if span > 0 else stored.abs().max()
    return bool((stored - now).abs().max() <= TOLERANCE * scale)


def entry_bytes(key: str, entry: Entry) -> bytes:
    """An entry as the bytes of a safetensors file, with a checksum of all that will be read of it."""
    tensors = {"attribution": entry.attribution, "clean": entry.clean}
    tensors |= {DETAIL + name: column for name, column in entry.details.items()}
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    about = {"key": key, "run": entry.run, "checksum": _checksum(key, entry.run, tensors)}
    return safetensors.torch.save(tensors, about)


def read_entry(content: bytes, key: str) -> Entry:
    """The inverse of `entry_bytes`.

    Raises:
        Exception: of any kind, for bytes that are damaged, or of another key.
    """
    tensors = safetensors.torch.load(content)
    header = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + header])["__metadata__"]
    if about["checksum"] != _checksum(key, about["run"], tensors):
        raise ValueError(f"the entry {key} is damaged")
    details = {name.removeprefix(DETAIL): column for name, column in tensors.items() if name.startswith(DETAIL)}
    return Entry(tensors["attribution"], tensors["clean"], about["run"], details)


def _joined(each: Sequence[Explained], device: torch.device) -> Explained:
    """One batch of single images, on a device."""
    names = each[0].details.keys()
    details = {name: torch.stack([one.details[name].to(device) for one in each]) for name in names}
    return Explained(torch.stack([one.attribution.to(device) for one in each]), details)


def _checksum(key: str, run: str, tensors: dict[str, Tensor]) -> str:
    return digest(key, run, *(part for name, tensor in sorted(tensors.items()) for part in (name, tensor)))
