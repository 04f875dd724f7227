"""How often does the faithfulness estimate praise what attribution fidelity calls random? (docs/fe-against-af.md)"""

from __future__ import annotations

from collections.abc import Sequence

from xai_assert.reporting.record import Record

HIGH_FE, LOW_AF = 0.9, 0.1


def lines(records: Sequence[Record]) -> list[str]:
    """One line on single-group FE and AF of the same cells; none where no cell has both.

    >>> scores = {name: {"value": v, "image_ids": ["a"], "values": [v]} for name, v in (("fe", 0.95), ("af", -0.1))}
    >>> lines([{"scores": scores}])
    ['FE > 0.9 with AF < 0.1: 1 of 1 cells, 1 of 1 images']
    """
    cells = images = high_cells = high_images = 0
    for record in records:
        fe, af = (record["scores"].get(name) for name in ("fe", "af"))
        if not fe or not af or record.get("of_run"):
            continue
        by_id = dict(zip(af["image_ids"], af["values"], strict=True))
        pairs = [(v, by_id[i]) for i, v in zip(fe["image_ids"], fe["values"], strict=True) if i in by_id]
        cells, images = cells + 1, images + len(pairs)
        high_cells += _apart(fe["value"], af["value"])
        high_images += sum(_apart(*pair) for pair in pairs)
    if not cells:
        return []
    return [f"FE > {HIGH_FE} with AF < {LOW_AF}: {high_cells} of {cells} cells, {high_images} of {images} images"]


def _apart(fe: float, af: float) -> bool:
    return fe > HIGH_FE and af < LOW_AF
