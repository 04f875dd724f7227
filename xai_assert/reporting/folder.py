"""The report folder: results.json, the pictures, report.html."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xai_assert.reporting.record import Record
from xai_assert.reporting.results import replace_file, write
from xai_assert.subject import slug

PICTURES = "pictures"
RESULTS, PAGE = "results.json", "report.html"


def write_folder(document: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Write everything that a run leaves behind, a step at a time: results.json, which nothing else can bring back,
    then pictures and page. Yields the file of each step.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        ValueError: a number is NaN or infinite.
    """
    from xai_assert.reporting.html import render

    strips = take_strips(document["cells"])
    yield write(document, folder / RESULTS)
    save_pictures(strips, document["cells"], folder)
    yield replace_file(folder / PAGE, render(document, folder))


def take_strips(records: Sequence[Record]) -> dict[str, bytes]:
    """Take the pictures out of the records, which keep the names of their files."""
    strips: dict[str, bytes] = {}
    for record in records:
        for picture in record.get("pictures", []):
            if "webp" in picture:
                words = (record.get("cell") or record.get("nodeid") or "", record["fraction"], picture["image_id"])
                name = f"{len(strips):04d}-{slug('-'.join(map(str, words)))[:120]}.webp"
                strips[name] = base64.b64decode(picture.pop("webp"))
                picture["file"] = f"{PICTURES}/{name}"
    return strips


def save_pictures(strips: Mapping[str, bytes], records: Sequence[Record], folder: Path) -> None:
    """Write the pictures, and take those of an earlier run away: it may have been of other, private, images."""
    home = folder / PICTURES
    kept = {Path(picture["file"]).name for record in records for picture in record.get("pictures") or []}
    for old in home.glob("*.webp"):
        if old.name not in kept:
            old.unlink()
    if strips:
        home.mkdir(parents=True, exist_ok=True)
    for name, content in strips.items():
        (home / name).write_bytes(content)
