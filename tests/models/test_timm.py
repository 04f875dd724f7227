"""timm's networks by name: cards, names, weights, and what is refused."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from untouched import untouched

import xai_assert as xa
from xai_assert.models.builders import known_name
from xai_assert.testing.options import ModelOption

SPEC = "timm/vit_tiny_patch16_224(img_size=64, depth=2, num_classes=5)"


def load(spec, weights=None, **options):
    return xa.load_model(spec, weights, device="cpu", **options)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(7)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)


@pytest.fixture(params=["torch", "safetensors"])
def saved(request, tmp_path, network):
    path = tmp_path / f"fine-tuned.{request.param}"
    if request.param == "torch":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    return path


class TestCards:
    @pytest.mark.parametrize(
        ("name", "size", "mean"),
        [
            ("vit_tiny_patch16_224", (224, 224), (0.5, 0.5, 0.5)),
            ("resnet18", (224, 224), (0.485, 0.456, 0.406)),
            ("vit_small_patch14_reg4_dinov2(depth=1)", (518, 518), (0.485, 0.456, 0.406)),
        ],
    )
    def test_size_and_colours_are_those_of_timms_data_config(self, name, size, mean):
        card = load(f"timm/{name}").card
        assert (card.input_size, card.mean, card.layout) == (size, mean, "RGB")
        assert card.task.name == "classification"

    def test_arguments_in_brackets(self):
        subject = load(SPEC)
        assert subject.card.input_size == (64, 64)
        assert len(subject.module.blocks) == 2
        assert subject(torch.rand(1, 3, 64, 64)).shape == (1, 5)
        assert load("timm/vit_tiny_patch16_224(img_size=(32, 64), depth=1)").card.input_size == (32, 64)

    def test_a_pretrained_tag_belongs_to_the_name(self):
        subject = load("timm/vit_tiny_patch16_224.augreg_in21k(depth=1)")
        assert subject.name == "timm/vit_tiny_patch16_224.augreg_in21k(depth=1)-random"
        assert subject.module.num_classes == 21843

    def test_evaluation_mode_and_frozen(self):
        subject = load("timm/resnet18")
        assert not any(module.training for module in subject.modules())
        assert not any(p.requires_grad for p in subject.parameters())


class TestRandomWeights:
    def test_they_follow_from_the_seed(self):
        first, again, other = load(SPEC), load(SPEC), load(SPEC, seed=1)
        assert first.fingerprint() == again.fingerprint() != other.fingerprint()
        assert (first.name, other.card.weights) == (f"{SPEC}-random", "random(seed=1)")

    def test_the_callers_random_state_is_left_alone(self):
        before = torch.get_rng_state()
        load(SPEC, seed=3)
        assert torch.equal(torch.get_rng_state(), before)


class TestFiles:
    def test_a_file_of_this_network(self, saved, network):
        subject = load(SPEC, saved)
        assert (subject.name, subject.card.weights) == (SPEC, saved.name)
        for name, value in network.state_dict().items():
            assert torch.equal(subject.module.state_dict()[name], value)

    def test_a_file_of_another_network(self, saved):
        said = r"fine-tuned.* does not fit timm/vit_tiny_patch16_224\(img_size=64, depth=2\); .*head.weight"
        with pytest.raises(xa.CheckpointError, match=said):
            load("timm/vit_tiny_patch16_224(img_size=64, depth=2)", saved)

    def test_a_file_that_is_not_there(self):
        with pytest.raises(xa.CheckpointError, match="there is no weights file imagenet; give its path"):
            load("timm/resnet18", "imagenet")


class TestPretrained:
    def test_timm_is_asked_for_them(self, monkeypatch, network):
        """As if the hub had answered: what timm downloads is what the subject has."""
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: network.state_dict())
        monkeypatch.setattr("timm.models._builder.has_hf_hub", lambda *_, **__: True)
        subject = load("timm/vit_tiny_patch16_224.augreg_in21k(img_size=64, depth=2, num_classes=5)", "pretrained")
        assert subject.name == "timm/vit_tiny_patch16_224.augreg_in21k(img_size=64, depth=2, num_classes=5)"
        assert subject.card.weights == "pretrained"
        assert torch.equal(subject.module.blocks[1].attn.qkv.weight, network.blocks[1].attn.qkv.weight)

    def test_the_hub_cannot_be_reached(self, monkeypatch):
        def nobody(*_, **__):
            raise OSError("Name or service not known")

        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", nobody)
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", nobody)
        said = "weights of resnet18 could not be loaded: Name or service .* give the path of the file as weights="
        with pytest.raises(xa.CheckpointError, match=said):
            load("timm/resnet18", "pretrained")

    def test_timm_has_none(self):
        without = next(name for name in timm.list_models() if name.startswith("vit") and not has_any(name))
        with pytest.raises(xa.CheckpointError, match=f"timm publishes no weights of {without}; give a path, or leave"):
            load(f"timm/{without}", "pretrained")


def has_any(name):
    return timm.get_pretrained_cfg(name).has_weights


class TestRefused:
    def test_an_unknown_name_gets_the_nearest_of_timms(self):
        with pytest.raises(xa.UnknownNameError) as caught:
            load("timm/vit_tny_patch16_224")
        said = str(caught.value)
        assert said.startswith("unknown timm model 'vit_tny_patch16_224'; did you mean 'vit_tiny_patch16_224'?")
        assert said.count(",") < 10  # and not all of the thousand

    def test_an_argument_that_it_does_not_take(self):
        with pytest.raises(TypeError, match=r"'timm/resnet18\(img_size=96\)': timm cannot make it with .*img_size"):
            load("timm/resnet18(img_size=96)")

    @pytest.mark.parametrize("argument", ["pretrained=True", "in_chans=1", "features_only=True"])
    def test_an_argument_that_is_not_the_users(self, argument):
        key = argument.partition("=")[0]
        with pytest.raises(ValueError, match=f"{key}= cannot be given here; weights are asked for as resnet18@pretr"):
            load(f"timm/resnet18({argument})")

    def test_brackets_that_do_not_close(self):
        with pytest.raises(ValueError, match="is not of the form name or name"):
            load("timm/resnet18(num_classes=5")


class TestNames:
    """A worker of pytest-xdist knows a subject's name without making it."""

    @pytest.mark.parametrize("weights", [None, "file"])
    def test_it_is_known_before_the_network_is_made(self, weights, tmp_path, network, monkeypatch):
        if weights:
            weights = tmp_path / "w.pt"
            torch.save(network.state_dict(), weights)
        spec = "timm/vit_tiny_patch16_224( img_size=64,depth = 2, num_classes=5)"
        name = load(spec, weights).name
        monkeypatch.setattr(timm, "create_model", None)
        assert known_name(spec, weights) == name == (SPEC if weights else f"{SPEC}-random")

    def test_of_what_is_not_timms_nothing_is_said(self):
        assert known_name("mine:build", None) is None
        assert known_name("meter-xxs-nyu", None) == "meter-xxs-nyu-random"

    @pytest.mark.parametrize(
        ("text", "spec", "weights", "alias"),
        [
            ("timm/resnet18", "timm/resnet18", None, None),
            ("timm/resnet18@pretrained", "timm/resnet18", "pretrained", None),
            (f"{SPEC}@a b.pt", SPEC, "a b.pt", None),
            (f"v7={SPEC}", SPEC, None, "v7"),
            (f"v7={SPEC}@w=1.pt", SPEC, "w=1.pt", "v7"),
        ],
    )
    def test_on_the_command_line(self, text, spec, weights, alias):
        option = ModelOption.parse(text)
        assert (option.spec, option.weights, option.alias) == (spec, weights, alias)


def test_it_is_judged():
    """From the name to a score, the network as it was."""
    subject = load(SPEC)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with untouched(subject, images):
        score = xa.attribution_fidelity(subject, "saliency", images, perturbation="gaussian_noise", fraction=0.05)
    assert len(score.values) == 3
    assert score.values.abs().max() <= 1
