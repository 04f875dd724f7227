"""Are the heatmaps still those that somebody looked at and accepted? Models of the run x saliency, rollout.

Record those of your model with --snapshot-update (docs/snapshots.md); until then its tests are skipped. The networks
that come with the project have theirs in `heatmaps/` beside this file, which is only ever read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import xai_assert as xa
from xai_assert.batching import ImageSource, Samples
from xai_assert.datasets import bundled_images
from xai_assert.models.bundled import NETWORKS
from xai_assert.provenance import versions
from xai_assert.snapshots import settle
from xai_assert.stored_heatmap import StoredHeatmap, compare
from xai_assert.subject import Subject

IMAGES = 2
SHIPPED = Path(__file__).parent / "heatmaps"


@pytest.mark.xai  # so it runs for every model of the run
@pytest.mark.parametrize("method", ["saliency", "attention_rollout"])
def test_heatmaps(method: str, xai_model: Subject, xai_images: Samples, request: pytest.FixtureRequest) -> None:
    __tracebackhide__ = True
    snapshot = request.getfixturevalue("heatmap_snapshot")
    try:
        if recorded(snapshot) or snapshot.update_snapshots:
            images = ImageSource(xai_images, channels=xai_model.card.channels)
            batch = images.batch(0, min(IMAGES, len(xai_images)))
            xa.assert_heatmap_matches(xai_model, method, batch.images, snapshot, image_ids=batch.ids)
        elif xai_model.name in NETWORKS and xai_model.card.weights == f"{xai_model.name}.safetensors":
            compare_with_shipped(xai_model, method)
        else:
            pytest.skip(f"no heatmap of {xai_model.name} / {method} is stored; look at them (xa.heatmap), and run with "
                        "--snapshot-update to record them")  # fmt: skip
    except xa.NotApplicableError as error:
        pytest.skip(str(error))


def recorded(snapshot: Any) -> bool:
    """Whether a heatmap of this test was recorded."""
    first = snapshot.extension.get_snapshot_name(test_location=snapshot.test_location, index=0)
    folder = Path(snapshot.extension.dirname(test_location=snapshot.test_location))
    return folder.is_dir() and any(file.stem.startswith(first) for file in folder.iterdir())


def compare_with_shipped(subject: Subject, method: str) -> None:
    """Fail with the worst heatmap that is not the shipped one, whatever images the run has."""
    __tracebackhide__ = True
    batch = ImageSource(bundled_images(subject.card, limit=IMAGES), channels=3).batch(0, IMAGES)
    attribution = xa.attribute(subject, batch.images, method, image_ids=batch.ids)
    about = {
        "subject": subject.name,
        "fingerprint": subject.fingerprint(),
        "method": method,
        "seed": 0,
        "device": subject.device.type,
        "versions": versions(),
    }
    found = []
    for image_id, one in zip(batch.ids, attribution, strict=True):
        file = SHIPPED / f"{method}-{subject.name}[{image_id}].h5"
        stored = StoredHeatmap.read(file.read_bytes(), file.name)
        found.append(compare(stored, StoredHeatmap.of(one, about | {"image_id": str(image_id)})))
    settle([difference for difference in found if not difference.ok], len(found))
