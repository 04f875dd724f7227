"""Official weights on real photographs: each published protocol, end to end, gives the published errors."""

import dataclasses

import pytest

import xai_assert as xa
from xai_assert.datasets import kitti, nyu, open_data
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def meter(shared_data):
    def load(data):
        weights = shared_data / "weights" / "meter" / f"build_model_best_{data}_xxs"
        return xa.load_model(f"meter-xxs-{data}", weights, "cpu")

    return load


def figures(scores):
    return [scores.abs_rel.value, scores.d1.value]


def test_nyu(shared_data, meter):
    subject = meter("nyu")
    images = nyu(shared_data / "nyu_test20", subject.card)
    assert len(images) == 20
    assert images.ids[:3] == ["00000", "00001", "00008"]
    scores = xa.depth_metrics(subject, images)
    assert scores.rmse.value == pytest.approx(60.25, abs=0.01)  # the figures' own rounding, doubled
    assert figures(scores) == pytest.approx([0.1876, 0.6992], abs=1e-4)
    assert scores.rmse.pooled > scores.rmse.value  # the mean of squares is at least the square of the mean
    assert scores.abs_rel.pooled == pytest.approx(scores.abs_rel.value)  # every image has the same 48x64 known pixels


def test_nyu_with_missing_depth(shared_data, meter):
    """A quarter to a third of the depth is missing; were it averaged in, AbsRel would be about 100."""
    subject = meter("nyu")
    images = nyu(shared_data / "nyu_sync3", subject.card)
    assert images.ids == ["00000", "00050", "00100"]
    assert xa.depth_metrics(subject, images).abs_rel.value < 0.1  # training pictures, so below .19 of the test split


def test_a_list_names_the_same_pairs_as_their_folder(shared_data, meter, tmp_path):
    card, names = meter("nyu").card, ("00100", "00000")
    lines = [f"rgb_{name}.jpg sync_depth_{name}.png 518.8579\n" for name in names]
    (tmp_path / "list.txt").write_text("".join(lines))
    folder = {sample.id: sample for sample in nyu(shared_data / "nyu_sync3", card)}
    for name, sample in zip(names, nyu(shared_data / "nyu_sync3", card, files=tmp_path / "list.txt"), strict=True):
        assert sample.image.equal(folder[name].image)
        assert sample.ground_truth.equal(folder[name].ground_truth)


def test_kitti(shared_data, meter):
    subject = meter("kitti")
    images = kitti(shared_data / "kitti3", subject.card)
    # The figures are those at the 375x1242 of the depth map; they are given as "about".
    assert figures(xa.depth_metrics(subject, images, protocol="full")) == pytest.approx([0.084, 0.979], abs=0.001)
    # The output's own size keeps half of the 48x160 pixels, from 20 % known; the best known are the near ones.
    assert figures(xa.depth_metrics(subject, images)) == pytest.approx([0.080, 0.975], abs=0.001)
    assert 0.4 < (images.ground_truth() > 0).float().mean() < 0.6
    assert images.ground_truth().equal(open_data(shared_data / "kitti3", subject.card, depth_scale=256).ground_truth())


def test_kitti_with_the_wrong_normalisation_is_noticed(shared_data, meter):
    subject = meter("kitti")
    wrong = dataclasses.replace(subject.card, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert xa.depth_metrics(subject, kitti(shared_data / "kitti3", wrong)).abs_rel.value > 0.3  # .08 with the right one
