"""Fetch a published weights file once, whole and unaltered, however many processes ask for it at a time."""

from __future__ import annotations

import os
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import platformdirs
from filelock import FileLock
from tqdm import tqdm

from xai_assert.errors import CheckpointError
from xai_assert.models.checkpoints import digest, read_state_dict

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**20


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable XAI_ASSERT_HOME, or the user's cache folder.

    >>> cache_folder().is_absolute()
    True
    """
    home = os.environ.get("XAI_ASSERT_HOME")
    return Path(home).expanduser().absolute() if home else platformdirs.user_cache_path("xai-assert", appauthor=False)


def download(url: str, target: Path, *, sha256: str | None = None) -> Path:
    """The file at `url`, kept as `target`; one that is there already is not fetched again, unless its hash is wrong.

    What arrives goes to a file of another name, which takes the place of `target` once it is complete, its SHA-256 is
    right and it reads as a state dict. One process fetches at a time; the others wait, and find the file.

    Raises:
        CheckpointError: with the address, and which file to put where instead.
    """
    if _is_there(target, sha256):
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_there(target, sha256):
                try:
                    _fetch(url, part)
                    _check(part, sha256)
                    part.replace(target)
                finally:
                    with suppress(OSError):  # it was moved, or never made
                        part.unlink()
    except (OSError, HTTPException, NotImplementedError, ValueError) as error:
        wrong = "; the file that is there has another SHA-256" if target.is_file() else ""
        raise CheckpointError(
            f"{url} could not be downloaded: {error}{wrong}. Without a connection, fetch it elsewhere and put it at "
            f"{target}, or give its path as weights=; another folder for downloads can be set with XAI_ASSERT_HOME"
        ) from error
    return target


def _is_there(target: Path, sha256: str | None) -> bool:
    return target.is_file() and sha256 in (None, digest(target))


def _fetch(url: str, part: Path) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as file:
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        with tqdm(total=total, desc=url.rpartition("/")[2], unit="B", unit_scale=True, unit_divisor=1024) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _check(part: Path, sha256: str | None) -> None:
    """
    Raises:
        CheckpointError: another SHA-256 than the known one, or no state dict.
    """
    found = digest(part)
    if sha256 is not None and found != sha256:
        raise CheckpointError(f"what arrived has the SHA-256 {found}, not {sha256}")
    read_state_dict(part)
