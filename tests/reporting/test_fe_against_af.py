"""FE against AF: counted by image id, in cells that have both."""

from xai_assert.reporting.fe_against_af import lines
from xai_assert.reporting.terminal import table


def record(fe, af, af_ids=None, **more):
    def score(values, ids):
        return {"value": sum(values) / len(values), "values": values, "image_ids": ids}

    ids = list(range(len(fe)))
    return {"scores": {"fe": score(fe, ids), "af": score(af, af_ids or ids)}} | more


def test_cells_and_images_are_counted_apart():
    # the first: means .95 and 0, two of three images; the second: means .5 and .5, none
    records = [record([0.95, 0.99, 0.91], [0.0, -0.2, 0.2]), record([0.5], [0.5])]
    assert lines(records) == ["FE > 0.9 with AF < 0.1: 1 of 2 cells, 2 of 4 images"]


def test_zero_is_said_too():
    assert lines([record([0.5, 0.95], [-0.5, 0.5])]) == ["FE > 0.9 with AF < 0.1: 0 of 1 cells, 0 of 2 images"]


def test_images_are_joined_by_their_id():
    assert lines([record([0.95, 0.0], [0.9, -0.9], af_ids=[1, 0])])[0].endswith("1 of 2 images")


def test_cells_without_both_and_gates_on_the_run_do_not_count():
    alone = record([0.95], [0.0])
    del alone["scores"]["fe"]
    assert lines([alone, record([0.95], [0.0], of_run=True)]) == []


def test_the_table_ends_with_it():
    words = {"model": "net", "method": "saliency", "perturbation": "noise", "fraction": 0.05, "verdict": "report"}
    one = record([0.95], [0.0], **words, marks=[], gates=[], error=None, cell="net+saliency+noise")
    one["scores"]["af"] |= {"relevant_error": [1.0], "irrelevant_error": [1.0], "interval95": None, "asr": 0.5, "n": 1}
    assert "FE > 0.9 with AF < 0.1: 1 of 1 cells, 1 of 1 images" in table([one])
