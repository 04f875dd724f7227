"""PixelFormer is the published network: its names, its shapes and its numbers; and the small one is fit for use."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from known_models import draw, seeded
from models.parity import drawn_images, drawn_weights
from torch import nn

import xai_assert as xa
from xai_assert import registry
from xai_assert.errors import CheckpointError, UnknownNameError
from xai_assert.models import pixelformer, published_pixelformer, swin
from xai_assert.models.meter import Meter
from xai_assert.models.pixelformer import SIZES, BinCentres, Pixelformer
from xai_assert.preserve import full_precision

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ANSWERS = Path(__file__).with_name("pixelformer_parity.npz")
KEY = "pixelformer-tiny07_96_128"
TOLERANCE = 5e-6  # float64 against the published float32: 5e-7 measured
# In float32 the pyramid's mean over the whole picture is normalised in groups of two channels, so that each pair
# becomes (1, -1) times a sign: where two channels are nearly equal rounding is magnified. 6e-6 to 2e-5 measured.
FLOAT32 = 1e-4


def on_meta(size):
    with torch.device("meta"):
        return Pixelformer(size)


def difference(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


# The published network


def test_names_and_shapes_are_the_official_ones(shared_data):
    official = json.loads((shared_data / "pixelformer_state_dict.json").read_text())
    assert sorted(official) == ["large07", "tiny07"]
    for size, shapes in official.items():
        assert {name: list(value.shape) for name, value in on_meta(size).state_dict().items()} == shapes


@pytest.mark.parametrize(("size", "count"), [("large07", 270_895_920), ("base07", 140_432_340), ("tiny07", 88_906_326)])
def test_parameter_count(size, count):
    assert sum(p.numel() for p in on_meta(size).parameters()) == count


@pytest.fixture(scope="module")
def tiny():
    """The tiny network with weights drawn from their names, in float64."""
    network = on_meta("tiny07").to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, swin.WindowAttention):
            module.relative_position_index = swin.get_relative_position_index(7, 7)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    network.load_state_dict(drawn_weights(network))
    return network.double().eval()


@pytest.fixture(scope="module")
def theirs():
    """What the published network answered: of each 4x4 pixels (all of them interpolated) the one at (1, 2)."""
    with np.load(ANSWERS) as answers:
        return torch.from_numpy(answers[KEY])


def answer(network, dtype=torch.float64):
    with torch.no_grad():
        output = network(drawn_images(96, 128).to(dtype))
    assert output.shape == (2, 1, 96, 128)
    return output[..., 1::4, 2::4]


def test_output_is_that_of_the_published_network(tiny, theirs):
    assert difference(answer(tiny), theirs) < TOLERANCE


def test_output_in_float32(tiny, theirs):
    try:
        assert difference(answer(tiny.float(), torch.float32), theirs) < FLOAT32
    finally:
        tiny.double()


def with_the_windows_masks_in_another_order(tiny, patch):
    right = swin.apart

    def wrong(grid, window, shift, like):
        padded = [side + -side % window for side in grid]
        mask = right(grid, window, shift, like).reshape(padded[0] // window, padded[1] // window, window**2, -1)
        return mask.flip(0, 1).reshape(-1, 1, window**2, window**2)

    patch.setattr(swin, "apart", wrong)


def without_mask(tiny, patch):
    patch.setattr(swin, "apart", lambda grid, window, shift, like: like.new_zeros(()))


def without_the_shift_of_a_single_window(tiny, patch):
    patch.setattr(tiny.backbone.layers[3].blocks[1], "shift", 0)


def with_other_groups(tiny, patch):
    for branch in tiny.decoder.psp_modules:
        patch.setattr(branch[1].gn, "num_groups", 32)


def with_corners_aligned(tiny, patch):
    patch.setattr(pixelformer.F, "interpolate", functools.partial(F.interpolate, align_corners=True))


def with_another_largest_depth(tiny, patch):
    patch.setattr(tiny.bcp, "max_depth", 10.01)


def with_the_other_gelu(tiny, patch):
    for module in tiny.backbone.modules():
        if isinstance(module, nn.GELU):
            patch.setattr(module, "approximate", "tanh")


def with_padding_before_the_norm(tiny, patch):
    """A norm makes its bias of a padding of zeros."""
    for stage in tiny.backbone.layers:
        for block in stage.blocks:

            def moved(x, cut=swin.cut, norm=block.norm1):
                grid, window = x.shape[1:3], 7
                padded = F.pad(x, (0, 0, 0, -grid[1] % window, 0, -grid[0] % window))
                return norm.__class__.forward(norm, padded)

            patch.setattr(block.norm1, "forward", moved)
    right = swin.join
    patch.setattr(swin, "join", lambda x, grid, *rest: right(x, grid, *rest)[:, : grid[0], : grid[1]])


MISTAKES = [
    with_the_windows_masks_in_another_order,
    without_mask,
    without_the_shift_of_a_single_window,
    with_other_groups,
    with_corners_aligned,
    with_another_largest_depth,
    with_the_other_gelu,
    with_padding_before_the_norm,
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_parity_notices(tiny, theirs, monkeypatch, mistake):
    with monkeypatch.context() as patch:
        mistake(tiny, patch)
        assert difference(answer(tiny), theirs) > 2 * FLOAT32
    assert difference(answer(tiny), theirs) < TOLERANCE


# The parts


def test_bins_of_equal_width_when_no_image_asks_for_more():
    centres = BinCentres(8, 4, min_depth=0.1, max_depth=10.1)
    nn.init.zeros_(centres.fc2.weight)
    nn.init.zeros_(centres.fc2.bias)
    found = centres(draw(2, 8, 3, 5)).flatten(1)
    torch.testing.assert_close(found, torch.tensor([[1.35, 3.85, 6.35, 8.85]] * 2))


@pytest.mark.parametrize(("min_depth", "max_depth"), [(0.1, 10.0), (0.1, 80.0)])
def test_depth_stays_between_the_bounds(min_depth, max_depth):
    network = seeded(Pixelformer("nano", min_depth=min_depth, max_depth=max_depth)).eval()
    for parameter in network.disp_head1.parameters():
        parameter.data.mul_(100)  # so that every pixel is sure of one bin
    with torch.no_grad():
        depth = network(draw(2, 3, 64, 64))
    assert min_depth < depth.min() < depth.max() < max_depth
    assert depth.max() - depth.min() > 0.5 * (max_depth - min_depth)


@pytest.mark.parametrize("grid", [(8, 12), (7, 5), (2, 3)])
@pytest.mark.parametrize("shift", [0, 2])
def test_windows_are_cut_and_joined(grid, shift):
    x = draw(2, *grid, 3)
    windows = swin.cut(x, 4, shift)
    assert windows.shape == (2, -(-grid[0] // 4) * -(-grid[1] // 4), 16, 3)
    assert torch.equal(swin.join(windows, grid, 4, shift), x)


@pytest.mark.parametrize("grid", [(8, 12), (7, 5), (2, 3)])
def test_only_neighbours_in_the_picture_attend_to_each_other(grid):
    """A window of the shifted, padded grid holds tokens that the shift alone brought together: those are kept apart."""
    window, shift = 4, 2
    rows, columns = (side + -side % window for side in grid)
    mask = swin.apart(grid, window, shift, torch.zeros(()))
    for row in range(0, rows, window):
        for column in range(0, columns, window):
            group = mask[(row // window) * (columns // window) + column // window, 0]
            places = [
                ((r + shift), (c + shift)) for r in range(row, row + window) for c in range(column, column + window)
            ]
            for i, a in enumerate(places):
                for j, b in enumerate(places):
                    together = (a[0] < rows) == (b[0] < rows) and (a[1] < columns) == (b[1] < columns)
                    assert group[i, j] == (0 if together else -100)


# Sizes of images


@pytest.mark.parametrize("pixels", [(192, 256), (480, 640), (352, 1216), (32, 32), (64, 160)])
def test_output_has_the_size_of_the_input(pixels):
    with torch.no_grad():
        depth = seeded(Pixelformer("nano")).eval()(draw(1, 3, *pixels))
    assert depth.shape == (1, 1, *pixels)
    assert depth.isfinite().all()


@pytest.mark.parametrize(
    ("pixels", "near"), [((100, 128), "96x128"), ((375, 1242), "384x1248"), ((8, 64), "32x64"), ((192, 250), "192x256")]
)
def test_sides_that_are_no_multiples_of_32(pixels, near):
    network = Pixelformer("nano")
    said = f"must be multiples of 32, not {pixels[0]}x{pixels[1]}. Resize or crop them, for example to {near}"
    with pytest.raises(ValueError, match=said):
        network(torch.zeros(1, 3, *pixels))
    with pytest.raises(ValueError, match=said):
        network.attention_taps(*pixels)


def test_unknown_size():
    with pytest.raises(UnknownNameError, match="unknown PixelFormer size 'tiny7'; did you mean 'tiny07'"):
        Pixelformer("tiny7")


# By name


@pytest.fixture
def small(monkeypatch):
    """Whatever size is asked for, the small network is built."""
    monkeypatch.setattr(published_pixelformer, "Pixelformer", lambda size, **options: Pixelformer("nano", **options))


def load(*args, **kwargs):
    return xa.load_model(*args, device="cpu", **kwargs)


def test_registered_names():
    full = {f"pixelformer-{size}-{data}" for size in ("tiny07", "base07", "large07") for data in ("nyu", "kitti")}
    short = {"pixelformer-tiny07", "pixelformer-base07", "pixelformer-large07", "pixelformer-nano"}
    assert {name for name in registry.models.names() if "pixelformer" in name} == full | short


@pytest.mark.parametrize("size", ["tiny07", "base07", "large07"])
@pytest.mark.parametrize(("data", "pixels", "depth"), [("nyu", (480, 640), 10), ("kitti", (352, 1216), 80)])
def test_card(small, size, data, pixels, depth):
    subject = load(f"pixelformer-{size}-{data}")
    card = subject.card
    assert (card.name, card.weights) == (f"pixelformer-{size}-{data}-random", "random(seed=0)")
    assert (card.task.name, card.unit, card.layout) == ("depth", "m", "RGB")
    assert (card.mean, card.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (card.input_size, card.output_size) == (pixels, pixels)
    assert (subject.module.bcp.min_depth, subject.module.bcp.max_depth) == (0.1, depth)


def test_short_names_are_nyu(small):
    assert load("pixelformer-large07").card == load("pixelformer-large07-nyu").card


def test_the_small_ones_card():
    subject = load("pixelformer-nano")
    assert repr(subject) == "<Subject pixelformer-nano-random: depth in m, Pixelformer, 1,204,626 parameters on cpu>"
    assert (subject.card.input_size, subject.card.output_size) == ((192, 256), (192, 256))
    with torch.no_grad():
        assert subject(torch.zeros(1, 3, 192, 256)).shape == (1, 1, 192, 256)


@pytest.mark.parametrize("name", ["pixelformer-nano", "pixelformer-large07-kitti"])
def test_a_checkpoint_in_the_official_format(small, tmp_path, name):
    trained = seeded(Pixelformer("nano"), seed=3)
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"model": state}, tmp_path / "mine.pt")
    subject = load(name, weights=tmp_path / "mine.pt")
    assert (subject.name, subject.card.weights) == (name, "mine.pt")
    for key, value in subject.module.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key]), key


def test_a_checkpoint_that_lacks_one_name(tmp_path):
    state = Pixelformer("nano").state_dict()
    del state["sam1.proj.weight"]
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match=r"does not fit pixelformer-nano; 1 missing: sam1.proj.weight$"):
        load("pixelformer-nano", weights=tmp_path / "mine.pt")


def test_a_checkpoint_of_another_network(tmp_path, monkeypatch):
    torch.save(Meter("xxs").state_dict(), tmp_path / "meter.pt")
    torch.save(Pixelformer("nano").state_dict(), tmp_path / "nano.pt")
    with pytest.raises(CheckpointError, match=r"meter.pt does not fit pixelformer-nano; \d+ missing: "):
        load("pixelformer-nano", weights=tmp_path / "meter.pt")
    monkeypatch.setattr(published_pixelformer, "Pixelformer", lambda size, **options: on_meta(size))
    said = "nano.pt does not fit pixelformer-large07-nyu; these are the names and shapes of pixelformer-nano; "
    with pytest.raises(CheckpointError, match=said):
        load("pixelformer-large07", weights=tmp_path / "nano.pt")


@pytest.mark.parametrize("data", ["nyu", "kitti"])
def test_published_weights_must_be_fetched_by_hand(data):
    said = f"weights='{data}' cannot be downloaded by a program; .*by hand from where https.* path as weights="
    with pytest.raises(CheckpointError, match=said):
        load(f"pixelformer-large07-{data}", weights=data)


# The small one


def test_the_small_one_learns():
    """Thirty steps towards the depth of a slope, from its default initialisation; every part that is used moves."""
    torch.manual_seed(0)
    network = Pixelformer("nano").train()
    images = draw(4, 3, 64, 64)
    depth = torch.linspace(1, 8, 64)[:, None].expand(4, 1, 64, 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = (network(images) - depth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    unused = {name for name, p in network.named_parameters() if p.grad is None}
    assert unused == {f"sam{i}.proj.{part}" for i in (1, 2, 3, 4) for part in ("weight", "bias")}


def test_the_small_one_works_less_than_meter():
    """Multiplications at 192x256, at most nine tenths of METER-XXS's: the time that follows is no matter for a test."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for network in (Pixelformer("nano"), Meter("xxs")):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 3, 192, 256))
        counts.append(counter.get_total_flops())
    assert 0 < counts[0] < 0.9 * counts[1]


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("size", ["nano", "tiny07"])
def test_gpu_and_cpu_agree(size):
    network = seeded(Pixelformer(size)).eval()
    images = drawn_images(96, 128)
    with torch.no_grad(), full_precision():
        here = network(images)
        there = network.cuda()(images.cuda()).cpu()
    assert difference(there, here) < FLOAT32


def test_sizes():
    assert list(SIZES) == ["tiny07", "base07", "large07", "nano"]
