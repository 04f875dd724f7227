"""Slices of the data: on paper, their columns, and how often chance alone fails one."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from xai_assert.datasets import scenes
from xai_assert.datasets.folders import Folder
from xai_assert.datasets.hdf5 import hdf5
from xai_assert.errors import DataError
from xai_assert.gates import Gate, judge_gate
from xai_assert.metrics import Score
from xai_assert.slices import column_of, failing, slices_of
from xai_assert.subject import Card
from xai_assert.verdicts import Bound

CARD = Card(name="net", unit="m")


def score(values):
    return Score(torch.tensor(values), tuple(range(len(values))), "af")


def by(letters):
    return dict(enumerate(letters))


class TestOnPaper:
    def test_means_counts_and_order(self):
        found = slices_of(score([0.5, 0.25, -0.5, 0.0]), by("aabb"))
        seen = [(one.name, one.count, one.value, one.p) for one in found]
        assert seen == [("b", 2, -0.25, None), ("a", 2, 0.375, None)]

    def test_weighted_by_their_images_they_are_the_whole(self):
        whole = score(torch.randn(30, generator=torch.Generator().manual_seed(0)).tolist())
        found = slices_of(whole, by("aabbbc" * 5))
        assert sum(one.count * one.value for one in found) / 30 == pytest.approx(whole.value)

    def test_lower_is_better(self):
        low = Score(torch.tensor([1.0, 2.0]), (0, 1), "deletion_auc", higher_is_better=False)
        assert [one.name for one in slices_of(low, by("ab"))] == ["b", "a"]

    def test_p_is_that_of_all_signs_after_holm(self):
        """Six values below the bound: of 64 patterns of signs one is as bad; two slices, so twice that."""
        found = slices_of(score([0.0] * 6 + [1.0] * 6), by("aaaaaabbbbbb"), Bound(min=0.5))
        assert {one.name: one.p for one in found} == {"a": 2 / 64, "b": 1.0}
        assert failing(found, Bound(min=0.5)).name == "a"
        assert failing(found, Bound(min=0.5, confidence=0.99)) is None

    def test_few_images_are_not_judged(self):
        found = slices_of(score([-1.0] * 4 + [1.0] * 6), by("aaaabbbbbb"), Bound(min=0.0))
        assert [(one.name, one.p) for one in found] == [("a", None), ("b", 1.0)]

    def test_nor_are_those_that_nothing_could_make_fail_among_so_many(self):
        """Five images alone may reach 1/32, which is below .05; beside another slice 2/32, which is not."""
        values, bound = [-1.0] * 5 + [1.0] * 6, Bound(min=0.0)
        assert {one.name: one.p for one in slices_of(score(values), by("aaaaabbbbbb"), bound)} == {"a": None, "b": 1.0}
        assert failing(slices_of(score(values[:5]), by("aaaaa"), bound), bound).name == "a"

    def test_an_early_bound_judges_no_slice(self):
        bound = Bound(min=0.5, confidence=0.95, early=True)
        assert [one.p for one in slices_of(score([0.0] * 12), by("a" * 12), bound)] == [None]

    def test_a_bound_above(self):
        bound = Bound(max=0.5)
        assert failing(slices_of(score([1.0] * 6 + [0.0] * 6), by("aaaaaabbbbbb"), bound), bound).name == "a"

    def test_an_image_that_the_column_does_not_name(self):
        assert [one.name for one in slices_of(score([0.0, 1.0]), {1: "a"})] == ["(unknown)", "a"]

    def test_chance_alone_hardly_ever_fails_one(self):
        """200 sets whose true mean is on the bound, 4 slices each: at most 5 % fail, and 3 standard errors."""
        random, bound, fails = np.random.default_rng(0), Bound(min=0.0), 0
        for _ in range(200):
            whole = score(random.normal(0, 1, 40).tolist())
            fails += failing(slices_of(whole, by("abcd" * 10), bound), bound) is not None
        assert 0 < fails / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_gate_that_passes_on_the_whole_fails_on_a_slice():
    whole = score([0.9] * 30 + [-0.4] * 8)
    gate = Gate("af", Bound(min=0.3, label="_af"))
    groups = by("a" * 30 + "b" * 8)
    assert judge_gate(gate, whole).outcome == "pass"
    judged = judge_gate(gate, whole, sliced=slices_of(whole, groups, gate.bound), column="room")
    assert judged.outcome == "fail"
    assert judged.because == (
        "on the slice room=b (8 images) it is -0.400, below min_af=0.300 (p=0.0078 after Holm over the slices), though "
        "0.626 on all 38"
    )
    fine = score([0.9] * 38)
    assert judge_gate(gate, fine, sliced=slices_of(fine, groups, gate.bound), column="room").outcome == "pass"


class TestColumns:
    def test_of_the_scenes(self):
        images = scenes(CARD, limit=4)
        assert column_of(images, "classes") == images.column("classes")
        assert len(images.column("classes")) == 4
        with pytest.raises(DataError, match=r"scenes\.h5 has no column 'room'; its columns: classes, nearest$"):
            images.column("room")

    def test_of_a_file(self, tmp_path):
        with h5py.File(tmp_path / "val.h5", "w") as file:
            file["images"] = np.zeros((3, 8, 8, 3), np.uint8)
            file["camera"] = ["left", "right", "left"]
            file["drive"] = np.array([2, 0, 1])
            file["drive"].attrs["names"] = ["city", "road"]
            file["weights"] = np.ones(3)  # no whole numbers
            file["other"] = h5py.ExternalLink("elsewhere.h5", "camera")
        images = hdf5(tmp_path / "val.h5", CARD)
        assert images.column("camera") == {0: "left", 1: "right", 2: "left"}
        assert images.column("drive") == {0: "2", 1: "city", 2: "road"}
        with pytest.raises(DataError, match=r"its columns: camera, drive$"):
            images.column("weights")

    def test_of_a_folder(self, tmp_path):
        for name in ("kitchen/1.png", "kitchen/2.png", "office/1.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        assert Folder(tmp_path, 1000.0).columns() == {"folder": ["kitchen", "kitchen", "office"]}

    def test_of_the_users_own_data(self):
        class Data(list):
            def column(self, name):
                return {"a": 1, "b": 2}

        assert column_of(Data(), "day") == {"a": "1", "b": "2"}
        with pytest.raises(DataError, match="--xai-group-by day: Tensor has no columns; give the data a method column"):
            column_of(torch.zeros(1), "day")
