"""Every method on small networks of timm, one of each family: a map of the right shape, or the reason why not."""

import copy
from pathlib import Path

import pytest
import torch
from timm_zoo import DESCRIBED, FLAT, METHODS, SWIN, ZOO, build, images, table, target
from untouched import untouched

import xai_assert as xa
from xai_assert import registry

ROLLOUTS = ("attention_rollout", "gradient_rollout")
EVERYWHERE = [method for method in METHODS if method.name not in ROLLOUTS]
BY_NAME = {method.name: method for method in METHODS}
PLAIN = "resnet18"
# one of each kind of layer that has a state or draws: batch norm, dropout and stochastic depth, tokens, windows
STATEFUL = {
    PLAIN: {"drop_rate": 0.5, "drop_path_rate": 0.5},
    "efficientnet_lite0": {"drop_rate": 0.5, "drop_path_rate": 0.5},
    "vit_tiny_patch16_224": {"drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5, "proj_drop_rate": 0.5},
    "swin_tiny_patch4_window7_224": {"drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5},
}


def pairs(*names):
    """Each of the networks with each method that applies to it."""
    found = [(n, m) for n in names for m in METHODS if m.name not in ROLLOUTS or n in FLAT + SWIN]
    return [pytest.param(*pair, id="-".join(map(str, pair))) for pair in found]


def test_every_method_of_ours_is_tried():
    known = [registry.methods.get(name) for name in registry.methods.names()]
    ours = {m.name for m in known if m.function.__module__.startswith("xai_assert")}
    assert ours == set(BY_NAME)


def attribute(network, x, method):
    return xa.attribute(network, x, method, **DESCRIBED)


def heatmap(network, x, method):
    return xa.heatmap(network, x, method, **DESCRIBED)


@pytest.fixture(params=ZOO, scope="module")
def case(request):
    return request.param, build(request.param), images(request.param)


class TestEveryNetwork:
    @pytest.mark.parametrize("method", EVERYWHERE, ids=str)
    def test_a_map(self, case, method):
        _, network, x = case
        with untouched(network, x):
            found = heatmap(network, x, method)
        assert found.shape == (len(x), *x.shape[-2:])
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert found.min() >= 0
        if method.name != "grad_cam":  # of random weights, none of which may speak for the class: that map is 0
            assert (found.flatten(1).std(1) > 0).all()

    @pytest.mark.parametrize("method", ROLLOUTS)
    def test_rollout_or_why_not(self, case, method):
        name, network, x = case
        if name in FLAT + SWIN:
            found = heatmap(network, x, method)
            assert found.shape == (len(x), *x.shape[-2:])
            # a block of Swin v2 ends in a norm whose weights are first 0: no attention moves the output
            nothing = method == "gradient_rollout" and name.startswith("swinv2")
            assert (found.flatten(1).std(1) > 0).all() != nothing
        else:
            with untouched(network, x), pytest.raises(xa.NotApplicableError, match=r"shows no attention\. Give the"):
                heatmap(network, x, method)

    def test_saliency_and_input_x_gradient_are_the_gradients(self, case):
        _, network, x = case
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target(network(leaf)).sum(), leaf)
        close = {"rtol": 0, "atol": 1e-5 * float(gradient.abs().max())}  # the roundings of other batch norms' kernels
        torch.testing.assert_close(attribute(network, x, "saliency"), gradient, **close)
        close["atol"] *= float(x.abs().max())
        torch.testing.assert_close(attribute(network, x, "input_x_gradient"), x * gradient, **close)

    def test_grad_cam_is_not_0_for_every_class(self, case):
        _, network, x = case
        maps = [xa.heatmap(network, x[:1], "grad_cam", target=lambda out, k=k: out[:, k]) for k in range(5)]
        assert any((found > 0).any() for found in maps)


class TestStates:
    """However the user's network stands, it is judged the same, and stands so afterwards."""

    @pytest.mark.parametrize(("name", "method"), pairs(*STATEFUL))
    def test_train_mode_dropout_and_batch_norm(self, name, method):
        network, x = build(name, **STATEFUL[name]), images(name)
        training = copy.deepcopy(network).train()
        assert not torch.equal(training(x), training(x))
        expected = attribute(network, x, method)
        network.train()
        next(network.children()).eval()  # and a part of it not
        with untouched(network, x):
            found = attribute(network, x, method)
        assert torch.equal(found, expected)

    @pytest.mark.parametrize("method", EVERYWHERE, ids=str)
    def test_frozen_and_shared_parameters(self, method):
        network, x = build(PLAIN), images(PLAIN)
        network.layer4[1].conv2 = network.layer4[1].conv1  # a module that runs twice
        network.layer3[1].conv2.weight = network.layer3[1].conv1.weight  # a weight of two modules
        network.conv1.weight.requires_grad_(False)
        expected = attribute(network.requires_grad_(False), x, method)
        network.requires_grad_(True)
        network.conv1.weight.requires_grad_(False)
        with untouched(network, x):
            found = attribute(network, x, method)
        assert torch.equal(found, expected)
        assert all(p.grad is None for p in network.parameters())

    @pytest.mark.parametrize(
        ("name", "method"), pairs(PLAIN, "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
    )
    def test_channels_last(self, name, method):
        network, x = build(name).double(), images(name).double()
        expected = attribute(network, x, method)
        found = attribute(
            network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), method
        )
        # float64: other kernels, other orders of sums, and no ReLU at its kink
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))

    @pytest.mark.parametrize(
        ("name", "method"), pairs("convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
    )
    def test_bfloat16(self, name, method):
        network, x = build(name), images(name)
        expected = heatmap(network, x, method).flatten()
        found = heatmap(network.bfloat16(), x.bfloat16(), method)
        assert found.dtype == torch.float32
        # 8 bits through some twenty layers leave a map alike, and not the same
        assert torch.corrcoef(torch.stack([expected, found.flatten()]))[0, 1] > 0.9

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, as it traces
    @pytest.mark.parametrize(
        ("name", "method", "in_place"),
        [
            (PLAIN, "grad_cam", True),
            ("vit_tiny_patch16_224", "saliency", False),
            ("vit_tiny_patch16_224", "attention_rollout", True),
            ("vit_tiny_patch16_224", "gradient_rollout", False),
        ],
    )
    def test_compiled(self, name, method, in_place):
        """Traced and differentiated ahead of time, but run by torch's own kernels: no C++ compiler is needed."""
        torch.compiler.reset()
        network, x = build(name).double(), images(name).double()
        expected = attribute(network, x, method)
        if in_place:
            network.compile(backend="aot_eager")
        else:
            network = torch.compile(network, backend="aot_eager")
        network(x)  # as a user has it: called before
        with untouched(network, x):
            found = attribute(network, x, method)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize(
        ("name", "method"), pairs(PLAIN, "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
    )
    def test_on_a_gpu(self, name, method):
        network, x = build(name).double(), images(name).double()
        expected = attribute(network, x, method)
        network, x = network.cuda(), x.cuda()
        with untouched(network, x):
            found = attribute(network, x, method)
        # float64: other kernels, other orders of sums, and no ReLU at its kink
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_the_table_of_the_documents_is_the_one_that_is_measured():
    text = (Path(__file__).parents[2] / "docs" / "timm.md").read_text()
    assert table() in text
