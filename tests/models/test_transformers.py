"""Networks of transformers by name: what they predict, their cards, their attention, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from untouched import untouched

import xai_assert as xa
from xai_assert.models.builders import known_name

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
from small_transformers import FLAT, SMALL, make  # noqa: E402

TASKS = {"vit": "classification", "deit": "classification", "registers": "classification", "resnet": "classification"}
TASKS["segformer"] = "segmentation"
SIZED = {"glpn": "(input_size=(64, 96))"}  # its processor names no size


@pytest.fixture(scope="module", autouse=True)
def offline():
    """The hub is not asked."""
    constants = pytest.importorskip("huggingface_hub").constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    yield
    constants.HF_HUB_OFFLINE = before


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    return {name: (root / name, make(name, root / name)) for name in SMALL}


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


def load(folders, name, weights="pretrained", more=None):
    return xa.load_model(f"hf/{folders[name][0]}{SIZED.get(name, '') if more is None else more}", weights, "cpu")


def pictures(subject, count=2, seed=0):
    return torch.randn(count, 3, *subject.card.input_size, generator=torch.Generator().manual_seed(seed))


class TestPredictions:
    def test_on_a_picture_it_says_what_transformers_says(self, folders, name):
        """From a picture of bytes: the processor and the network of transformers, against the card and the subject."""
        folder, network = folders[name]
        subject = load(folders, name)
        height, width = subject.card.input_size
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        # it has its size; ZoeDepth's processor adds a mirrored border, and cuts it off the prediction
        fixed = {"do_resize": False, "do_center_crop": False, "do_pad": False}
        given = processor(picture, return_tensors="pt", **fixed)["pixel_values"]
        mean, std = (torch.tensor(c).reshape(3, 1, 1) for c in (subject.card.mean, subject.card.std))
        images = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
        torch.testing.assert_close(images[None], given, rtol=0, atol=1e-5)  # a byte is 4e-3 or more
        with torch.no_grad():
            raw, found = network(pixel_values=given), subject(given)
        expected = raw.predicted_depth if hasattr(raw, "predicted_depth") else raw.logits
        if subject.card.task.name == "segmentation":
            expected = torch.nn.functional.interpolate(expected, (height, width), mode="bilinear")
        torch.testing.assert_close(found, expected)
        assert found.std() > 0

    def test_what_it_is(self, folders, name):
        subject = load(folders, name)
        assert subject.card.task.name == TASKS.get(name, "depth")
        assert subject.name == f"hf/{folders[name][0]}{SIZED.get(name, '')}"
        assert subject.card.weights == "pretrained"
        assert not any(m.training for m in subject.modules())

    def test_units_and_classes(self, folders):
        """Depth of DPT is inverse, up to a scale and a shift: it has no unit."""
        units = {name: load(folders, name).card.unit for name in ("dpt", "depth_anything", "glpn", "zoedepth")}
        assert units == {"dpt": None, "depth_anything": "m", "glpn": "m", "zoedepth": "m"}
        assert load(folders, "vit").card.classes == tuple(f"kind {i}" for i in range(12))

    def test_a_processor_without_normalisation(self, folders):
        card = load(folders, "glpn").card
        assert (card.mean, card.std, card.input_size) == ((0.0,) * 3, (1.0,) * 3, (64, 96))

    def test_the_size_is_that_which_is_cut_out(self, folders):
        assert load(folders, "deit").card.input_size == (64, 64)
        assert load(folders, "registers").card.input_size == (56, 56)
        assert load(folders, "resnet").card.input_size == (64, 64)

    def test_a_processor_of_another_scale(self, folders, tmp_path):
        folder = tmp_path / "other"
        shutil.copytree(folders["vit"][0], folder)
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rescale_factor": 1 / 127.5}))
        card = xa.load_model(f"hf/{folder}", None, "cpu").card
        assert card.mean == pytest.approx((0.25,) * 3)  # (2 p - .5) / .5 = (p - .25) / .25
        assert card.std == pytest.approx((0.25,) * 3)


class TestWeights:
    def test_random_ones_follow_from_the_seed(self, folders):
        first, again = load(folders, "vit", None), load(folders, "vit", None)
        assert first.fingerprint() == again.fingerprint() != load(folders, "vit").fingerprint()
        assert first.name.endswith("/vit-random")

    def test_a_file_of_the_users(self, folders, tmp_path):
        network = folders["vit"][1]
        changed = {k: v + 1 if k.endswith("classifier.bias") else v for k, v in network.state_dict().items()}
        torch.save(changed, tmp_path / "mine.pt")
        subject, own = load(folders, "vit", tmp_path / "mine.pt"), load(folders, "vit")
        x = pictures(own)
        torch.testing.assert_close(subject(x), own(x) + 1)
        assert subject.card.weights == "mine.pt"
        with pytest.raises(xa.errors.CheckpointError):
            load(folders, "dpt", tmp_path / "mine.pt")

    def test_the_name_is_known_before_it_is_loaded(self, folders):
        spec = f"hf/{folders['vit'][0]}"
        assert known_name(spec, "pretrained") == load(folders, "vit").name
        assert known_name(spec, None) == load(folders, "vit", None).name


class TestMethods:
    @pytest.mark.parametrize(
        "method", ["saliency", xa.method("integrated_gradients", steps=2), "grad_cam", "attention_rollout"], ids=str
    )
    def test_a_map_or_why_not(self, folders, name, method):
        subject = load(folders, name)
        x = pictures(subject)
        with untouched(subject, x):
            if method == "attention_rollout" and name not in FLAT:
                with pytest.raises(xa.NotApplicableError, match="shows no attention"):
                    xa.heatmap(subject, x, method)
                return
            found = xa.heatmap(subject, x, method)
        assert found.shape == (2, *x.shape[-2:])
        assert found.isfinite().all()

    def test_saliency_is_the_gradient(self, folders, name):
        network = folders[name][1]
        subject = load(folders, name)
        x = pictures(subject).requires_grad_(True)
        raw = network(pixel_values=x)
        if subject.card.task.name == "depth":
            value = raw.predicted_depth.mean((1, 2))
        elif subject.card.task.name == "classification":
            value = raw.logits.amax(1)
        else:
            logits = torch.nn.functional.interpolate(raw.logits, x.shape[-2:], mode="bilinear")
            value = logits.amax(1).mean((1, 2))
        (expected,) = torch.autograd.grad(value.sum(), x)
        found = xa.attribute(subject, x.detach(), "saliency")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    @pytest.mark.parametrize("name", FLAT)
    @pytest.mark.parametrize("readout", ["columns", "cls"])
    def test_rollout_is_the_product_of_what_transformers_shows(self, folders, name, readout):
        """M = A'_L ... A'_1 in float64 of its own output_attentions."""
        network = folders[name][1]
        subject = load(folders, name)
        x = pictures(subject)
        network.set_attn_implementation("eager")
        with torch.no_grad():
            shown = network(pixel_values=x, output_attentions=True).attentions
        product = torch.eye(shown[0].shape[-1], dtype=torch.float64)
        for layer in shown:
            mixed = layer.double().mean(1) + torch.eye(layer.shape[-1])
            product = mixed / mixed.sum(-1, keepdim=True) @ product
        prefix = {"deit": 2, "registers": 5}.get(name, 1)
        row = product[:, prefix:].sum(1) if readout == "columns" else product[:, 0]
        places = row[:, prefix:]
        side = int(places.shape[1] ** 0.5)
        grid = places.reshape(-1, 1, side, side)
        expected = torch.nn.functional.interpolate(grid, x.shape[-2:], mode="bilinear")[:, 0].float()
        found = xa.heatmap(subject, x, xa.method("attention_rollout", readout=readout))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert (found.flatten(1).std(1) > 0).all()

    def test_gradient_rollout_explains_the_target(self, folders):
        subject = load(folders, "vit")
        x = pictures(subject)
        maps = [xa.heatmap(subject, x, "gradient_rollout", target=lambda out, k=k: out[:, k]) for k in (0, 1)]
        assert not torch.allclose(maps[0], maps[1])


def test_midas_goes_through_the_gates(folders):
    """DPT, the present form of MiDaS: the shared decoder's gradient beats random, and its inverse is refused."""
    subject = load(folders, "dpt")
    x = pictures(subject, 12)
    score = xa.assert_attribution_fidelity(subject, "saliency", x, min_af=0.1, beats="random")
    assert score.provenance["task"] == "depth"

    def upside_down(model, images, target):
        found = xa.heatmap(model, images, "saliency", target=target)
        return found.amax((1, 2), keepdim=True) - found

    with pytest.raises(AssertionError, match="inverted"):
        xa.assert_attribution_fidelity(subject, upside_down, x, min_af=0.1)


class TestRefused:
    def test_a_repository_that_is_not_there(self):
        with pytest.raises(xa.errors.CheckpointError, match=r"config\.json of nobody/nothing could not be read: "):
            xa.load_model("hf/nobody/nothing", device="cpu")

    def test_a_folder_without_its_processor(self, folders, tmp_path):
        shutil.copytree(folders["vit"][0], tmp_path / "vit")
        (tmp_path / "vit" / "preprocessor_config.json").unlink()
        with pytest.raises(xa.errors.CheckpointError, match=r"preprocessor_config\.json of .* could not be read: "):
            xa.load_model(f"hf/{tmp_path / 'vit'}", device="cpu")

    def test_a_network_for_something_else(self, folders, tmp_path):
        folder = tmp_path / "vit"
        shutil.copytree(folders["vit"][0], folder)
        config = json.loads((folder / "config.json").read_text()) | {"architectures": ["ViTForMaskedImageModeling"]}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="is ViTForMaskedImageModeling, which gives no depth"):
            xa.load_model(f"hf/{folder}", device="cpu")
        assert xa.load_model(f"hf/{folder}(task=classification)", device="cpu").card.task.name == "classification"
        with pytest.raises(ValueError, match="task must be one of depth, classification, segmentation, not 'deep'"):
            xa.load_model(f"hf/{folder}(task=deep)", device="cpu")

    def test_weights_that_are_damaged(self, folders, tmp_path):
        shutil.copytree(folders["vit"][0], tmp_path / "vit")
        file = tmp_path / "vit" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(xa.errors.CheckpointError, match="its weights could not be loaded"):
            xa.load_model(f"hf/{tmp_path / 'vit'}", "pretrained", "cpu")

    def test_no_size_and_unknown_arguments(self, folders):
        with pytest.raises(ValueError, match=r"fails on an image 80x64: .*; say another input_size="):
            load(folders, "vit", more="(input_size=(80, 64))")
        with pytest.raises(ValueError, match=r"its processor names no size of images; say input_size="):
            load(folders, "glpn", more="")
        with pytest.raises(ValueError, match="takes task=, input_size= and revision=, not size="):
            load(folders, "vit", more="(size=3)")

    def test_without_transformers(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ImportError, match=r'pip install "xai-assert\[transformers\]"'):
            xa.load_model("hf/Intel/dpt-large", device="cpu")
