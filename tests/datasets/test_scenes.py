"""The bundled scenes: what the file holds, and that it is what the renderer makes."""

import h5py
import numpy as np
import torch

from xai_assert.datasets.rooms import CLASSES, scene
from xai_assert.datasets.scenes import FILE, SEEDS, SIZE, scenes, write
from xai_assert.resources import fixtures
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card

CARD = Card(name="net", mean=IMAGENET_MEAN, std=IMAGENET_STD, input_size=(192, 256), output_size=(48, 64), unit="m")


def test_they_open_for_a_card():
    images = scenes(CARD)
    assert len(images) == 24
    sample = images[3]
    assert sample.image.shape == (3, 192, 256)
    assert sample.ground_truth.shape == (48, 64)
    assert 0.5 < sample.ground_truth.mean() < 8, "metres"
    assert len(scenes(CARD, limit=2)) == 2


def test_a_scene_rendered_again_is_the_one_in_the_file():
    frame = scene(SEEDS[5], *SIZE)
    with h5py.File(fixtures() / FILE) as file:
        assert list(file.attrs["seeds"]) == list(SEEDS)
        picture = file["images"][5].transpose(2, 1, 0).astype(int)
        # Another processor's last bits move a ray across an edge here and there, and 8-bit rounding by one.
        assert (np.abs(picture - frame.image).max(-1) > 1).mean() < 1e-3
        assert (np.abs(file["depths"][5].T - frame.depth) > 1e-3).mean() < 1e-3
        assert (frame.labels != file["labels"][5].T).mean() < 1e-3
        assert (frame.instances != file["instances"][5].T).mean() < 1e-3


def test_the_file_is_written_the_same_each_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, seeds=range(2), size=(48, 64))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_file_is_small_and_names_its_classes():
    assert (fixtures() / FILE).stat().st_size < 10e6
    with h5py.File(fixtures() / FILE) as file:
        assert list(file.attrs["names"]) == list(CLASSES)
        assert file["labels"][:].max() < len(CLASSES)
        assert len(np.unique(file["labels"][:])) == len(CLASSES) - 1, "each class is seen, and nothing is unlabelled"


def test_the_scenes_differ():
    pictures = scenes(CARD).tensor().flatten(1)
    nearest = torch.cdist(pictures, pictures).fill_diagonal_(torch.inf).min() / pictures.shape[1] ** 0.5
    assert nearest > 0.3, "in standard deviations of a pixel"
