"""`assert_heatmap_matches`: heatmaps beside those that somebody looked at and accepted (docs/snapshots.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xai_assert.attributions import as_method, attribute
from xai_assert.batching import ImageSource, Samples
from xai_assert.errors import DataError
from xai_assert.provenance import versions
from xai_assert.randomness import ImageId
from xai_assert.stored_heatmap import Difference, StoredHeatmap, compare
from xai_assert.subject import as_subject
from xai_assert.tasks import Target, Task

ACCEPT = "to accept: look at the picture, run the test with --snapshot-update, commit the file"
CREATE = "no stored heatmap; run with --snapshot-update to create it, look at it, commit it"


def assert_heatmap_matches(
    subject: nn.Module,
    method: Any,
    images: Tensor | Samples,
    heatmap_snapshot: Any,
    *,
    image_ids: Sequence[ImageId] | None = None,
    seed: int = 0,
    target: Target | None = None,
    batch_size: int | str = "auto",
    task: str | Task | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Assert that the heatmap of each image is the stored one, but for what devices and versions of torch change.

    What is stored, one small HDF5 file an image, is the signed sum over the channels of the attribution, averaged to at
    most 56 x 56. Of the same weights, at most 1 % of its pixels may differ by more than 1e-3 of its range, the rank
    correlation must be at least .99, and .95 of the top 5 % the same. Other weights are red however close the maps are.

    Args:
        subject, method, images, image_ids, seed, target, batch_size, task, mean, std: as for `xa.attribute`.
        heatmap_snapshot: the pytest fixture of that name.

    Raises:
        AssertionError: a heatmap changed, the model did, or nothing is stored yet. It carries `.differences`.
        TypeError: `heatmap_snapshot` is another thing.
        ValueError: an attribution is not finite, or one test asks for two heatmaps of one image.

    Example:
        >>> import torch
        >>> def test_heatmaps(heatmap_snapshot):
        ...     network = nn.Conv2d(3, 1, 1)
        ...     assert_heatmap_matches(network, "saliency", torch.rand(2, 3, 8, 8), heatmap_snapshot, task="depth")
    """
    __tracebackhide__ = True
    if not hasattr(heatmap_snapshot, "executions") or heatmap_snapshot.extension.file_extension != "h5":
        raise TypeError(
            f"heatmap_snapshot must be the pytest fixture of that name, not {type(heatmap_snapshot).__name__}; "
            "take it as an argument of your test"
        )
    subject = as_subject(subject, task=task, mean=mean, std=std)
    wanted = as_method(method)
    source = ImageSource(images, image_ids=image_ids, channels=subject.card.channels)
    ids = source.batch(0, len(source)).ids if isinstance(images, Tensor) else tuple(_ids(source))
    options: dict[str, Any] = {"seed": seed, "target": target, "batch_size": batch_size, "image_ids": image_ids}
    attribution = attribute(subject, images, wanted, **options)
    about = {
        "subject": subject.name,
        "fingerprint": subject.fingerprint(),
        "method": str(wanted),
        "seed": seed,
        "device": subject.device.type,
        "versions": versions(),
    }
    results = [
        _compared(heatmap_snapshot, StoredHeatmap.of(one, about | {"image_id": str(image_id)}))
        for image_id, one in zip(ids, attribution, strict=True)
    ]
    settle([result for result in results if result is not None], len(results))


def _ids(source: ImageSource) -> list[ImageId]:
    return [source.batch(i, i + 1).ids[0] for i in range(len(source))]


Red = Difference | str


def _compared(snapshot: Any, received: StoredHeatmap) -> Red | None:
    """What is wrong with one heatmap, or None; syrupy reads, compares and, if asked, writes."""
    if snapshot(name=received.about["image_id"]) == received:
        return None
    result = snapshot.executions[snapshot.num_executions - 1]
    about = received.about
    head = f"heatmap of {about['subject']} / {about['method']} on {about['image_id']}"
    if result.recalled_data is None and result.exception is None:
        return f"{head}: {CREATE}"
    if result.exception is not None:
        return f"{head}: {result.exception}"
    try:
        return compare(StoredHeatmap.read(result.recalled_data, Path(result.snapshot_location).name), received)
    except DataError as error:
        return f"{head}: {error}; restore the file, or run with --snapshot-update to write it anew"


def settle(red: Sequence[Red], count: int) -> None:
    """Raise with the worst of what is wrong, in at most six lines."""
    __tracebackhide__ = True
    if not red:
        return
    differences = sorted((r for r in red if isinstance(r, Difference)), key=lambda d: d.rank)
    words = [r for r in red if isinstance(r, str)]
    lines = [differences[0].headline() if differences else words[0]]
    if len(red) > 1:
        lines.append(f"{len(red)} of {count} heatmaps are red; this is the worst")
    if differences:
        worst = differences[0]
        lines.append(f"stored -> received: {worst.circumstances()}")
        if worst.other_weights and not worst.other:
            lines.append(
                "a new model has new heatmaps; whether they are as true: xa.assert_no_regression, --xai-baseline"
            )
        lines.append(ACCEPT)
    error = AssertionError("\n  ".join(lines))
    error.differences = differences  # type: ignore[attr-defined]
    raise error
