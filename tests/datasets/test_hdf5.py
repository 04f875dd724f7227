import pickle

import h5py
import numpy as np
import pytest
import torch

from xai_assert.datasets import hdf5, open_data
from xai_assert.errors import DataError
from xai_assert.subject import Card
from xai_assert.tasks import Classification, Segmentation

CARD = Card(name="depthnet", unit="m")
# Every pixel differs, so that any wrong order of the axes shows; the second row is wide, not high.
IMAGES = np.arange(2 * 3 * 5 * 7, dtype=np.uint8).reshape(2, 3, 5, 7)
DEPTHS = np.arange(1, 2 * 5 * 7 + 1, dtype=np.float32).reshape(2, 5, 7)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "val.h5"


def write(path, attributes=(), **data):
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file[name] = values
        for name, attribute, value in attributes:
            file[name].attrs[attribute] = value
    return path


def refused(path, text):
    with pytest.raises(DataError) as caught:
        hdf5(path, CARD)
    assert text in str(caught.value)
    assert path.name in str(caught.value)


def matlab(**data):
    """As MATLAB 7.3 writes: the axes in reverse, and its class as an attribute."""
    return {
        "attributes": [(name, "MATLAB_class", np.bytes_(str(values.dtype))) for name, values in data.items()],
        **{name: values.T for name, values in data.items()},
    }


@pytest.mark.parametrize(
    "contents",
    [
        {"images": IMAGES, "depths": DEPTHS},
        {"images": IMAGES.transpose(0, 2, 3, 1), "depths": DEPTHS.astype(np.float64)},
        {"images": IMAGES, "depths": (DEPTHS * 1000).astype(np.int32), "attributes": [("depths", "scale", [[1000]])]},
        matlab(images=IMAGES.transpose(2, 3, 1, 0), depths=DEPTHS.transpose(1, 2, 0)),  # H, W, 3, N and H, W, N there
    ],
    ids=["channels first", "channels last", "integers", "matlab"],
)
def test_rows_come_as_written(path, contents):
    images = open_data(write(path, **contents), CARD)
    assert images.ids == [0, 1]
    for row, sample in enumerate(images):
        assert sample.id == row
        assert torch.equal(sample.image, torch.from_numpy(IMAGES[row]) / 255)
        assert torch.equal(sample.ground_truth, torch.from_numpy(DEPTHS[row]))


LABELS = np.arange(2 * 5 * 7, dtype=np.uint16).reshape(2, 5, 7)
SEGMENTED = Card(name="segmenter", task=Segmentation())


@pytest.mark.parametrize(
    "contents",
    [
        {"images": IMAGES, "depths": DEPTHS, "labels": LABELS},
        matlab(images=IMAGES.transpose(2, 3, 1, 0), labels=LABELS.transpose(1, 2, 0)),
    ],
    ids=["plain", "matlab"],
)
def test_labels_are_the_truth_of_a_segmentation(path, contents):
    images = hdf5(write(path, **contents), SEGMENTED)
    assert repr(images) == "<ImageSet val.h5: 2 images, labels, for segmenter>"
    assert torch.equal(images.ground_truth(), torch.from_numpy(LABELS.astype(np.float32)))


def test_labels_are_never_mixed(path):
    """At half the size there is no label that was not there before."""
    card = Card(name="segmenter", task=Segmentation(), output_size=(2, 3))
    (first, _) = hdf5(write(path, images=IMAGES, labels=LABELS * 10), card)
    assert first.ground_truth.shape == (2, 3)
    assert (first.ground_truth % 10 == 0).all()


def test_classes_are_the_truth_of_a_classification(path):
    card = Card(name="classifier", task=Classification(), input_size=(10, 14))
    images = hdf5(write(path, images=IMAGES, depths=DEPTHS, classes=np.array([4, 2], np.uint8)), card)
    assert images.ground_truth().tolist() == [4, 2]
    assert hdf5(write(path, images=IMAGES, depths=DEPTHS), card).ground_truth() is None  # depth is no class


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS[:1], "labels are (1, 5, 7), not (2, 5, 7) as images (2, 3, 5, 7) need"),
        (LABELS.astype(np.float32), "labels must be whole numbers, not float32"),
    ],
)
def test_labels_that_do_not_fit(path, labels, said):
    with pytest.raises(DataError) as caught:
        hdf5(write(path, images=IMAGES, labels=labels), SEGMENTED)
    assert said in str(caught.value)


def test_matlab_files_lie_as_nyu_s_do():
    assert matlab(images=np.empty((480, 640, 3, 9)))["images"].shape == (9, 3, 640, 480)


def test_images_alone_have_no_ground_truth(path):
    images = hdf5(write(path, images=IMAGES), Card(name="classifier"), limit=1)
    assert images.ids == [0]
    assert images[0].ground_truth is None


def test_only_the_row_of_an_item_is_read(path):
    """The rows carry checksums, and all but one are damaged: whoever reads them fails."""
    with h5py.File(path, "w") as file:
        options = {"chunks": (1, 5, 7, 3), "fletcher32": True}
        data = file.create_dataset("images", data=np.full((4, 5, 7, 3), 99, np.uint8), **options)
        places = [data.id.get_chunk_info(row).byte_offset for row in (0, 1, 3)]
    damaged = bytearray(path.read_bytes())
    for place in places:
        damaged[place] ^= 1
    path.write_bytes(damaged)
    images = hdf5(path, CARD)
    assert images[2].image.unique().tolist() == pytest.approx([99 / 255])
    with pytest.raises(DataError, match=r"val\.h5: cannot be read as HDF5 \(truncated, damaged or foreign\)"):
        images[3]


def test_no_handle_stays_open(path):
    """So a set can be forked, pickled and, on Windows, its file deleted."""
    images = hdf5(write(path, images=IMAGES), CARD)
    same = pickle.loads(pickle.dumps(images))
    assert torch.equal(same[1].image, images[1].image)
    assert not h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def test_a_data_set_that_is_missing(path):
    refused(
        write(path, pictures=IMAGES), "no data set 'images'; expected are images and, if known, depths; found: pict"
    )


@pytest.mark.parametrize("name", ["images", "depths"])
@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/images"), h5py.SoftLink("/elsewhere")])
def test_links_are_refused(path, name, link):
    write(path.with_name("other.h5"), images=IMAGES)
    write(path, **{"images": IMAGES, name: link})
    refused(path, f"{name} is a link to elsewhere ({type(link).__name__}), which is refused")


def test_external_storage_is_refused(path):
    path.with_name("raw").write_bytes(bytes(IMAGES.size))
    with h5py.File(path, "w") as file:
        file.create_dataset("images", IMAGES.shape, np.uint8, external=[("raw", 0, IMAGES.size)])
    refused(path, "images keeps its values in other files (external or virtual), which is refused")


def test_virtual_data_sets_are_refused(path):
    write(path.with_name("other.h5"), images=IMAGES)
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "images", IMAGES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)
    refused(path, "images keeps its values in other files (external or virtual), which is refused")


def test_a_group_is_no_data_set(path):
    with h5py.File(path, "w") as file:
        file.create_group("images")
    refused(path, "images is a group, not a data set")


def test_a_truncated_file(path):
    write(path, images=IMAGES)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "cannot be read as HDF5 (truncated, damaged or foreign)")


def test_a_foreign_file(path):
    path.write_bytes(b"PK\x03\x04 something else")
    refused(path, "cannot be read as HDF5 (truncated, damaged or foreign)")
    refused(path.rename(path.with_suffix(".mat")), "foreign; MATLAB must have saved it as version 7.3)")


def test_a_missing_file(path):
    refused(path, "does not exist")
    refused(path.parent, "not a file")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (IMAGES.astype(np.float32), "images must be uint8 (N, H, W, 3) or (N, 3, H, W), not float32 (2, 3, 5, 7)"),
        (IMAGES[0], "not uint8 (3, 5, 7)"),
        (IMAGES[:0], "not uint8 (0, 3, 5, 7)"),
        (IMAGES[:, :2], "images must have one axis of 3 channels, the second or the last, not (2, 2, 5, 7)"),
        (IMAGES[..., :3], "images must have one axis of 3 channels, the second or the last, not (2, 3, 5, 3)"),
        (np.bytes_("text"), "images must be uint8"),
        (h5py.Empty(np.uint8), "not uint8 ()"),
    ],
    ids=["float", "rank 3", "empty", "two channels", "both axes", "text", "nothing"],
)
def test_images_of_another_kind(path, images, text):
    refused(write(path, images=images), text)


def test_matlab_images_of_another_order(path):
    contents = matlab(images=np.zeros((9, 5, 7, 3), np.uint8))
    refused(write(path, **contents), "images of a MATLAB file must be (H, W, 3, N) there, not (9, 5, 7, 3)")


def test_an_enormous_picture_is_refused(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1, 10**5, 10**5, 3), np.uint8)  # never filled: a file of 2 kB
    refused(path, "images of 100000x100000 pixels are above Pillow's limit for a picture")


@pytest.mark.parametrize(
    ("depths", "scale", "text"),
    [
        (DEPTHS[:1], None, "depths are (1, 5, 7), not (2, 5, 7) as images (2, 3, 5, 7) need"),
        (DEPTHS.transpose(0, 2, 1), None, "depths are (2, 7, 5), not (2, 5, 7) as images (2, 3, 5, 7) need"),
        (DEPTHS.astype(np.uint16), None, "depths are uint16 and need an attribute scale, stored values per metre"),
        (DEPTHS.astype(np.uint16), 0.0, "the attribute scale of depths must be a positive number, not 0.0"),
        (DEPTHS.astype(np.complex64), None, "depths must be numbers, not complex64"),
        (DEPTHS, [1.0, 2.0], "must be a positive number, not [1. 2.]"),
        (DEPTHS, "millimetres", "must be a positive number, not millimetres"),
    ],
    ids=["fewer rows", "sideways", "no scale", "scale 0", "complex", "two scales", "scale in words"],
)
def test_depths_that_do_not_fit(path, depths, scale, text):
    attributes = [] if scale is None else [("depths", "scale", scale)]
    refused(write(path, attributes, images=IMAGES, depths=depths), text)
