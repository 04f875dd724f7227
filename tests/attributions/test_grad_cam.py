"""Grad-CAM: by hand on a small network, beside Captum's on timm's, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from known_models import Attentive, Counting, Pixelwise, draw
from timm_zoo import build, images
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.attributions.cam import timm_layer


def target(output):
    return output[:, 0]


def grad_cam(module, x, *, layer=None, target=target, **describing):
    return xa.attribute(module, x, xa.method("grad_cam", layer=layer), target=target, **describing)


class Tiny(nn.Module):
    """Two channels of a 1x1 convolution, averaged over the picture, and a linear head."""

    def __init__(self, kernel, head):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 1, bias=False)
        self.conv.weight.data = torch.tensor(kernel).reshape(2, 1, 1, 1)
        self.head.weight.data = torch.tensor([head])

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


class TestByHand:
    picture = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])

    def test_a_linear_head(self):
        """The channels are x and 3x; the ReLU passes 3 of 4 places. Weights: mean over the places of head / 4, so
        (2 * 3/16, -1/2 * 3/16) = (3/8, -3/32); map: relu(3/8 x - 9/32 x) = relu(3/32 x)."""
        found = grad_cam(Tiny([1.0, 3.0], [2.0, -0.5]), self.picture, layer="conv")
        assert found.tolist() == [[[3 / 32, 6 / 32], [9 / 32, 0.0]]]

    def test_behind_the_relu(self):
        """Every place weighs 1/4: weights (1/2, -1/8), map relu(1/2 x - 3/8 x) where x > 0."""
        found = grad_cam(Tiny([1.0, 3.0], [2.0, -0.5]), self.picture, layer="relu")
        assert found.tolist() == [[[1 / 8, 2 / 8], [3 / 8, 0.0]]]

    def test_of_the_layer_by_default_the_convolution(self):
        network = Tiny([1.0, 3.0], [2.0, -0.5])
        assert torch.equal(grad_cam(network, self.picture), grad_cam(network, self.picture, layer="conv"))

    def test_it_is_not_stretched(self):
        once, twice = (grad_cam(Tiny([1.0, 3.0], [2.0 * f, -0.5 * f]), self.picture) for f in (1, 2))
        assert torch.equal(2 * once, twice)

    def test_what_speaks_against_the_target_is_no_map(self):
        """0 everywhere: it ranks nothing, and where it is judged this is said."""
        network = Tiny([1.0, 3.0], [-2.0, -0.5])
        subject = xa.describe(network, name="against", task="depth", output=lambda out: out[..., None])
        assert not grad_cam(network, self.picture.abs()).any()
        with pytest.raises(xa.DegenerateHeatmapError, match="the heatmap of grad_cam is constant for 1 of 1 images"):
            xa.attribution_fidelity(
                subject, "grad_cam", self.picture.abs(), perturbation="gaussian_noise", fraction=0.25
            )


class Dense(nn.Module):
    """Depth (B, 1, 16, 24) through a map of half that size; its pooled pyramid has a map of 2x2 places."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 3, padding=1)
        self.coarse = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.bottom = nn.Conv2d(4, 4, 1)
        self.pyramid = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        x = self.bottom(self.coarse(self.fine(x).tanh()).tanh())
        pooled = self.pyramid(F.adaptive_avg_pool2d(x, 1)).expand_as(x)
        return self.head(F.interpolate(torch.cat([x, pooled], 1), scale_factor=2, mode="bilinear"))


class TestOtherTargets:
    def test_a_dense_output(self):
        """Of a depth network: the convolution at its bottom, and not the pooled one nor the head."""
        torch.manual_seed(0)
        network, x = Dense(), draw(2, 3, 16, 24)
        found = xa.attribute(network, x, "grad_cam", task="depth")
        assert torch.equal(found, xa.attribute(network, x, xa.method("grad_cam", layer="bottom"), task="depth"))
        kept = []
        handle = network.bottom.register_forward_hook(lambda m, i, out: kept.append(out))
        mean = network(x).mean((1, 2, 3)).sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(mean, kept[0])
        cam = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
        expected = F.interpolate(cam, (16, 24), mode="bilinear", align_corners=False)[:, 0].detach()
        torch.testing.assert_close(found, expected)
        assert found.std() > 0

    @pytest.mark.parametrize("name", ["meter-xxs", "pixelformer-nano"])
    def test_our_depth_networks(self, name):
        subject = xa.load_model(name, device="cpu")
        with untouched(subject):
            found = xa.heatmap(subject, draw(1, 3, 64, 128), "grad_cam")
        assert found.shape == (1, 64, 128)
        assert found.isfinite().all()

    def test_tokens_of_a_network_that_says_where_they_lie(self):
        class Named(Attentive):
            def __init__(self):
                super().__init__(prefix=2)
                self.name = nn.Identity()

            def _attend(self, layer, prefix, places, tap):
                x = torch.cat([prefix, places.flatten(2).transpose(1, 2)], 1)
                x = self.name(layer(x, tap.tokens))
                return x[:, : tap.prefix], x[:, tap.prefix :].transpose(1, 2).reshape(places.shape)

        network, x = Named(), draw(2, 3, 16, 24)
        found = xa.attribute(network, x, xa.method("grad_cam", layer="name"), task="depth")
        tokens = []
        handle = network.name.register_forward_hook(lambda m, i, out: tokens.append(out))
        mean = network(x).mean((1, 2, 3)).sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(mean, tokens[1])
        cam = (gradient[:, 2:].mean(1, keepdim=True) * tokens[1][:, 2:]).sum(2).relu().reshape(2, 1, 2, 3)
        expected = F.interpolate(cam, (16, 24), mode="bilinear", align_corners=False)[:, 0].detach()
        torch.testing.assert_close(found, expected)


class TestBesideCaptum:
    """LayerGradCam, on the layer that ours chooses; float64, so that only the order of sums differs."""

    @pytest.mark.parametrize(
        "name", ["resnet18", "convnext_atto", "mobilevit_xxs", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
    )
    def test_the_same_map(self, name):
        attr = pytest.importorskip("captum.attr", reason="captum is not installed: pip install xai-assert[captum]")
        network, x = build(name).double(), images(name).double()

        def places(tensor):
            if tensor.ndim == 3:
                return tensor[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
            return tensor.permute(0, 3, 1, 2) if name.startswith("swin") else tensor

        class AsMaps(nn.Module):
            """Captum averages over the last dimensions: the layer's output as (B, C, h, w), and back."""

            def __init__(self):
                super().__init__()
                self.maps = nn.Identity()
                self.network = network

            def forward(self, x):
                layer = network.get_submodule(timm_layer(network))
                handle = layer.register_forward_hook(lambda m, i, out: self.back(out, self.maps(places(out))))
                try:
                    return network(x)
                finally:
                    handle.remove()

            def back(self, out, maps):
                if out.ndim == 3:
                    return torch.cat([out[:, :1], maps.flatten(2).transpose(1, 2)], 1)
                return maps.permute(0, 2, 3, 1) if name.startswith("swin") else maps

        whole = AsMaps()
        cam = attr.LayerGradCam(whole, whole.maps).attribute(x, target=0, relu_attributions=True)
        expected = F.interpolate(cam, x.shape[-2:], mode="bilinear", align_corners=False)[:, 0].detach()
        found = grad_cam(network, x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * float(expected.max()))
        assert found.std() > 0


class TestWhatItCosts:
    def test_one_pass_there_and_a_part_of_one_back(self):
        """Nothing is asked of what lies before the layer."""
        asked = []

        class Watched(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                asked.append(len(gradient))
                return gradient

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
                self.head = nn.Linear(2, 1)

            def forward(self, x):
                return self.head(self.second(Watched.apply(self.first(x))).mean((2, 3)))

        network = Counting(Network())
        grad_cam(network, draw(2, 3, 4, 4))
        assert (network.forwards, network.backwards, asked) == (2, 2, [])
        grad_cam(network, draw(2, 3, 4, 4), layer="inner.first")
        assert asked == [2]

    def test_no_gradient_is_left_on_a_weight(self):
        network, x = build("resnet18").train(), images("resnet18")
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        with untouched(network, x):
            grad_cam(network, x)
        assert all(parameter.grad is None for parameter in network.parameters())


class TestLayers:
    @pytest.mark.parametrize(
        ("name", "layer"),
        [
            ("resnet18", "layer4"),
            ("vgg11_bn", "features.28"),
            ("densenet121", "features.norm5"),
            ("vit_tiny_patch16_224", "blocks.1.norm1"),
            ("vit_relpos_small_patch16_224", "blocks.1"),  # it has no class token
            ("cait_xxs24_224", "blocks.1"),  # the class token comes later
            ("swin_tiny_patch4_window7_224", "layers.1"),
        ],
    )
    def test_of_timms_networks(self, name, layer):
        assert timm_layer(build(name)) == layer

    @pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
    def test_in_a_module_of_the_users(self, name):
        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = build(name)

            def forward(self, x):
                return {"logits": self.backbone(x)}

        mine, x = Mine().eval(), images(name)
        assert timm_layer(mine) == f"backbone.{timm_layer(mine.backbone)}"
        subject = xa.describe(mine, name="mine", task="depth", output=lambda out: out["logits"])
        found = grad_cam(subject, x)
        assert torch.equal(found, grad_cam(mine.backbone, x))

    def test_of_two_networks_it_is_the_convolution(self):
        assert timm_layer(nn.ModuleList([build("resnet18"), build("resnet18")])) is None

    def test_one_by_name(self):
        network, x = build("vit_tiny_patch16_224"), images("vit_tiny_patch16_224")
        assert not torch.equal(grad_cam(network, x, layer="blocks.0"), grad_cam(network, x))
        assert torch.equal(grad_cam(network, x, layer="blocks.1.norm1"), grad_cam(network, x))


class TestRefused:
    def refused(self, module, x, said, **options):
        with untouched(module, x), pytest.raises(xa.NotApplicableError, match=said):
            grad_cam(module, x, **options)

    def test_a_network_without_convolutions(self):
        said = "does not apply to Pixelwise: no convolution of Pixelwise gives a map of more than one place; name a la"
        self.refused(Pixelwise(draw(3, 8, 8)), draw(1, 3, 8, 8), said, target=lambda out: out.mean((1, 2, 3)))

    def test_an_unknown_layer(self):
        self.refused(
            build("resnet18"), images("resnet18"), "ResNet has no layer 'layer5'; there is layer", layer="layer5"
        )

    def test_a_layer_without_places(self):
        said = r"layer 'fc' gives \(2, 5\), and its patches are .*; name a layer whose output is \(B, C, h, w\)"
        self.refused(build("resnet18"), images("resnet18"), said, layer="fc")

    def test_a_layer_of_one_place(self):
        said = r"layer 'layer4' gives \(2, 512, 1, 1\)"
        self.refused(build("resnet18"), draw(2, 3, 32, 32), said)

    def test_a_layer_that_does_not_run(self):
        network = Tiny([1.0, 3.0], [2.0, -0.5])
        network.spare = nn.Conv2d(1, 1, 1)
        self.refused(network, TestByHand.picture, "layer 'spare' of Tiny did not run; name a layer", layer="spare")

    def test_a_layer_that_gives_a_tuple(self):
        class Pair(nn.Module):
            def forward(self, x):
                return x, x

        class Network(Tiny):
            def __init__(self):
                super().__init__([1.0, 3.0], [2.0, -0.5])
                self.pair = Pair()

            def forward(self, x):
                return super().forward(self.pair(x)[0])

        self.refused(Network(), TestByHand.picture, "layer 'pair' of Network gives a tuple", layer="pair")

    def test_a_layer_that_the_target_ignores(self):
        class Network(Tiny):
            def forward(self, x):
                self.conv(x)
                return x.mean((2, 3))

        said = "the target does not depend on layer 'conv' of Network; choose another layer="
        self.refused(Network([1.0, 3.0], [2.0, -0.5]), TestByHand.picture, said)

    def test_a_target_that_is_not_one_number_an_image(self):
        with pytest.raises(xa.ModelOutputError, match=r"one number an image, a tensor \(2,\), not \(2, 5\)"):
            grad_cam(build("resnet18"), images("resnet18"), target=lambda out: out)
