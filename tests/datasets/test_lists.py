import numpy as np
import pytest
from PIL import Image

from xai_assert.datasets import kitti, nyu
from xai_assert.errors import DataError
from xai_assert.subject import Card

CARD = Card(name="depthnet", unit="m")


@pytest.fixture
def listed(tmp_path):
    """Write a list."""

    def write(text):
        (tmp_path / "list.txt").write_text(text)
        return tmp_path / "list.txt"

    return write


def pair(root, picture, depth, metres=2.0, scale=1000, shape=(6, 8)):
    for file in (root / picture, root / depth):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape[::-1], (51, 51, 51)).save(root / picture)
    Image.fromarray(np.full(shape, metres * scale, np.uint16)).save(root / depth)


def refused(text, open_set, *arguments, **options):
    with pytest.raises(DataError) as caught:
        open_set(*arguments, **options)
    assert text in str(caught.value)


def test_the_order_and_the_names_are_those_of_the_list(tmp_path, listed):
    pair(tmp_path, "kitchen/rgb_00045.jpg", "kitchen/sync_depth_00045.png", 1.5)
    pair(tmp_path, "bathroom/rgb_00045.jpg", "bathroom/sync_depth_00045.png", 2.5)
    pair(tmp_path, "not/rgb_1.jpg", "in/the_list_depth.png")
    path = listed(
        "kitchen/rgb_00045.jpg kitchen/sync_depth_00045.png 518.8579\n\n"
        "/bathroom/rgb_00045.jpg /bathroom/sync_depth_00045.png 518.8579\n"  # BTS begins the lines for training so
    )
    images = nyu(tmp_path, CARD, files=path)
    assert images.ids == ["kitchen/rgb_00045", "bathroom/rgb_00045"]
    assert [sample.ground_truth.mean().item() for sample in images] == [1.5, 2.5]
    assert nyu(tmp_path, CARD, files=path, limit=1).ids == ["kitchen/rgb_00045"]


def test_absent_files_are_reported_all_at_once(tmp_path, listed):
    pair(tmp_path, "a/rgb_1.jpg", "a/sync_depth_1.png")
    (tmp_path / "a" / "rgb_2.jpg").touch()
    path = listed("".join(f"a/rgb_{i}.jpg a/sync_depth_{i}.png 1\n" for i in (1, 2, 3)))
    absent = [tmp_path / "a" / name for name in ("sync_depth_2.png", "rgb_3.jpg", "sync_depth_3.png")]
    refused(
        f"{path} names 3 files that do not exist:" + "".join(f"\n  {name}" for name in absent),
        nyu,
        tmp_path,
        CARD,
        files=path,
    )


def test_of_many_absent_files_fifty_are_named(tmp_path, listed):
    path = listed("".join(f"rgb_{i}.jpg depth_{i}.png\n" for i in range(40)))
    refused("names 80 files that do not exist:", nyu, tmp_path, CARD, files=path)
    refused("depth_24.png\n  and 30 more", nyu, tmp_path, CARD, files=path)


def test_lines_without_a_depth_map_are_left_out_if_others_have_one(tmp_path, listed):
    pair(tmp_path, "a.png", "a_depth.png", scale=256)
    pair(tmp_path, "b.png", "b_depth.png", scale=256)
    images = kitti(tmp_path, CARD, files=listed("a.png None 721.5377\nb.png b_depth.png 721.5377\n"))
    assert (images.ids, images.has_ground_truth) == (["b"], True)
    for text in ("a.png\nb.png\n", "a.png None 1\nb.png None 1\n"):
        images = kitti(tmp_path, CARD, files=listed(text))
        assert (images.ids, images.has_ground_truth) == (["a", "b"], False)
        assert images[1].ground_truth is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a list without a line"),
        ("a.png b.png 1\na b.png c.png 1\n", "line 2: 'a b.png c.png 1' is not of the form 'picture depth focal'"),
        ("/ b.png\n", "line 1: '/ b.png' is not of the form"),
        ("../secret.png b.png\n", "leads out of the data's folder, which is refused"),
        ("a.png x/../../b.png\n", "leads out of the data's folder, which is refused"),
        ("a.png b.png\na.png c.png\n", "names 1 pictures more than once: a.png"),
    ],
)
def test_lists_of_another_form(tmp_path, listed, text, said):
    refused(said, nyu, tmp_path, CARD, files=listed(text))


def test_files_that_are_no_list(tmp_path):
    refused("cannot be read as a file list", nyu, tmp_path, CARD, files=tmp_path / "nowhere.txt")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    refused("picture.png: cannot be read as a file list", nyu, tmp_path, CARD, files=tmp_path / "picture.png")


def test_a_depth_map_of_another_size(tmp_path, listed):
    pair(tmp_path, "a.png", "depth.png", shape=(6, 8))
    pair(tmp_path, "b.png", "other.png", shape=(8, 6))
    images = nyu(tmp_path, CARD, files=listed("a.png other.png"))
    with pytest.raises(DataError, match=r"other\.png: depth of another size \(8x6\) than its picture a\.png \(6x8\)"):
        images[0]
