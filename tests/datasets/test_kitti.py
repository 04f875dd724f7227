import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from xai_assert.datasets import kitti, open_data
from xai_assert.datasets.kitti import kb_crop
from xai_assert.errors import DataError
from xai_assert.subject import Card

CARD = Card(name="depthnet", unit="m")
DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
PICTURE = f"{DATE}/{DRIVE}/image_02/data/0000000069.png"
DEPTH = f"{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png"
SIZES = [(375, 1242), (370, 1226), (374, 1238), (376, 1241), (370, 1224)]  # all that the recordings have


def write(picture_file, depth_file, shape=(375, 1242)):
    """Red grows with the row, green with the column; every fifth pixel has a depth, of 51.25 m."""
    for file in (picture_file, depth_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    height, width = shape
    picture = np.zeros((*shape, 3), np.uint8)
    picture[..., 0] = np.arange(height)[:, None] // 2
    picture[..., 1] = np.arange(width) // 5
    depth = np.zeros(shape, np.uint16)
    depth[:, ::5] = 51.25 * 256
    Image.fromarray(picture).save(picture_file)
    Image.fromarray(depth).save(depth_file)
    return picture, depth


@pytest.mark.parametrize("inside", ["", DATE, "train", "val"])
@pytest.mark.parametrize("apart", [True, False])
def test_the_eigen_layout(tmp_path, inside, apart):
    depths = tmp_path / "depths" if apart else tmp_path
    picture, _ = write(tmp_path / PICTURE, depths / inside / DEPTH)
    (tmp_path / "list.txt").write_text(f"{PICTURE} {DEPTH} 721.5377\n")
    images = kitti(tmp_path, CARD, files=tmp_path / "list.txt", depths=depths if apart else None)
    (sample,) = images
    assert sample.id == PICTURE.removesuffix(".png")
    assert torch.equal(sample.image, torch.from_numpy(picture).permute(2, 0, 1) / 255)
    assert sample.ground_truth.unique().tolist() == [0.0, 51.25]
    assert (sample.ground_truth > 0).float().mean().item() == pytest.approx(0.2, abs=0.001)


@pytest.mark.parametrize("shape", SIZES)
def test_the_crop_is_at_the_bottom_in_the_middle(tmp_path, shape):
    picture, depth = write(tmp_path / "rgb_1.png", tmp_path / "depth_1.png", shape)
    sample = kitti(tmp_path, CARD, crop=True)[0]
    top, left = shape[0] - 352, (shape[1] - 1216) // 2
    assert sample.image.shape == (3, 352, 1216)
    expected = torch.from_numpy(picture[top:, left : left + 1216]).permute(2, 0, 1) / 255
    assert torch.equal(sample.image, expected)
    assert torch.equal(sample.ground_truth, torch.from_numpy(depth[top:, left : left + 1216] / np.float32(256)))
    assert sample.image[0, -1, 0].item() == pytest.approx((shape[0] - 1) // 2 / 255)  # nothing lies below


def test_the_crop_goes_with_the_models_input_size(tmp_path):
    write(tmp_path / "rgb_1.png", tmp_path / "depth_1.png")
    pixelformer = dataclasses.replace(CARD, input_size=(352, 1216))
    meter = dataclasses.replace(CARD, input_size=(192, 636), output_size=(48, 160))
    cropped = kitti(tmp_path, CARD, crop=True)[0].image
    assert torch.equal(kitti(tmp_path, pixelformer)[0].image, cropped)
    assert not torch.equal(kitti(tmp_path, pixelformer, crop=False)[0].image, cropped)
    whole = kitti(tmp_path, meter)
    assert (whole[0].image.shape, whole[0].ground_truth.shape) == ((3, 192, 636), (48, 160))
    assert whole[0].image[0].min() < 0.01  # the top row is 0, and the crop's 11/255
    assert kitti(tmp_path, meter, crop=True)[0].image[0].min() > 0.04


def test_a_picture_that_is_too_small(tmp_path):
    write(tmp_path / "rgb_1.png", tmp_path / "depth_1.png", (192, 636))
    images = kitti(tmp_path, CARD, crop=True)
    with pytest.raises(DataError, match=r"rgb_1\.png: 192x636 pixels are too few for KITTI's crop of 352x1216"):
        images[0]
    with pytest.raises(ValueError, match="352x1215 pixels are too few"):
        kb_crop(torch.zeros(352, 1215))
    assert kb_crop(torch.zeros(352, 1216)).shape == (352, 1216)


def test_a_depth_folder_needs_a_list(tmp_path):
    with pytest.raises(TypeError, match="depths= goes with files=, the list"):
        kitti(tmp_path, CARD, depths=tmp_path)


@pytest.mark.parametrize("option", ["path", "depths"])
def test_folders_that_are_missing(tmp_path, option):
    (tmp_path / "list.txt").write_text(f"{PICTURE} {DEPTH} 721.5377\n")
    folders = {"path": tmp_path, "depths": tmp_path, option: tmp_path / "nowhere"}
    with pytest.raises(DataError, match="nowhere: does not exist"):
        kitti(card=CARD, files=tmp_path / "list.txt", **folders)


def test_it_can_be_named_in_a_text_and_pickled(tmp_path):
    write(tmp_path / "rgb_1.png", tmp_path / "depth_1.png")
    images = open_data(f"kitti(path={str(tmp_path)!r}, crop=True)", CARD)
    same = pickle.loads(pickle.dumps(images))
    assert same[0].image.shape == (3, 352, 1216)
    with pytest.raises(TypeError, match="data 'kitti' takes no parameter 'split'; it takes: crop, depths, files, path"):
        open_data(f"kitti(path={str(tmp_path)!r}, split='test')", CARD)
