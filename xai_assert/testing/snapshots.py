"""Heatmap snapshots on syrupy: how they are named, stored and compared, and the picture of a failure."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import SnapshotCollections
from syrupy.extensions.single_file import SingleFileSnapshotExtension
from syrupy.location import PyTestLocation

from xai_assert.errors import DataError
from xai_assert.stored_heatmap import Difference, StoredHeatmap, compare
from xai_assert.subject import slug
from xai_assert.testing.flags import option

LONGEST_PART = 100  # letters of a name's part; a file name has at most 255


class Content(bytes):
    """The bytes of a stored heatmap, which are no text to print."""

    def __repr__(self) -> str:
        return f"<stored heatmap, {len(self)} bytes>"

    __str__ = __repr__


class HeatmapSnapshot(SnapshotAssertion):
    """The fixture `heatmap_snapshot`: a snapshot that refuses to be compared with anything but a `StoredHeatmap`."""

    __array_ufunc__ = None  # else NumPy would compare pixel by pixel, and `(array == snapshot).any()` be a quiet False

    seen: dict[str, Any]  # by the name of a file, what it is of

    @classmethod
    def of(cls, snapshot: SnapshotAssertion) -> HeatmapSnapshot:
        found = cls(
            session=snapshot.session,
            extension_class=HeatmapExtension,
            test_location=snapshot.test_location,
            update_snapshots=snapshot.update_snapshots,
            update_new_snapshots_only=snapshot.update_new_snapshots_only,
        )
        found.seen = {}
        return found

    def __eq__(self, other: object) -> bool:
        heatmap = check_heatmap(other)  # here, because syrupy keeps for its diff what `serialize` raises
        name = self.extension.get_snapshot_name(test_location=self.test_location, index=self.index)
        first = self.seen.setdefault(name, heatmap.about)
        if first != heatmap.about:
            raise ValueError(
                f"one test asks for two heatmaps of image {first['image_id']} ({first['subject']} / {first['method']}, "
                f"then {heatmap.about['subject']} / {heatmap.about['method']}), and a file is named after test and "
                "image; make it two tests, with pytest.mark.parametrize"
            )
        return bool(super().__eq__(other))

    def __repr__(self) -> str:
        return f"<heatmap_snapshot of {self.test_location.snapshot_name}>"


def check_heatmap(data: object) -> StoredHeatmap:
    if not isinstance(data, StoredHeatmap):
        raise TypeError(
            f"heatmap_snapshot compares heatmaps, not a {type(data).__name__}; instead of == write "
            "xa.assert_heatmap_matches(subject, method, images, heatmap_snapshot)"
        )
    return data


class HeatmapExtension(SingleFileSnapshotExtension):
    """One HDF5 file a heatmap."""

    file_extension = "h5"

    def serialize(self, data: Any, **options: Any) -> Content:
        """The bytes of a `StoredHeatmap`, and of nothing else."""
        check_heatmap(data)
        return Content(data.to_bytes())

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        """Whether the stored file is close enough to be left as it is."""
        try:
            return compare(StoredHeatmap.read(snapshot_data), StoredHeatmap.read(serialized_data)).ok
        except DataError:
            return False  # and --snapshot-update writes it anew

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: Any = 0) -> str:
        """The test's name and the image's, in letters that every file system takes."""
        suffix = f"[{file_part(index)}]" if isinstance(index, str) else f".{index}" if index else ""
        return file_part(test_location.snapshot_name) + suffix

    @classmethod
    def matches_test_location(cls, *, test_location: PyTestLocation, snapshot_location: str) -> bool:
        """Whether a file is of this test."""
        path = Path(snapshot_location)
        name = file_part(test_location.snapshot_name)
        of_test = path.stem == name or path.stem.startswith((f"{name}[", f"{name}."))
        if not test_location.is_item_parametrized:  # any file of its module may be: syrupy compares names then
            of_test = True
        return of_test and path.parent == Path(cls.dirname(test_location=test_location))

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        """Beside the test file; of one that lies in an installed package, under the caller's root."""
        root = installed_under(test_location)
        if root is None:
            return str(super().dirname(test_location=test_location))
        return str(root / cls.snapshot_dirname / test_location.basename)

    def discover_snapshots(self, *, test_location: PyTestLocation, **options: Any) -> SnapshotCollections:
        """What may be unused; nothing of installed tests.

        Syrupy cannot tell there which tests were selected: `pytest --pyargs package.test_file::test_a
        --snapshot-update` would delete the files of all others.
        """
        if installed_under(test_location):
            return SnapshotCollections()
        return super().discover_snapshots(test_location=test_location, **options)


def installed_under(test_location: PyTestLocation) -> Path | None:
    """The caller's root, if the test is no part of it: it lies elsewhere, or in an environment."""
    config = getattr(test_location.item, "config", None)  # what the controller of xdist knows of a test has none
    if config is None:
        return None
    path = Path(test_location.filepath)
    foreign = not path.is_relative_to(config.rootpath) or {"site-packages", "dist-packages"} & set(path.parts)
    return Path(config.rootpath) if foreign else None


def file_part(name: str) -> str:
    """A part of a file name; where letters had to go, a hash keeps two names apart.

    >>> file_part("test_it[net-saliency]"), file_part("test_it[timm/vit:a]")
    ('test_it[net-saliency]', 'test_it[timm-vit-a]-398dab')
    """
    clean = re.sub(r"[^\w\[\].+=,()-]", "-", name)[:LONGEST_PART]
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def snapshot_section(item: pytest.Item, error: BaseException, folder: Path) -> str | None:
    """Draw stored | received | difference of the worst heatmap of a failed test; a line that says where."""
    differences: list[Difference] = getattr(error, "differences", [])
    if not differences:
        return None
    if option(item.config, "report-images") == "none":
        return "no picture: --xai-report-images=none"
    worst = differences[0]
    stored, received = worst.stored.values, worst.received.values
    if stored.shape != received.shape:
        return f"no picture: the stored heatmap is {stored.shape}, the received one {received.shape}"
    path = folder / "snapshots" / f"{slug(item.nodeid)[-150:]}-{slug(str(worst.received.about['image_id']))[:50]}.png"
    try:
        from xai_assert.reporting.pictures import triple  # matplotlib, which only a failure needs

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(triple(stored, received))
    except Exception as why:  # a picture must not hide the failure
        return f"picture not written to {path}: {getattr(why, 'strerror', None) or why}"
    return f"picture (stored | received | difference): {os.path.relpath(path, item.config.invocation_params.dir)}"
