import os

import numpy as np
import pytest
import torch
from PIL import Image

from xai_assert.datasets import folder, open_data
from xai_assert.errors import DataError
from xai_assert.subject import Card

CARD = Card(name="depthnet", unit="m")
GREY = np.full((6, 8, 3), 51, np.uint8)
DEPTH = np.full((6, 8), 2500, np.uint16)


def write(root, *names, picture=GREY, depth=DEPTH):
    """Pictures and, where the name says so, depth maps; a name ending in ! is a file that holds no picture."""
    for name in names:
        file = root / name.rstrip("!")
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("!"):
            file.write_bytes(b"no picture")
        else:
            Image.fromarray(depth if "depth" in name.lower().replace("nyu_depth", "") else picture).save(file)
    return root


def refused(root, text, **given):
    with pytest.raises(DataError) as caught:
        list(folder(root, CARD, **given))
    assert text in str(caught.value)
    assert root.name in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("00001_colors.png", "00001_depth.png", "00000_colors.png", "00000_depth.png"),
        ("rgb_00000.jpg", "sync_depth_00000.png", "rgb_00001.png", "depth_00001.png", "notes.txt!", "._rgb_9.png!"),
        ("rgb/00000.jpg", "depth/00000.png", "rgb/00001.jpg", "depth/00001.png"),
        ("RGB_00000.JPG", "Depth_00000.PNG", "00001.jpeg", "00001-depth.png"),
        (
            "nyu_depth/rgb/00000.png",
            "nyu_depth/depth/00000.png",
            "nyu_depth/rgb/00001.png",
            "nyu_depth/depth/00001.png",
        ),
    ],
)
def test_pairs_are_found(tmp_path, names):
    images = open_data(write(tmp_path, *names), CARD)
    assert [str(i).removeprefix("nyu/") for i in images.ids] == ["00000", "00001"]
    assert images.has_ground_truth
    for sample in images:
        assert sample.image.unique().tolist() == pytest.approx([0.2], abs=0.01)  # JPEG
        assert torch.equal(sample.ground_truth, torch.full((6, 8), 2.5))


def test_scenes_in_sub_folders_keep_their_path_as_id(tmp_path):
    write(tmp_path, "kitchen_1/rgb_7.png", "kitchen_1/sync_depth_7.png", "attic/rgb.png", "attic/depth.png")
    assert folder(tmp_path, CARD).ids == ["attic", "kitchen_1/7"]


def test_the_scale_is_stored_values_per_metre(tmp_path):
    write(tmp_path, "rgb_1.png", "depth_1.png")
    assert folder(tmp_path, CARD, depth_scale=250)[0].ground_truth.unique().tolist() == [10.0]
    with pytest.raises(ValueError, match="depth_scale must be a positive number of stored values per metre, not 0"):
        folder(tmp_path, CARD, depth_scale=0)


def test_pictures_alone_have_no_ground_truth(tmp_path):
    images = folder(write(tmp_path, "b.jpg", "a.png"), Card(name="classifier"))
    assert images.ids == ["a", "b"]
    assert images[0].ground_truth is None


def test_only_the_files_of_an_item_are_read(tmp_path):
    names = [f"{kind}_{i}.png" for i in range(3) for kind in ("rgb", "depth")]
    write(tmp_path, *(f"{name}!" for name in names if "1" not in name), "rgb_1.png", "depth_1.png")
    images = folder(tmp_path, CARD)
    assert images.ids == ["0", "1", "2"]
    assert images[1].ground_truth.shape == (6, 8)
    with pytest.raises(DataError, match=r"rgb_2\.png: cannot be read as a picture"):
        images[2]


def test_no_pictures(tmp_path):
    refused(write(tmp_path, "readme.txt!"), "no picture (.png, .jpg, .jpeg) in it or its sub-folders")


def test_a_depth_map_for_some_pictures_only(tmp_path):
    write(tmp_path, *(f"rgb_{i}.png" for i in range(6)), "depth_0.png", "depth_9.png")
    refused(tmp_path, "no depth map for rgb_1.png, rgb_2.png, rgb_3.png and 2 more; no picture for depth_9.png; every")


def test_a_depth_map_without_its_picture(tmp_path):
    refused(write(tmp_path, "rgb_1.png", "depth_1.png", "depth_2.png"), ": no picture for depth_2.png; every picture")


def test_two_files_for_one_image(tmp_path):
    refused(write(tmp_path, "rgb_1.png", "1_color.jpg"), "1_color.jpg, rgb_1.png are both pictures of '1'")
    (tmp_path / "1_color.jpg").unlink()
    refused(write(tmp_path, "depth_1.png", "sync_depth_1.png"), "are both depth maps of '1'")


def test_depth_of_another_size(tmp_path):
    write(tmp_path, "rgb_1.png", "depth_1.png", depth=DEPTH[:4])
    refused(tmp_path, "depth_1.png: depth of another size (4x8) than its picture rgb_1.png (6x8)")


@pytest.mark.parametrize(("depth", "kind"), [(GREY[..., 0], "PNG of mode L"), (GREY, "PNG of mode RGB")])
def test_a_picture_of_depth_is_no_depth_map(tmp_path, depth, kind):
    write(tmp_path, "rgb_1.png", "depth_1.png", depth=depth)
    refused(tmp_path, f"depth_1.png: a depth map must be a 16-bit greyscale PNG, not {kind}")


def test_depth_in_a_jpeg(tmp_path):
    refused(write(tmp_path, "1.png", "1_depth.jpg", depth=GREY[..., 0]), "a 16-bit greyscale PNG, not JPEG of mode L")


def test_a_truncated_depth_map(tmp_path):
    file = write(tmp_path, "rgb_1.png", "depth_1.png") / "depth_1.png"
    file.write_bytes(file.read_bytes()[:-30])
    refused(tmp_path, "depth_1.png: cannot be read as a depth map: ")


def test_a_truncated_picture(tmp_path):
    file = write(tmp_path, "photo.jpg") / "photo.jpg"
    file.write_bytes(file.read_bytes()[:-30])
    refused(tmp_path, "photo.jpg: cannot be read as a picture: ")


def test_a_picture_of_16_bits(tmp_path):
    refused(write(tmp_path, "range_1.png", picture=DEPTH), "range_1.png: a picture of 8 bits is needed, not 16-bit")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    white = Image.fromarray(np.full((6, 8, 3), 255, np.uint8)).convert(mode)
    options = {"transparency": bytes(256)} if mode == "P" else {}
    white.save(tmp_path / ("1.jpg" if mode == "CMYK" else "1.png"), **options)
    assert torch.equal(folder(tmp_path, CARD)[0].image, torch.ones(3, 6, 8))


def test_exif_turns_a_picture_but_not_one_of_a_pair(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    half = GREY.copy()
    half[:3] = 255
    Image.fromarray(half).save(tmp_path / "1.png", exif=exif)
    image = folder(tmp_path, CARD)[0].image
    assert image.shape == (3, 8, 6)
    assert image[:, :, 3:].unique().tolist() == [1.0]  # what was on top is on the right
    refused(write(tmp_path, "1_depth.png"), "1.png: to be turned (EXIF orientation), and nobody knows if its depth map")


def test_an_enormous_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    refused(write(tmp_path, "1.png"), "could be decompression bomb")


def test_paths_that_are_no_data(tmp_path):
    (tmp_path / "set.zip").touch()
    with pytest.raises(
        DataError, match=r"missing: does not exist; data are a folder of pictures or an HDF5 file \(\.h5"
    ):
        open_data(tmp_path / "missing", CARD)
    with pytest.raises(DataError, match=r"set\.zip: not a folder of pictures or an HDF5 file \(\.h5, \.hdf5, \.mat\)"):
        open_data(os.fspath(tmp_path / "set.zip"), CARD)
    with pytest.raises(DataError, match=r"set\.zip: not a folder"):
        folder(tmp_path / "set.zip", CARD)
