import pickle

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from xai_assert.datasets import hdf5, nyu, open_data
from xai_assert.errors import DataError
from xai_assert.subject import Card

CARD = Card(name="depthnet", unit="m")
ROWS, HEIGHT, WIDTH = 6, 5, 7
# Every value differs from its neighbours, and the sides from each other: any wrong order of the axes shows.
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), np.uint8)
DEPTHS = np.random.default_rng(1).uniform(0.7, 9.9, (ROWS, HEIGHT, WIDTH)).astype(np.float32)
TRAIN, TEST = [2, 4], [1, 3, 6]  # as splits.mat counts, from 1


@pytest.fixture
def path(tmp_path):
    labelled(tmp_path / "nyu_depth_v2_labeled.mat")
    split(tmp_path / "splits.mat")
    return tmp_path / "nyu_depth_v2_labeled.mat"


def labelled(path, images=IMAGES, depths=DEPTHS):
    """As MATLAB writes (H, W, 3, N) and (H, W, N) in version 7.3: a header of its own, axes reversed, and more."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values, order in (("images", images, (0, 3, 2, 1)), ("depths", depths, (0, 2, 1))):
            file[name] = values.transpose(order)
            file[name].attrs["MATLAB_class"] = np.bytes_("uint8" if name == "images" else "single")
        file["rawDepths"] = np.zeros_like(depths)
        file.create_dataset("names", (1, 3), h5py.ref_dtype)
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(128))


def split(path, train=TRAIN, test=TEST):
    """Columns of doubles, as MATLAB has them."""
    columns = {"trainNdxs": train, "testNdxs": test}
    scipy.io.savemat(path, {name: np.array(rows, np.float64).reshape(-1, 1) for name, rows in columns.items()})


def refused(text, *arguments, **options):
    with pytest.raises(DataError) as caught:
        nyu(*arguments, **options)
    assert text in str(caught.value)


@pytest.mark.parametrize(("chosen", "rows"), [("test", TEST), ("train", TRAIN), (None, TEST)])
def test_a_split_of_the_labelled_file(path, chosen, rows):
    images = nyu(path, CARD, split=chosen)
    assert images.ids == [row - 1 for row in rows]
    for sample, row in zip(images, images.ids, strict=True):
        assert torch.equal(sample.image, torch.from_numpy(IMAGES[row]).permute(2, 0, 1) / 255)
        assert torch.equal(sample.ground_truth, torch.from_numpy(DEPTHS[row]))
    assert repr(images).startswith(f"<ImageSet nyu_depth_v2_labeled.mat ({chosen or 'test'}): {len(rows)} images")
    assert nyu(path, CARD, split=chosen, limit=1).ids == [rows[0] - 1]


def test_the_ids_are_those_of_the_whole_file(path):
    """So the random draws of an image are the same."""
    whole = hdf5(path, CARD)
    for sample in nyu(path, CARD):
        assert torch.equal(whole[sample.id].image, sample.image)


def test_splits_that_lie_elsewhere(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    split(tmp_path / "elsewhere" / "mine.mat", test=[5])
    assert nyu(path, CARD, splits=tmp_path / "elsewhere" / "mine.mat").ids == [4]


def test_the_path_alone_is_the_test_split_where_the_splits_are(path):
    assert open_data(path, CARD).ids == [row - 1 for row in TEST]
    assert open_data(f"nyu(path={str(path)!r}, split='train')", CARD, limit=1).ids == [TRAIN[0] - 1]
    path.with_name("splits.mat").unlink()
    assert open_data(path, CARD).ids == list(range(ROWS))


def test_it_can_be_pickled(path):
    images = nyu(path, CARD)
    assert torch.equal(pickle.loads(pickle.dumps(images))[2].image, images[2].image)


def test_missing_and_nan_depth_is_unknown(path):
    depths = DEPTHS.copy()
    depths[0, 0, :3] = (0, np.nan, np.inf)
    depths[0, 1, 0] = -1
    labelled(path, depths=depths)
    truth = nyu(path, CARD)[0].ground_truth
    unknown = truth == 0
    assert unknown.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert torch.equal(truth[~unknown], torch.from_numpy(DEPTHS[0])[~unknown])


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-200])
    refused(f"{path}: cannot be read as HDF5 (truncated, damaged or foreign", path, CARD)


def test_missing_files(path):
    refused("does not exist", path.with_name("nowhere.mat"), CARD)
    path.with_name("splits.mat").unlink()
    refused(f"{path.with_name('splits.mat')} does not exist; NYU's official splits.mat is on https://", path, CARD)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([1, 3, ROWS + 1], "beyond the file"),
        ([0, 1], "counted from 0"),
        ([1, 1, 3], "twice"),
        ([1.5], "no whole number"),
        ([], "none"),
        ([np.nan], "not a number"),
    ],
)
def test_splits_that_do_not_fit_the_file(path, rows, why):
    split(path.with_name("splits.mat"), test=rows)
    refused(f"splits.mat: testNdxs must be different whole numbers from 1 to {ROWS}, the rows of the data", path, CARD)


def test_splits_without_the_split(path):
    scipy.io.savemat(path.with_name("splits.mat"), {"other": 1})
    refused("splits.mat: no testNdxs in it; NYU's splits.mat has testNdxs and trainNdxs", path, CARD)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", "cut", "labelled"])
def test_splits_that_cannot_be_read(path, content):
    file = path.with_name("splits.mat")
    content = {"cut": file.read_bytes()[:-20], "labelled": path.read_bytes()}.get(content, content)
    file.write_bytes(content)
    refused("splits.mat: cannot be read as NYU's splits.mat", path, CARD)


def test_options_of_the_other_form_are_refused(path, tmp_path):
    with pytest.raises(TypeError, match=r"files= goes with a folder of pictures; .* is none, choose with split="):
        nyu(path, CARD, files="list.txt")
    for option in ({"split": "test"}, {"splits": "splits.mat"}):
        with pytest.raises(TypeError, match=r"split= and splits= go with the labelled file; .* is a folder"):
            nyu(tmp_path, CARD, **option)
    with pytest.raises(ValueError, match="split must be 'test' or 'train', not 'val'"):
        nyu(path, CARD, split="val")


def test_a_folder_of_pairs(tmp_path):
    for scene, millimetres in (("bathroom", 1500), ("kitchen", 2500)):
        (tmp_path / scene).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / scene / "rgb_00045.jpg")
        Image.fromarray(np.full((6, 8), millimetres, np.uint16)).save(tmp_path / scene / "sync_depth_00045.png")
    images = nyu(tmp_path, CARD)
    assert images.ids == ["bathroom/00045", "kitchen/00045"]
    assert [sample.ground_truth.mean().item() for sample in images] == [1.5, 2.5]
