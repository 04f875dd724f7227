"""Fetch a published weights file once, and keep only what arrived whole."""

from __future__ import annotations

import uuid
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import torch

from xai_assert.errors import CheckpointError
from xai_assert.models.checkpoints import digest, read_state_dict


def download(url: str, target: Path, *, sha256: str | None = None) -> Path:
    """The file at `url`, kept as `target`; one that is there already is not fetched again, unless its hash is wrong.

    What arrives goes to a file of another name, which takes the place of `target` once its SHA-256 is right and it
    reads as a state dict: a file cut short is never taken for whole.

    Raises:
        CheckpointError: with the address, and what to do instead.
    """
    if target.is_file() and sha256 in (None, digest(target)):
        return target
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(part), hash_prefix=sha256, progress=True)
        read_state_dict(part)
        part.replace(target)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{url} could not be downloaded to {target}: {error}. Download it by hand and give its path as weights=; "
            "another folder can be set with the environment variable TORCH_HOME"
        ) from error
    finally:
        with suppress(OSError):  # it was moved, or never made
            part.unlink()
    return target
