"""`xa.load_model`: names, cards, weights, seeds and what it refuses."""

import itertools
import random
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import xai_assert as xa
from xai_assert import registry
from xai_assert.models import published
from xai_assert.models.meter import Meter

NUMBERS = itertools.count()
NAMES = [f"meter-{size}-{data}" for size in ("s", "xs", "xxs") for data in ("nyu", "kitti")]
FACTORIES = """
import torch
from torch import nn
import xai_assert as xa

def build():
    return xa.describe(nn.Conv2d(3, 1, 1), name="conv", task="depth", unit="m")

def build_with(weights="own"):
    return xa.describe(nn.Conv2d(3, 1, 1), name=f"conv with {weights}", task="depth")

def build_any(**options):
    return xa.describe(nn.Conv2d(3, 1, 1), name=f"conv with {options}", task="depth")

def needs(width):
    return build()

def bare():
    return nn.Conv2d(3, 1, 1)

def nothing():
    pass

network = nn.Conv2d(3, 1, 1)
number = 3
_subject = build()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's, by its name; each test has another one."""
    name = f"mine_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def saved(tmp_path):
    """Weights of a METER-XXS that nobody published."""
    path = tmp_path / "my weights.pt"
    torch.save(Meter("xxs").state_dict(), path)
    return path


def load(*args, **kwargs):
    return xa.load_model(*args, **{"device": "cpu"} | kwargs)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# Names and cards


def test_registered_names():
    assert set(registry.models.names()) >= {*NAMES, "meter-s", "meter-xs", "meter-xxs"}


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    card = load(name).card
    assert (card.name, card.weights, card.task.name, card.layout) == (
        f"{name}-random",
        "random(seed=0)",
        "depth",
        "RGB",
    )
    if name.endswith("nyu"):
        assert (card.mean, card.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert (card.input_size, card.output_size, card.unit) == ((192, 256), (48, 64), "cm")
    else:
        assert (card.mean, card.std) == ((0, 0, 0), (1, 1, 1))
        assert (card.input_size, card.output_size, card.unit) == ((192, 636), (48, 160), "dm")


@pytest.mark.parametrize("name", ["meter-xxs-nyu", "meter-xxs-kitti"])
def test_the_cards_sizes_belong_together(name):
    subject = load(name)
    with torch.no_grad():
        assert subject(torch.zeros(1, 3, *subject.card.input_size)).shape[-2:] == subject.card.output_size


def test_short_names_are_nyu():
    short, full = load("meter-xxs"), load("meter-xxs-nyu")
    assert short.card == full.card
    assert equal(short, full)


def test_unknown_name():
    with pytest.raises(
        xa.UnknownNameError, match="unknown model 'meter-xxs-nuy'; did you mean 'meter-xxs-nyu'\\? known: "
    ):
        load("meter-xxs-nuy")


def test_a_module_is_no_name():
    with pytest.raises(
        TypeError, match=r"spec must be a registered name, 'module:factory' or a function, not a Conv2d; .*xa.describe"
    ):
        load(nn.Conv2d(3, 1, 1))


# What comes back


def test_evaluation_mode_and_frozen():
    subject = load("meter-xxs")
    assert not any(module.training for module in subject.modules())
    assert not any(p.requires_grad for p in subject.parameters())


def test_under_inference_mode():
    """Parameters made in inference mode could never be part of a gradient."""
    with torch.inference_mode():
        subject = load("meter-xxs")
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    subject(images).mean().backward()
    assert images.grad.abs().sum() > 0


def test_another_name(saved):
    assert load("meter-xxs", name="v7").card.name == "v7"
    subject = load("meter-xxs", saved, name="v7")
    assert (subject.name, subject.card.weights, subject.card.unit) == ("v7", "my weights.pt", "cm")


def test_unavailable_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not available; there is: cpu"):
        load("meter-xxs", device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu():
    state = torch.cuda.get_rng_state()
    subject = load("meter-xxs", device="auto")
    assert {value.device.type for value in subject.state_dict().values()} == {"cuda"}
    assert equal(subject.cpu(), load("meter-xxs"))
    assert torch.equal(torch.cuda.get_rng_state(), state)


# Random weights


def test_random_weights_follow_from_the_seed():
    first, again, other = load("meter-xxs"), load("meter-xxs", seed=0), load("meter-xxs", seed=1)
    assert equal(first, again)
    assert not equal(first, other)
    assert (other.name, other.card.weights) == ("meter-xxs-nyu-random", "random(seed=1)")


def test_random_state_is_left_alone(mine):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    load("meter-xxs", seed=5)
    load(f"{mine}:build", seed=5)
    with pytest.raises(TypeError):
        load(f"{mine}:bare", seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_users_factory_is_seeded_too(mine):
    assert equal(load(f"{mine}:build", seed=3), load(f"{mine}:build", seed=3))
    assert not equal(load(f"{mine}:build", seed=3), load(f"{mine}:build", seed=4))


# Weights of one's own, and the published ones


def test_a_path(saved):
    for path in (saved, str(saved)):
        subject = load("meter-xxs", path)
        assert (subject.name, subject.card.weights) == ("meter-xxs-nyu", "my weights.pt")
        for name, value in torch.load(saved).items():
            assert torch.equal(subject.module.state_dict()[name], value)


def test_a_file_of_another_size(saved):
    with pytest.raises(
        xa.CheckpointError, match=r"fit meter-s-kitti; these are the names and shapes of meter-xxs; [0-9]+ of anoth"
    ):
        load("meter-s-kitti", saved)


def test_a_word_that_is_no_file():
    with pytest.raises(
        xa.CheckpointError, match="no weights file imagenet; give its path, or the name of published weights"
    ):
        load("meter-xxs", "imagenet")


def test_weights_that_are_no_file():
    with pytest.raises(
        TypeError, match="weights must be a path, the name of published weights, or None, not a OrderedDict"
    ):
        load("meter-xxs", Meter("xxs").state_dict())


@pytest.mark.parametrize(
    ("name", "weights", "right"),
    [
        ("meter-xxs", "kitti", "meter-xxs-kitti"),
        ("meter-s-kitti", "nyu", "meter-s-nyu"),
        ("meter-xxs", "scenes", "meter-xxs-scenes"),
    ],
)
def test_published_weights_of_the_other_data(name, weights, right):
    with pytest.raises(xa.CheckpointError, match=f"has no weights '{weights}'; they belong to '{right}': load that"):
        load(name, weights)


@pytest.mark.parametrize(("data", "size"), [("nyu", "xs"), ("kitti", "s")])
def test_published_weights_are_downloaded(server, cache, monkeypatch, tmp_path, data, size):
    file = f"build_model_best_{data}_{size}"
    torch.save(Meter(size).state_dict(), tmp_path / file)
    server.files[f"/models/{file}"] = (tmp_path / file).read_bytes()
    monkeypatch.setattr(published, "METER_URL", f"{server.url}/models")
    first, again = (load(f"meter-{size}-{data}", data) for _ in range(2))
    assert equal(first, again)
    assert (first.name, first.card.weights) == (f"meter-{size}-{data}", file)
    assert list(server.asked.queue) == [f"/models/{file}"]
    assert (cache / "meter" / file).is_file()


def test_published_weights_have_the_known_hash(server, cache, monkeypatch, saved):
    """METER-XXS for NYU is known by its SHA-256: another file of that name is not taken."""
    server.files["/build_model_best_nyu_xxs"] = saved.read_bytes()
    monkeypatch.setattr(published, "METER_URL", server.url)
    with pytest.raises(xa.CheckpointError, match=r"nyu_xxs could not be downloaded.*has the SHA-256 \w+, not 327cddf3"):
        load("meter-xxs", "nyu")
    assert {file.suffix for file in (cache / "meter").iterdir()} <= {".lock"}


# The official files


@pytest.mark.parametrize("data", ["nyu", "kitti"])
def test_official_file(shared_data, tmp_path, data):
    path = shared_data / "weights" / "meter" / f"build_model_best_{data}_xxs"
    subject = load(f"meter-xxs-{data}", path)
    assert (subject.name, subject.card.weights) == (f"meter-xxs-{data}", path.name)
    official = torch.load(path, map_location="cpu", weights_only=True)
    assert list(official) == list(subject.module.state_dict())
    assert all(torch.equal(official[name], value) for name, value in subject.module.state_dict().items())

    other = "kitti" if data == "nyu" else "nyu"
    renamed = shutil.copy(path, tmp_path / "weights.pt")
    said = (
        f"weights.pt is the published file of meter-xxs-{data}, not of meter-xxs-{other}; load it as 'meter-xxs-{data}'"
    )
    with pytest.raises(xa.CheckpointError, match=said):
        load(f"meter-xxs-{other}", renamed)


def pictures(folder, colour, depth, card):
    """Pairs as METER was evaluated: both resized bilinearly with antialiasing, to the sizes of the card."""
    for file in sorted(folder.glob(colour)):
        pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None] / 255
        known = np.array(Image.open(file.with_name(depth(file.name)))).astype(np.float32)
        image = F.interpolate(pixels, card.input_size, mode="bilinear", antialias=True)
        yield (image - torch.tensor(card.mean).view(1, 3, 1, 1)) / torch.tensor(card.std).view(1, 3, 1, 1), known


def test_published_accuracy_on_nyu(shared_data):
    """The card (statistics, sizes, unit) is right: another scaling of the input doubles the relative error."""
    subject = load("meter-xxs-nyu", shared_data / "weights" / "meter" / "build_model_best_nyu_xxs")
    figures = []
    pairs = pictures(
        shared_data / "nyu_test20", "*_colors.png", lambda name: name.replace("colors", "depth"), subject.card
    )
    for image, millimetres in pairs:
        size = subject.card.output_size
        truth = F.interpolate(torch.from_numpy(millimetres)[None, None] / 10, size, mode="bilinear", antialias=True)[
            0, 0
        ]
        with torch.no_grad():
            found = subject(image)[0, 0]
        worse = torch.maximum(found / truth, truth / found)
        rmse = (found - truth).square().mean().sqrt()
        figures.append([rmse, ((found - truth).abs() / truth).mean(), (worse < 1.25).float().mean()])
    means = torch.tensor(figures).mean(0)
    # Resizing by another library moves the figures in the last digit given.
    assert means.tolist() == pytest.approx([60.25, 0.1876, 0.6992], rel=2e-3)


def test_published_accuracy_on_kitti(shared_data):
    subject = load("meter-xxs-kitti", shared_data / "weights" / "meter" / "build_model_best_kitti_xxs")
    errors = []
    for image, raw in pictures(
        shared_data / "kitti3", "rgb_*.png", lambda name: name.replace("rgb", "depth"), subject.card
    ):
        truth = torch.from_numpy(raw) / 256 * 10
        with torch.no_grad():
            found = F.interpolate(subject(image), truth.shape, mode="bilinear")[0, 0]
        known = truth > 0
        errors.append(((found - truth).abs() / truth)[known].mean())
    assert (
        torch.tensor(errors).mean() < 0.12
    )  # .084 in the publishers' own resizing; five times that with wrong scaling


# Factories of one's own


def test_factory(mine):
    subject = load(f"{mine}:build")
    assert repr(subject) == "<Subject conv: depth in m, Conv2d, 4 parameters on cpu>"
    assert not subject.module.training
    assert not subject.module.weight.requires_grad


def test_factory_is_given_weights_only_if_asked_for(mine):
    assert load(f"{mine}:build_with").name == "conv with own"
    assert load(f"{mine}:build_with", "x.pt").name == "conv with x.pt"
    assert load(f"{mine}:build_any").name == "conv with {}"
    assert load(f"{mine}:build_any", "x.pt").name == "conv with {'weights': 'x.pt'}"


def test_factory_that_takes_no_weights(mine):
    with pytest.raises(TypeError) as caught:
        load(f"{mine}:build", "x.pt")
    assert str(caught.value) == (
        f"model {mine}:build() cannot be called with weights='x.pt': got an unexpected keyword argument 'weights'; "
        "leave weights out, or give the function a parameter `weights`"
    )


def test_factory_that_needs_more(mine):
    with pytest.raises(
        TypeError, match=rf"{mine}:needs\(width\) cannot be called with no arguments: .*'width'; give it defaults"
    ):
        load(f"{mine}:needs")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("bare", "returned a Conv2d, not a subject; return xa.describe"),
        ("nothing", "returned a NoneType, not a subject; return xa.describe"),
        ("network", "is a Conv2d, not a function; write one: return xa.describe"),
        ("number", "is a int, not a function"),
        ("_subject", "is a Subject, not a function"),
    ],
)
def test_factory_that_is_none(mine, factory, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        load(f"{mine}:{factory}")


def test_unknown_factory(mine):
    with pytest.raises(xa.UnknownNameError, match=f"unknown factory in {mine} 'buidl'; did you mean 'build'\\?"):
        load(f"{mine}:buidl")


@pytest.mark.parametrize("spec", ["models/mine.py:build", "mine:", ":build", "mine:build()", "C:\\mine.py:build"])
def test_not_a_factory(spec):
    with pytest.raises(ValueError, match=f"{re.escape(repr(spec))} is not of the form package.module:factory"):
        load(spec)


def test_module_that_is_not_there():
    with pytest.raises(
        ImportError, match=r"'nowhere.models:build': cannot import nowhere.models: No module named 'nowhere'; .*PYTHONP"
    ):
        load("nowhere.models:build")


def test_import_error_inside_the_users_module(tmp_path, monkeypatch):
    (tmp_path / "mine_broken.py").write_text("import a_library_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"cannot import mine_broken: No module named 'a_library_nobody_has'$"
    ) as caught:
        load("mine_broken:build")
    assert caught.value.__cause__.name == "a_library_nobody_has"


# Registering


def test_register_model():
    with registry.isolated():

        @xa.register_model("mine/7")
        def build(weights=None):
            return xa.describe(nn.Conv2d(3, 1, 1), name=f"seven {weights}", task="depth")

        assert load("mine/7", "x.pt").name == "seven x.pt"
        with pytest.raises(ValueError, match="the model 'mine/7' is already registered; pass replace=True"):
            xa.register_model("mine/7")(build)
        xa.register_model("mine/7", replace=True)(lambda: nn.Conv2d(3, 1, 1))
        with pytest.raises(TypeError, match=r"model 'mine/7' returned a Conv2d, not a subject; return xa.describe"):
            load("mine/7")
    with pytest.raises(xa.UnknownNameError, match="mine/7"):
        load("mine/7")
