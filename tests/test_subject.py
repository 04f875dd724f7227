"""The model under test and its card."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from known_models import Blind, Pixelwise, ReturnsTuple, SignedSum, WrongBatch, draw
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card, as_subject, slug


def subject(module=None, **card):
    return xa.describe(module or nn.Conv2d(3, 1, 1), **{"name": "net", "task": "depth", **card})


class TestCard:
    @pytest.mark.parametrize(
        ("card", "error", "text"),
        [
            ({"name": ""}, ValueError, "name: a subject needs a name"),
            ({"mean": (0.5,)}, TypeError, "give mean= and std= together"),
            ({"std": (0.5,)}, TypeError, "give mean= and std= together"),
            ({"mean": (0.5, 0.5), "std": (1.0,)}, ValueError, "mean has 2 channels and std 1"),
            ({"mean": (0.5,), "std": (0.0,)}, ValueError, r"std must be positive in every channel, not \(0.0,\)"),
            ({"mean": (0.5,), "std": (float("nan"),)}, ValueError, "std must be positive"),
            ({"layout": "GBR"}, ValueError, "layout must be 'RGB' or 'BGR', not 'GBR'"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, card, error, text):
        with pytest.raises(error, match=text):
            subject(**card)

    def test_channels_come_from_the_statistics(self):
        assert subject().card.channels is None
        assert subject(mean=[0.5] * 4, std=[1] * 4).card.channels == 4

    def test_the_output_is_as_large_as_the_input_unless_it_is_said(self):
        assert subject(input_size=(4, 6)).card.output_size == (4, 6)
        assert subject(input_size=(4, 6), output_size=(2, 3)).card.output_size == (2, 3)

    def test_a_card_does_not_change(self):
        with pytest.raises(AttributeError):
            subject().card.name = "other"


CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # one subtraction and one division in float32


class TestColours:
    """A colour of the picture, as the network sees it: (colour - mean) / std, channel by channel."""

    def test_normalised_input(self):
        card = subject(mean=IMAGENET_MEAN, std=IMAGENET_STD).card
        expected = [(c - m) / s for c, m, s in zip((1.0, 0.5, 0.0), IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        torch.testing.assert_close(card.colour((1.0, 0.5, 0.0)).flatten(), torch.tensor(expected), **CLOSE)

    def test_raw_input(self):
        card = subject(mean=[0, 0, 0], std=[1, 1, 1]).card
        assert card.colour((1.0, 0.5, 0.0)).tolist() == [[[[1.0]], [[0.5]], [[0.0]]]]

    def test_blue_first(self):
        card = subject(mean=[0, 0, 0], std=[1, 1, 1], layout="BGR").card
        assert card.colour((1.0, 0.5, 0.0)).flatten().tolist() == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_channel_counts_take_the_grey_of_it(self, channels):
        card = subject(mean=[0] * channels, std=[2] * channels).card
        expected = torch.full((1, channels, 1, 1), 0.25)  # (1 + .5 + 0) / 3 / 2
        torch.testing.assert_close(card.colour((1.0, 0.5, 0.0)), expected, **CLOSE)

    def test_without_statistics_nobody_knows_what_black_is(self):
        with pytest.raises(TypeError, match=r"net has no mean and std.*pass mean=\.\.\., std=.*or make a subject with"):
            subject().card.colour((0.0, 0.0, 0.0))

    @pytest.mark.parametrize(
        ("std", "layout", "expected"),
        [
            (None, "RGB", [1, 1, 1]),
            (IMAGENET_STD, "RGB", [1, 1, 1]),
            ((1.0, 1.0, 1.0), "RGB", IMAGENET_STD),
            ((1.0, 1.0, 1.0), "BGR", IMAGENET_STD[::-1]),
            (IMAGENET_STD[::-1], "BGR", [1, 1, 1]),
            ((0.5,), "RGB", [2 * sum(IMAGENET_STD) / 3]),
        ],
    )
    def test_the_unit_of_strength(self, std, layout, expected):
        card = subject(mean=None if std is None else [0] * len(std), std=std, layout=layout).card
        found = card.strength(3)
        assert found.shape == (1, len(expected), 1, 1)
        torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32), **CLOSE)


class TestNames:
    def test_the_repr_is_one_line_with_what_matters(self):
        assert repr(subject(unit="m")) == "<Subject net: depth in m, Conv2d, 4 parameters on cpu>"
        assert repr(as_subject(nn.Linear(1000, 10))) == "<Subject Linear: no task, Linear, 10,010 parameters on cpu>"

    def test_shared_parameters_count_once(self):
        layer = nn.Conv2d(3, 3, 1)
        assert "12 parameters" in repr(subject(nn.Sequential(layer, layer)))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("meter-xxs_v1.2", "meter-xxs_v1.2"), ("hf/Any Depth", "hf-Any-Depth"), ("(a)+b", "a-b"), ("深度", "unnamed")],
    )
    def test_the_id_can_stand_in_file_names(self, name, expected):
        assert slug(name) == subject(name=name).id == expected


class TestCalls:
    def test_the_output_is_the_modules(self):
        module, images = nn.Conv2d(3, 1, 3), draw(2, 3, 5, 5)
        assert torch.equal(subject(module)(images), module(images))

    def test_the_cards_size_is_not_enforced(self):
        assert subject(input_size=(4, 4))(draw(1, 3, 7, 9)).shape == (1, 1, 7, 9)

    @pytest.mark.parametrize("images", [[[1.0]], None, "picture.png"])
    def test_what_is_no_tensor_is_refused(self, images):
        with pytest.raises(TypeError, match=rf"images must be a tensor \(B, C, H, W\), not {type(images).__name__}"):
            subject()(images)

    def test_a_tuple_is_refused_with_the_remedy(self):
        with pytest.raises(xa.ModelOutputError, match=r"net returned a tuple, not a tensor; give .* an output="):
            subject(ReturnsTuple())(draw(2, 3, 4, 4))

    def test_a_tuple_a_dict_and_a_dataclass_are_read_through_output(self):
        @dataclass
        class Raw:
            depth: torch.Tensor

        class Returns(nn.Module):
            def __init__(self, wrap):
                super().__init__()
                self.wrap = wrap

            def forward(self, images):
                return self.wrap(images.mean(1, keepdim=True))

        images = draw(2, 3, 4, 4)
        for wrap, output in (
            (lambda d: (0, d), lambda raw: raw[1]),
            (lambda d: OrderedDict(depth=d), lambda raw: raw["depth"]),
            (Raw, lambda raw: raw.depth),
        ):
            found = subject(Returns(wrap), output=output)
            assert torch.equal(found(images), images.mean(1, keepdim=True))
            assert xa.heatmap(found, images, "saliency").shape == (2, 4, 4)

    def test_another_batch_size_is_refused(self):
        with pytest.raises(xa.ModelOutputError, match=r"returned \(4, 1, 4, 4\) for 2 images; the first dimension"):
            subject(WrongBatch())(draw(2, 3, 4, 4))

    def test_a_single_number_for_the_batch_is_refused(self):
        with pytest.raises(xa.ModelOutputError, match=r"returned \(\) for 2 images"):
            subject(Blind(), output=lambda raw: raw.mean())(draw(2, 3, 4, 4))

    @pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)])
    def test_a_model_that_writes_on_its_input_spares_the_callers(self, first):
        module, images = nn.Sequential(first, nn.Conv2d(3, 1, 1)), draw(2, 3, 4, 4)
        with untouched(module, images):
            found = subject(module)(images)
        assert torch.equal(found, module(images.clone()))

    def test_a_module_that_returns_its_input_hands_out_a_copy(self):
        images = draw(1, 3, 2, 2)
        subject(nn.Identity())(images).zero_()
        assert images.abs().min() > 0


class TestDevice:
    @pytest.mark.parametrize("module", [nn.Identity(), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 1, 1)])
    def test_it_is_where_the_weights_are(self, module):
        assert subject(module).device == torch.device("cpu")

    def test_buffers_say_so_where_there_are_no_parameters(self):
        assert subject(nn.BatchNorm2d(3, affine=False, device="meta")).device == torch.device("meta")


class TestFingerprint:
    def test_equal_weights_have_equal_fingerprints(self):
        one, two = (subject(Pixelwise(draw(3, 4, 4))) for _ in range(2))
        assert one.fingerprint() == two.fingerprint()
        assert len(one.fingerprint()) == 16

    def test_the_card_is_no_part_of_it(self):
        module = Pixelwise(draw(3, 4, 4))
        assert subject(module).fingerprint() == subject(module, name="other", unit="m").fingerprint()

    def test_the_layout_in_memory_is_no_part_of_it(self):
        module = nn.Conv2d(3, 4, 3)
        before = subject(module).fingerprint()
        assert subject(module.to(memory_format=torch.channels_last)).fingerprint() == before

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_one_weight_changes_it(self, dtype):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
        seen = {subject(module).fingerprint()}
        for tensor in module.state_dict().values():
            tensor.reshape(-1)[-1] += 1  # also the norm's statistics and its 0-dimensional counter
            seen.add(subject(module).fingerprint())
        assert len(seen) == 1 + len(module.state_dict())

    def test_so_do_the_type_the_name_and_the_shape(self):
        class Other(nn.Module):
            def __init__(self, values):
                super().__init__()
                self.others = nn.Parameter(values)

        weights = torch.zeros(3, 4, 4)
        modules = [Pixelwise(weights), Pixelwise(weights.reshape(3, 2, 8)), Other(weights)]
        modules += [Pixelwise(weights.half()), Pixelwise(weights.bfloat16())]  # the same bytes
        assert len({subject(m).fingerprint() for m in modules}) == len(modules)

    def test_buffers_that_no_state_dict_holds_are_part_of_it(self):
        module = nn.Module()
        module.register_buffer("offset", torch.zeros(2), persistent=False)
        before = subject(module).fingerprint()
        module.offset[1] = 1
        assert subject(module).fingerprint() != before

    def test_a_module_without_weights_and_one_with_an_empty_one(self):
        empty = nn.Module()
        empty.register_parameter("prefix", nn.Parameter(torch.zeros(0, 8)))
        assert subject(nn.Identity()).fingerprint() != subject(empty).fingerprint()


class TestMakingOne:
    def test_the_module_is_left_as_it_is(self):
        module = SignedSum(draw(3, 4, 4)).train()
        with untouched(module):
            described = subject(module)
        assert described.module is module
        assert described.training

    def test_a_subject_is_described_anew_not_wrapped(self):
        first = subject(name="one", unit="m")
        second = xa.describe(first, name="two", task="depth")
        assert second.module is first.module
        assert (second.name, second.card.unit) == ("two", None)

    @pytest.mark.parametrize("module", [None, "meter", lambda x: x])
    def test_what_is_no_module_is_refused(self, module):
        with pytest.raises(TypeError, match=f"module must be a torch.nn.Module, not {type(module).__name__}"):
            xa.describe(module, name="net", task="depth")

    def test_an_unknown_task(self):
        with pytest.raises(xa.UnknownNameError, match="unknown task 'dept'; did you mean 'depth'"):
            subject(task="dept")


class TestAsSubject:
    def test_a_subject_is_returned_as_it_is(self):
        first = subject()
        assert as_subject(first) is first

    def test_what_is_given_goes_before_the_card_and_the_rest_stays(self):
        first = subject(unit="m", mean=[0.5] * 3, std=[0.5] * 3)
        second = as_subject(first, unit="cm", std=[1, 1, 1])
        assert second.module is first.module
        assert (second.card.unit, second.card.std, second.card.mean) == ("cm", (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
        assert (first.card.unit, first.card.std) == ("m", (0.5, 0.5, 0.5))

    def test_a_bare_module_gets_its_class_name_and_what_is_given(self):
        found = as_subject(nn.Conv2d(3, 1, 1), task="depth", mean=[0] * 3, std=[1] * 3)
        assert found.card == Card(name="Conv2d", task=found.card.task, mean=(0.0,) * 3, std=(1.0,) * 3)
        assert found.card.task.name == "depth"

    def test_mean_alone_is_refused(self):
        with pytest.raises(TypeError, match="give mean= and std= together"):
            as_subject(nn.Conv2d(3, 1, 1), mean=[0, 0, 0])

    @pytest.mark.parametrize("model", [None, "meter", 3])
    def test_anything_else_is_refused(self, model):
        with pytest.raises(TypeError, match=r"subject must be a Subject \(xa.load_model, xa.describe\) or a torch.nn"):
            as_subject(model)


class TestKnownFingerprint:
    """The hash of a large network takes longer than a pass: it is taken anew only where something shows a change."""

    def subject(self):
        network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        network.register_buffer("phases", torch.ones(2, dtype=torch.complex64))
        network.register_buffer("large", torch.cat([torch.ones(2**16), -torch.ones(2**16)]))  # summed up alone
        network.register_buffer("scales", torch.ones(5, dtype=torch.float8_e4m3fn))
        network.register_buffer("seen", torch.tensor([True, False, True]))
        network.register_buffer("empty", torch.zeros(0))
        return xa.describe(network, name="net", task="depth")

    def test_it_is_the_fingerprint_and_is_hashed_once(self, monkeypatch):
        subject, hashed = self.subject(), []
        honest = type(subject).fingerprint
        monkeypatch.setattr(type(subject), "fingerprint", lambda self: hashed.append(1) or honest(self))
        assert subject.known_fingerprint() == subject.known_fingerprint() == honest(subject)
        assert len(hashed) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: net[0].weight.data.mul_(1 + 1e-6),  # which no version counts
            lambda net: net[0].bias.requires_grad_(False).add_(1e-3),
            lambda net: net[1].running_var.fill_(2),
            lambda net: net.phases.data.mul_(1j),
            lambda net: net.load_state_dict({k: torch.zeros_like(v) for k, v in net.state_dict().items()}),
            lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.detach() * 2)),
            lambda net: net.double(),
            lambda net: net[0].weight.data.fill_(float("nan")),
            lambda net: net.large.data[-1:].fill_(-1 + 2**-24),  # the next number in float32: a sum of floats rounds it
            lambda net: net.large.data[: 2**16 + 2].neg_(),  # the bits of as many signs come as go, but for 2 values
            lambda net: net.scales.data.copy_(-net.scales.float()),
            lambda net: net.seen.data.logical_not_(),
        ],
        ids=[
            *("data", "in place", "buffer", "complex", "state dict", "another tensor", "type", "nan"),
            *("one bit", "signs", "float8", "bool"),
        ],
    )
    def test_every_change_is_seen(self, change):
        subject = self.subject()
        before = subject.known_fingerprint()
        change(subject.module)
        assert subject.known_fingerprint() == subject.fingerprint() != before

    def test_a_network_of_large_tensors_alone(self):
        subject = xa.describe(nn.Conv2d(64, 64, 5, bias=False), name="net", task="depth")
        before = subject.known_fingerprint()
        subject.module.weight.data[0, 0, 0, 0] += 1e-3
        assert subject.known_fingerprint() == subject.fingerprint() != before

    def test_a_network_without_tensors(self):
        assert xa.describe(nn.Tanh(), name="net", task="depth").known_fingerprint()
