"""What a stored heatmap forgives, and what it does not."""

import h5py
import numpy as np
import pytest
import torch
from known_models import curved, draw

import xai_assert as xa
from xai_assert.stored_heatmap import StoredHeatmap, compare

ABOUT = {"subject": "net", "fingerprint": "f" * 16, "method": "saliency", "image_id": "a", "seed": 0, "device": "cpu"}


def stored(values, **about):
    return StoredHeatmap.of(torch.as_tensor(values), ABOUT | about)


@pytest.fixture
def images():
    smooth = torch.nn.functional.interpolate(draw(2, 3, 14, 14), size=(112, 112), mode="bicubic")
    return smooth + 0.1 * draw(2, 3, 112, 112, seed=1)


@pytest.fixture(params=["saliency", "integrated_gradients"])
def attribution(request, images):
    method = request.param if request.param == "saliency" else xa.method("integrated_gradients", steps=8)
    options = {"task": "depth", "mean": [0.5] * 3, "std": [0.25] * 3}
    return lambda model=None, pictures=images, **more: xa.attribute(
        model or curved(), pictures, method, **options, **more
    )


def test_the_signed_channel_sum_is_averaged_to_at_most_56():
    found = stored(torch.stack([torch.ones(112, 224), -3 * torch.ones(112, 224)]))
    assert found.values.shape == (28, 56)
    assert found.values.dtype == np.float32
    assert (found.values == -2).all()
    assert stored(torch.arange(6.0).reshape(2, 3)).values.tolist() == [[0, 1, 2], [3, 4, 5]]  # small ones stay
    four = torch.arange(4.0).repeat_interleave(56)[None].expand(112, -1)
    assert stored(four).values[0, ::14].tolist() == [0, 1, 2, 3]


def test_a_file_is_small_and_the_same_for_the_same_content(attribution):
    one = stored(attribution()[0])
    content = one.to_bytes()
    assert content == stored(attribution()[0]).to_bytes()
    assert len(content) < 10_000  # 56 x 56 values of 18 bits that look like noise, and what they are of
    again = StoredHeatmap.read(content)
    assert np.abs(again.values - one.values).max() <= 2**-17 * np.ptp(one.values)
    assert again.to_bytes() == content
    assert again.about == one.about


@pytest.mark.parametrize(
    "change",
    [
        lambda model, images: (model.double(), images.double()),  # the noise of float32
        lambda model, images: (model, images.contiguous(memory_format=torch.channels_last)),
    ],
    ids=["float64", "channels_last"],
)
def test_the_noise_of_devices_passes(attribution, images, change):
    before = attribution()
    model, others = change(curved(), images)
    after = attribution(model, others)
    for one, other in zip(before, after, strict=True):
        found = compare(stored(one), stored(other))
        assert found.ok, found.headline()


def test_another_batch_size_passes(attribution):
    pairs = zip(attribution(batch_size=1), attribution(batch_size=2), strict=True)
    assert all(compare(stored(one), stored(other)).ok for one, other in pairs)


def zero_centre(maps):
    changed = maps.clone()
    changed[..., 40:72, 40:72] = 0
    return changed


PLANTED = {
    "zeroing the centre": zero_centre,
    "shifting by 8 pixels": lambda maps: maps.roll(8, -1),
    "swapping two images": lambda maps: maps.flip(0),
    "a sign flip": lambda maps: -maps,
    "noise": lambda maps: maps + 0.2 * maps.std() * draw(*maps.shape, seed=7),
    "one channel lost": lambda maps: maps * torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_change_fails_on_every_image(attribution, fault):
    before = attribution()
    after = PLANTED[fault](before)
    for one, other in zip(before, after, strict=True):
        found = compare(stored(one), stored(other))
        assert not found.ok, found.numbers()


def test_a_small_hot_spot_that_vanishes_fails():
    heat = torch.zeros(56, 56)
    heat[20:24, 20:24] = 1  # 16 of 3136 pixels: 0.5 %, fewer than may move
    background = 1e-4 * draw(56, 56).abs()
    found = compare(stored(heat + background), stored(background))
    assert found.moved <= 0.01
    assert not found.ok


def test_the_figures_are_those_worked_out_on_paper():
    ramp = torch.arange(100.0).reshape(10, 10)
    found = compare(stored(ramp), stored(ramp))
    assert (found.moved, found.rank, found.overlap) == (0, pytest.approx(1), 1)
    found = compare(stored(ramp), stored(ramp.flip(0, 1)))
    assert (found.moved, found.rank, found.overlap) == (1, pytest.approx(-1), 0)
    moved = ramp.clone()
    moved[0, :3] += 1  # of a range of 99: three pixels by about 1 %
    assert compare(stored(ramp), stored(moved)).moved == pytest.approx(0.03)
    top = ramp.clone()
    top[9, 9], top[0, 0] = 0, 99  # one of the five highest trades places with the lowest
    assert compare(stored(ramp), stored(top)).overlap == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        (torch.zeros(4, 4), torch.zeros(4, 4), True),
        (torch.zeros(4, 4), torch.ones(4, 4), False),
        (torch.zeros(4, 4), torch.eye(4), False),
        (torch.eye(4), torch.zeros(4, 4), False),
        (torch.rand(4, 4), torch.rand(4, 5), False),
    ],
    ids=["constant", "other constant", "from constant", "to constant", "size"],
)
def test_maps_that_rank_nothing_and_maps_of_other_sizes(one, other, close):
    assert compare(stored(one), stored(other)).ok is close


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (
            {"fingerprint": "0" * 16},
            "the MODEL changed (weights ffffffffffffffff -> 0000000000000000); 0.0 % of pixels",
        ),
        ({"method": "edges"}, "is not of what is stored: method 'saliency' -> 'edges'"),
        ({"image_id": "b"}, "is not of what is stored: image id 'a' -> 'b'"),
        ({"seed": 1}, "is not of what is stored: seed 0 -> 1"),
    ],
)
def test_what_is_of_something_else_is_red_however_close(about, words):
    found = compare(stored(torch.eye(4)), stored(torch.eye(4), **about))
    assert found.close
    assert not found.ok
    assert words in found.headline()


def test_other_versions_and_devices_are_said_and_forgiven():
    found = compare(
        stored(torch.eye(4), versions={"torch": "2.15.0"}),
        stored(torch.eye(4), versions={"torch": "2.16.0"}, device="cuda"),
    )
    assert found.ok
    assert found.circumstances() == "device cpu -> cuda, torch 2.15.0 -> 2.16.0"


def test_a_map_that_is_not_finite_is_not_stored():
    with pytest.raises(ValueError, match=r"attribution of saliency on image a is not finite \(NaN or infinity\)"):
        stored(torch.tensor([[1.0, float("nan")]]))


def test_a_file_that_is_no_heatmap_is_said(tmp_path):
    content = stored(torch.eye(4)).to_bytes()
    with h5py.File(tmp_path / "other.h5", "w") as root:
        root["images"] = [1]
    for bad in (b"", b"text", content[: len(content) // 2], (tmp_path / "other.h5").read_bytes()):
        with pytest.raises(xa.DataError, match=r"kitchen\.h5 cannot be read as a stored heatmap"):
            StoredHeatmap.read(bad, "kitchen.h5")


def plateaus(seed):
    """A map of equal patches, as a rollout's, on levels that no step of the stored values hits."""
    return (4 * draw(6, 8, seed=seed)).round().div(4).mul(0.99991).repeat_interleave(7, 0).repeat_interleave(7, 1)


MANY_EQUALS = {
    "patches": [plateaus(seed) for seed in range(30)],
    "zeros": [torch.where(draw(42, 56, seed=seed) > 1.3, draw(42, 56), 0.0) for seed in range(10)],
    "nearly constant": [torch.full((42, 56), value) for value in (0.7, -3.0)],
}


@pytest.mark.parametrize("kind", MANY_EQUALS)
def test_noise_among_equals_passes(kind):
    """5e-6 of the range is the largest that float64 moved a bundled network's map by."""
    for seed, heat in enumerate(MANY_EQUALS[kind]):
        noise = 2e-6 * np.ptp(heat.numpy()) + 1.2e-7 * heat.abs().max()
        noisy = heat.double() + noise * draw(*heat.shape, seed=100 + seed).clamp(-2, 2)
        one, other = (StoredHeatmap.read(stored(values).to_bytes()) for values in (heat, noisy))
        found = compare(one, other)
        assert found.ok, found.headline()


def test_one_hot_pixel_does_not_blind():
    heat = 3e-5 * draw(42, 56).abs().clamp(max=1)
    heat[20, 20] = 1
    planted = -heat
    planted[20, 20] = 1
    found = compare(*(StoredHeatmap.read(stored(values).to_bytes()) for values in (heat, planted)))
    assert found.moved <= 0.01
    assert not found.ok


@pytest.mark.parametrize("value", [1e-42, 1e38])
def test_values_at_the_ends_of_float32_survive(value):
    heat = torch.tensor([[value, 0.0], [-value, value]])
    again = StoredHeatmap.read(stored(heat).to_bytes()).values
    assert np.abs(again - heat.numpy()).max() <= 2**-17 * 2 * value


def test_a_sum_that_overflows_is_not_stored():
    with pytest.raises(ValueError, match="is not finite"):
        stored(torch.full((3, 4, 4), 3e38))


@pytest.mark.parametrize(
    ("attributes", "values"),
    [
        ({"step": 1.0, "about": np.bytes_("{}")}, np.zeros((2, 2, 2))),
        ({"step": 1.0, "about": np.bytes_("[]")}, np.zeros((2, 2))),
        ({"step": "x", "about": np.bytes_("{}")}, np.zeros((2, 2))),
        ({"step": 1.0, "about": 3}, np.zeros((2, 2))),
        ({"step": 1.0}, np.zeros((2, 2))),
    ],
    ids=["three axes", "no dictionary", "no step", "no text", "nothing"],
)
def test_a_foreign_hdf5_file_is_said(tmp_path, attributes, values):
    with h5py.File(tmp_path / "other.h5", "w") as root:
        root["heatmap"] = values
        root.attrs.update({"schema": 1} | attributes)
    with pytest.raises(xa.DataError, match=r"other\.h5 cannot be read as a stored heatmap"):
        StoredHeatmap.read((tmp_path / "other.h5").read_bytes(), "other.h5")
