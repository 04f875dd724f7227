"""Captum's methods through `xa.method`: the same maps as Captum's, on our target, or a word where none applies."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from known_models import Attentive, draw, seeded
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.attributions.base import is_captum
from xai_assert.known_models import KnownModel

captum = pytest.importorskip("captum.attr", reason="needs Captum: pip install 'xai-assert[captum]'")

IMAGES = draw(3, 3, 12, 16)
IDS = ["a.png", "b.png", "c.png"]


class Convolutions(nn.Module):
    """Depth (B, 1, 12, 16) by modules alone, so that every rule of Captum's applies."""

    def __init__(self, *, inplace: bool = False, reused: bool = False, functional: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 1, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.last = F.relu if functional else self.relu if reused else nn.ReLU(inplace=inplace)
        seeded(self)

    def forward(self, images):
        return self.head(self.last(self.second(self.relu(self.first(images)))))


def subject(module=None, **about) -> xa.Subject:
    module = Convolutions() if module is None else module
    return xa.describe(module, name="net", **{"task": "depth", "mean": [0.5] * 3, "std": [0.25] * 3, **about})


def frozen(classes):
    """A target that knows its batch: each image's own channel of the output."""
    return lambda output: output.flatten(2).mean(2)[torch.arange(len(classes)), classes]


SPECS = {
    "Occlusion": "sliding_window_shapes=(3, 4, 4), strides=(3, 4, 4)",
    "NoiseTunnel": "attribution_method='Saliency', nt_samples=3",
    "IntegratedGradients": "n_steps=4",
    "FeatureAblation": "patch=4",
    "KernelShap": "patch=4",
    "Lime": "patch=4",
    "ShapleyValueSampling": "patch=4, n_samples=2",
    "ShapleyValues": "patch=8",
    **dict.fromkeys(("GuidedGradCam", "InternalInfluence"), "layer='first'"),
    **{name: "layer='first'" for name in dir(captum) if name.startswith("Layer")},
}
NEEDS_SKLEARN = {"KernelShap", "Lime"}
CLASSES = [name for name in dir(captum) if is_captum(getattr(captum, name))]
STOCHASTIC = ["GradientShap", "NoiseTunnel", "ShapleyValueSampling", "LayerGradientShap", "DeepLiftShap"]
MAPS = [
    *("Saliency", "InputXGradient", "IntegratedGradients", "DeepLift", "DeepLiftShap", "GradientShap", "LRP"),
    *("GuidedBackprop", "Deconvolution", "GuidedGradCam", "NoiseTunnel", "FeatureAblation", "Occlusion", "KernelShap"),
    *("Lime", "ShapleyValueSampling", "ShapleyValues", "InternalInfluence", "LayerActivation", "LayerGradCam"),
    *("LayerGradientXActivation", "LayerIntegratedGradients", "LayerConductance", "LayerDeepLift"),
    *("LayerDeepLiftShap", "LayerGradientShap", "LayerLRP"),
]


def spec(name: str) -> str:
    if name in NEEDS_SKLEARN:
        pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn: pip install 'xai-assert[captum]'")
    return f"captum/{name}({SPECS.get(name, '')})"


class TestEveryClass:
    @pytest.mark.parametrize("name", sorted(MAPS))
    def test_a_map(self, name):
        found = xa.heatmap(subject(), IMAGES, spec(name), image_ids=IDS)
        assert found.shape == (3, 12, 16)
        assert found.isfinite().all()
        # Lime's default, a Lasso of alpha .01, leaves nothing of values this small; the selection then says so
        assert name == "Lime" or (found.flatten(1).std(1) > 0).all()

    @pytest.mark.parametrize("name", sorted(set(CLASSES) - set(MAPS)))
    def test_or_a_reason(self, name):
        with pytest.raises(TypeError, match=r"is abstract|no method for a vision model|needs from_interp_rep"):
            xa.method(f"captum/{name}({SPECS.get(name, '')})")

    @pytest.mark.parametrize("name", sorted(MAPS))
    def test_nothing_of_the_callers_is_changed(self, name):
        net = subject(Convolutions(inplace=True).train())
        wanted = spec(name)  # may import scikit-learn, and with it rich, which draws from the global random state
        with untouched(net, IMAGES):
            xa.attribute(net, IMAGES, wanted)
            assert not hasattr(net.module.first, "rule")

    @pytest.mark.parametrize("name", sorted(MAPS))
    def test_the_frozen_class_of_an_image_follows_its_rows(self, name):
        net = subject(seeded(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))).double())
        images = IMAGES.double()
        classes = torch.tensor([2, 0, 3])
        wanted = xa.method(spec(name).replace("first", "0"))
        together = xa.attribute(net, images, wanted, image_ids=IDS, target=frozen(classes), batch_size=3)
        for i in range(3):
            alone = xa.attribute(net, images[i : i + 1], wanted, image_ids=IDS[i : i + 1], target=frozen(classes[[i]]))
            # LRP divides by activations near 0; some methods draw in float32
            torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-6 * float(alone.abs().max()))


class TestTheSameMaps:
    @pytest.mark.parametrize("kind", ["pixelwise", "squares"])
    def test_saliency_and_integrated_gradients_are_ours(self, kind):
        net = KnownModel(kind, 0).subject((12, 16))
        ours = xa.heatmap(net, IMAGES, "saliency")
        torch.testing.assert_close(xa.heatmap(net, IMAGES, "captum/Saliency"), ours)
        ours = xa.attribute(net, IMAGES, "integrated_gradients(steps=8)")
        theirs = xa.attribute(net, IMAGES, "captum/IntegratedGradients(n_steps=8, method='riemann_middle')")
        torch.testing.assert_close(theirs, ours)

    def test_what_is_known_on_paper(self):
        """f = mean_i sum_c w_ci x_ci: input x gradient is w x / HW; relative to black it is w (x - b) / HW."""
        net = KnownModel("pixelwise", 0).subject((12, 16))
        weights, black = net.module.weights / (12 * 16), net.card.colour((0.0, 0.0, 0.0))
        torch.testing.assert_close(xa.attribute(net, IMAGES, "captum/InputXGradient"), weights * IMAGES)
        torch.testing.assert_close(xa.attribute(net, IMAGES, "captum/DeepLift"), weights * (IMAGES - black))
        zero = xa.attribute(net, IMAGES, "captum/IntegratedGradients(baselines=0)")
        torch.testing.assert_close(zero, weights * IMAGES)
        pixels = xa.attribute(net, IMAGES, "captum/FeatureAblation(patch=1)")  # each pixel whole, all channels
        expected = (weights * (IMAGES - black)).sum(1, keepdim=True).expand_as(IMAGES)
        torch.testing.assert_close(pixels, expected, rtol=1e-4, atol=1e-6)  # differences of sums over 576 numbers

    @pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "LRP", "Saliency", "InputXGradient"])
    def test_an_object_gives_what_it_gives_without_us(self, name):
        net = subject()
        made = getattr(captum, name)(MeanOf(net.module))
        black = {"baselines": net.card.colour((0.0, 0.0, 0.0)).expand(1, 3, 12, 16)}
        with warnings.catch_warnings(action="ignore"):
            given = black if name in ("IntegratedGradients", "DeepLift") else {}
            expected = made.attribute(IMAGES.clone(), **given).detach()
        found = xa.attribute(net, IMAGES, getattr(captum, name)(net.module))
        # a mean in another order; LRP divides by it
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    def test_writing_in_place_makes_no_difference(self):
        maps = [xa.attribute(subject(Convolutions(inplace=i)), IMAGES, "captum/GuidedBackprop") for i in (True, False)]
        assert torch.equal(*maps)

    def test_a_layer_is_resized_as_ours_are(self):
        net = subject()
        found = xa.attribute(net, IMAGES, "captum/LayerGradCam(layer='second')")
        with torch.enable_grad():
            activation = net.module.second(net.module.relu(net.module.first(IMAGES))).requires_grad_(True)
            (gradient,) = torch.autograd.grad(
                net.module.head(net.module.last(activation)).mean((1, 2, 3)).sum(), activation
            )
        small = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True)
        expected = F.interpolate(small, (12, 16), mode="bilinear", align_corners=False)[:, 0]
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-8)


class MeanOf(nn.Module):
    """What a user of Captum writes to explain the mean depth."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images).mean((1, 2, 3))


class Inverted(captum.Saliency):
    """A planted wrong one: least where the gradient is largest."""

    def attribute(self, inputs, **keywords):
        return 1 / (1e-3 + super().attribute(inputs, **keywords))


@pytest.mark.filterwarnings("ignore::xai_assert.TiedHeatmapWarning")  # half of the pixels of these models are dark
class TestJudged:
    def test_a_right_map_passes_and_a_wrong_one_is_rejected(self):
        net = KnownModel("pixelwise", 0).subject((12, 16))
        images = draw(12, 3, 12, 16)
        xa.assert_attribution_fidelity(net, captum.Saliency(net.module), images, min_af=0.99)
        with pytest.raises(AssertionError, match=r"AF of pixelwise-0 / captum/Inverted"):
            xa.assert_attribution_fidelity(net, Inverted(net.module), images, min_af=0.1)

    def test_an_evaluation_takes_it(self):
        net = KnownModel("corner", 0).subject((12, 16))
        found = xa.Evaluation(net, draw(4, 3, 12, 16))
        assert xa.attribution_fidelity(found, xa.method(captum.IntegratedGradients(net.module), n_steps=4)).mean == 1
        assert xa.completeness(found, "captum/IntegratedGradients(n_steps=4)").value < 1e-4
        zero = xa.completeness(found, "captum/IntegratedGradients(n_steps=4, baselines=0)")
        assert zero.value < 1e-4  # of its own baseline

    def test_redrawn_layers_are_explained_as_redrawn(self):
        """The object holds the module; randomisation explains a copy."""
        net = subject()
        made = captum.LayerGradCam(net.module, net.module.second)
        other = copy.deepcopy(net.module)
        seeded(other, seed=1)
        found = xa.attribute(subject(other), IMAGES, made)
        assert torch.equal(found, xa.attribute(subject(other), IMAGES, "captum/LayerGradCam(layer='second')"))
        assert not torch.allclose(found, xa.attribute(net, IMAGES, made))
        assert made.forward_func is net.module
        assert made.layer is net.module.second


class TestRandom:
    @pytest.mark.parametrize("name", STOCHASTIC)
    def test_neither_batch_nor_order_matters_but_the_seed_does(self, name):
        net, wanted = subject(), xa.method(spec(name))
        expected = xa.attribute(net, IMAGES, wanted, image_ids=IDS)
        order = [2, 0]
        assert torch.equal(xa.attribute(net, IMAGES, wanted, image_ids=IDS, batch_size=1), expected)
        found = xa.attribute(net, IMAGES[order], wanted, image_ids=[IDS[i] for i in order])
        assert torch.equal(found, expected[order])
        other = xa.attribute(net, IMAGES, wanted, image_ids=IDS, seed=1)
        assert torch.equal(other, expected) == (name == "DeepLiftShap")  # which draws nothing

    def test_an_object_around_another(self):
        net = subject()
        made = captum.NoiseTunnel(captum.IntegratedGradients(net.module))
        found = xa.attribute(net, IMAGES, xa.method(made, nt_samples=2, n_steps=4, stdevs=0.1))
        plain = xa.attribute(net, IMAGES, "captum/IntegratedGradients(n_steps=4)")
        similar = F.cosine_similarity(found.flatten(1), plain.flatten(1))
        assert (similar > 0.9).all()
        assert not torch.equal(found, plain)


class TestRefused:
    @pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
    def test_no_relu(self, name):
        with pytest.raises(xa.NotApplicableError, match=r"no nn.ReLU runs.*use saliency"):
            xa.attribute(subject(seeded(Attentive())), IMAGES, f"captum/{name}")

    def test_relus_that_it_cannot_hook(self):
        with pytest.raises(xa.NotApplicableError, match=r"1 of its 2 ReLUs are function calls"):
            xa.attribute(subject(Convolutions(functional=True)), IMAGES, "captum/GuidedBackprop")

    def test_deep_lift_says_its_gap(self):
        with pytest.raises(xa.NotApplicableError, match=r"sums to something \d+% away from f\(x\) - f\(b\)"):
            xa.attribute(subject(Convolutions(functional=True)), 3 * IMAGES, "captum/DeepLift")

    @pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
    def test_relus_that_are_reused(self, name):
        with pytest.raises(xa.NotApplicableError, match=r"relu runs more than once.*module of its own"):
            xa.attribute(subject(Convolutions(reused=True)), IMAGES, f"captum/{name}")

    def test_lrp_without_rules(self):
        with pytest.raises(xa.NotApplicableError, match=r"has no rule defined"):
            xa.attribute(subject(nn.Sequential(nn.Conv2d(3, 1, 1), nn.LayerNorm(16))), IMAGES, "captum/LRP")

    def test_a_layer_without_places(self):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.layer = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 4)

            def forward(self, images):
                return self.layer(self.embed(images).flatten(2).mT).mT.reshape(-1, 4, 3, 4).mean(1)

        with pytest.raises(xa.NotApplicableError, match=r"has no place in the picture"):
            xa.attribute(subject(Tokens()), IMAGES, "captum/LayerGradientXActivation(layer='layer')")

    def test_an_object_of_another_network_or_function(self):
        other = captum.Saliency(nn.Conv2d(3, 1, 1))
        with pytest.raises(xa.NotApplicableError, match=r"made with a Conv2d, not with the module of net"):
            xa.attribute(subject(), IMAGES, other)
        with pytest.raises(xa.NotApplicableError, match=r"made with a function <lambda>"):
            xa.attribute(subject(), IMAGES, captum.Saliency(lambda images: images.sum((1, 2, 3))))

    def test_a_failing_method_leaves_the_network_as_it_was(self):
        class Fails(captum.DeepLift):
            def attribute(self, inputs, **keywords):
                self.model.apply(self._register_hooks)
                raise AssertionError("no verdict of ours")

        net = subject()
        with untouched(net, IMAGES), pytest.raises(ValueError, match=r"captum/Fails failed on net: no verdict"):
            xa.attribute(net, IMAGES, Fails(net.module))

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("captum/Salience", r"unknown class of captum.attr 'Salience'; did you mean 'Saliency'"),
            ("captum/Saliency(steps=3)", r"takes no parameter 'steps'; it takes: abs"),
            ("captum/Saliency(target=3)", r"target= is not for Captum here; pass target= to xa.attribute"),
            ("captum/LayerGradCam", r"needs layer= \(of a layer its name"),
            ("captum/ShapleyValues", r"give patch=16"),
            ("captum/NeuronGradient(layer='first')", r"explains a neuron of a layer, not the target"),
        ],
    )
    def test_bad_words(self, name, words):
        with pytest.raises((TypeError, ValueError), match=words):
            xa.method(name)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("captum/LayerGradCam(layer='firs')", r"unknown layer of net 'firs'; did you mean 'first'"),
            ("captum/FeatureAblation(patch=0)", r"patch must be a whole number of pixels of at least 1, not 0"),
            ("captum/IntegratedGradients(baselines='black+white')", r"this method takes one"),
            ("captum/IntegratedGradients(baselines='grey')", r"unknown baseline 'grey'"),
        ],
    )
    def test_bad_values(self, name, words):
        with pytest.raises(ValueError, match=words):
            xa.attribute(subject(), IMAGES, name)

    def test_black_of_nobody(self):
        with pytest.raises(TypeError, match=r"has no mean and std.*or give baselines=0"):
            xa.attribute(Convolutions(), IMAGES, "captum/IntegratedGradients", task="depth")

    def test_without_captum(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
        with pytest.raises(ImportError, match=r"captum/Saliency needs Captum: pip install 'xai-assert\[captum\]'"):
            xa.method("captum/Saliency")


def test_names_and_parameters():
    made = xa.method(captum.Occlusion(Convolutions()), sliding_window_shapes=(3, 4, 4))
    assert str(made) == "captum/Occlusion(sliding_window_shapes=(3, 4, 4))"
    assert str(xa.method(made, strides=2)) == "captum/Occlusion(sliding_window_shapes=(3, 4, 4), strides=2)"
    assert xa.method("captum/IntegratedGradients(n_steps=32)").declared_passes == (0, 32)
    assert xa.method(captum.Saliency).name == "captum/Saliency"
    with pytest.raises(TypeError, match="takes no parameter 'steps'"):
        xa.method(made, steps=2)
