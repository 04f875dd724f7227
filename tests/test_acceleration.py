"""Faster passes that round otherwise: the same scores within that, and said wherever a score stands."""

import pytest
import torch
from known_models import Attentive, Counting, Pixelwise, curved, draw
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert.acceleration import Accelerated, accelerate, acceleration_error
from xai_assert.batching import Passes

IMAGES = draw(4, 3, 8, 8)
# bfloat16 has 8 bits: each product and sum of the three layers is off by up to 2^-8
BFLOAT16 = {"rtol": 0.03, "atol": 0.03}


@pytest.fixture
def eagerly_compiled(monkeypatch):
    """`torch.compile` without a compiler: what it would be given runs as it is, and its calls are counted."""
    calls = []

    def compile(forward):
        def run(*arguments):
            calls.append(forward)
            return forward(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return calls


class Formats(nn.Module):
    """Notes the layout of memory and the precision that it sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 3, padding=1)
        self.seen = []

    def forward(self, images):
        output = self.layer(images)
        last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        self.seen.append((last, output.dtype))
        return output


@pytest.mark.parametrize("what", ["channels_last", "bfloat16", "compile", ["compile", "bfloat16", "channels_last"]])
def test_it_computes_the_same_within_its_rounding(what, eagerly_compiled):
    subject = xa.describe(curved().eval(), name="net", task="depth")
    fast = accelerate(subject, what)
    torch.testing.assert_close(fast(IMAGES).float(), subject(IMAGES), **BFLOAT16)
    found, expected = (xa.attribute(one, IMAGES, "saliency").float() for one in (fast, subject))
    torch.testing.assert_close(found, expected, **BFLOAT16)
    assert fast.fingerprint() == subject.fingerprint()


def test_the_model_sees_what_was_asked_for():
    for words, expected in (
        ("channels_last", (True, torch.float32)),
        ("bfloat16", (False, torch.bfloat16)),
        (["bfloat16", "channels_last"], (True, torch.bfloat16)),
    ):
        fast = accelerate(Formats(), words, task="depth")
        fast(IMAGES)
        assert fast.module.seen[-1] == expected


def test_the_subject_and_its_module_are_left_as_they_were(eagerly_compiled):
    model = curved().eval()
    with untouched(model, IMAGES):
        fast = accelerate(model, ["channels_last", "bfloat16", "compile"], task="depth")
        xa.attribution_fidelity(fast, "saliency", IMAGES)
    assert "forward" not in vars(model)


def test_a_compiled_forward_is_taken_back_after_an_exception(eagerly_compiled):
    model = nn.Sequential(nn.Conv2d(3, 1, 1))
    fast = accelerate(model, "compile", task="depth")
    with pytest.raises(xa.ModelOutputError):
        fast(torch.zeros(1, 5, 4, 4))
    assert len(eagerly_compiled) == 1
    assert "forward" not in vars(model)


def test_methods_that_look_into_the_module_run_it_as_it_is(eagerly_compiled):
    model = Attentive()
    fast = accelerate(model, "compile", task="depth")
    images = draw(2, 3, 20, 28)
    expected = xa.attribute(model, images, "attention_rollout", task="depth")
    torch.testing.assert_close(xa.attribute(fast, images, "attention_rollout"), expected, rtol=1e-5, atol=1e-6)
    assert len(eagerly_compiled) == 1  # the clean pass alone: a graph runs no hooks


def test_passes_are_counted_as_ever(eagerly_compiled):
    for words in ("compile", "bfloat16", "channels_last"):
        ev = xa.Evaluation(accelerate(Pixelwise(draw(3, 8, 8)), words, task="depth"), IMAGES)
        ev.attribution_fidelity("saliency")
        assert ev.passes == ev.expected_passes("saliency") == Passes(2 * 4, 4)


def test_how_far_it_moves_is_measured_and_said():
    fast = accelerate(curved().eval(), "bfloat16", task="depth")
    score = xa.attribution_fidelity(fast, "saliency", IMAGES, batch_size=4)
    about = score.provenance["acceleration"]
    exact, found = fast.exact(IMAGES)[:, 0], fast(IMAGES)[:, 0].float()
    expected = ((exact - found).square().mean((1, 2)).sqrt() / exact.abs().amax((1, 2))).max()
    assert about == {"what": "bfloat16", "error": pytest.approx(float(expected.detach()))}
    assert 0 < about["error"] < 0.02  # 8 bits, three layers
    assert any(mark.startswith("accelerated: bfloat16 (predictions move by 0.00") for mark in score.marks)
    plain = xa.attribution_fidelity(fast.exact, "saliency", IMAGES)
    assert "acceleration" not in plain.provenance
    assert not any("accelerated" in mark for mark in plain.marks)


def test_what_it_rounds_away_counts_as_no_change():
    class Whispering(Pixelwise):
        """What the pixels change is below what bfloat16 can tell of the whole."""

        def forward(self, images):
            return 1 + 1e-3 * super().forward(images)

    model = Whispering(draw(3, 8, 8))
    score = xa.attribution_fidelity(accelerate(model, "bfloat16", task="depth"), "saliency", IMAGES)
    assert score.unresponsive == 4
    assert xa.attribution_fidelity(model, "saliency", IMAGES, task="depth").unresponsive == 0


def test_another_card_keeps_it():
    fast = accelerate(Counting(Pixelwise(draw(3, 8, 8))), "bfloat16", task="depth")
    ev = xa.Evaluation(fast, IMAGES, unit="cm")
    assert isinstance(ev.subject, Accelerated)
    assert (ev.subject.how, ev.subject.card.unit) == ("bfloat16", "cm")
    again = accelerate(fast, "channels_last")
    assert (again.how, again.exact) == ("channels_last", fast.exact)  # instead of, not on top of


def test_without_a_task_there_is_no_error_to_take():
    assert acceleration_error(accelerate(curved(), "bfloat16"), IMAGES) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bf16", "unknown acceleration 'bf16'; .*known: bfloat16, channels_last, compile, float16"),
        ([], "give one or several of channels_last, bfloat16, float16, compile, of the precisions one, not nothing"),
        (["bfloat16", "float16"], "of the precisions one, not bfloat16, float16"),
    ],
)
def test_what_cannot_be(words, message):
    with pytest.raises(ValueError, match=message):
        accelerate(curved(), words, task="depth")


@pytest.mark.slow
def test_torch_compiles_it():
    """With the compiler of the machine: about a minute."""
    fast = accelerate(curved().eval(), "compile", task="depth")
    torch.testing.assert_close(fast(IMAGES), fast.exact(IMAGES), rtol=1e-5, atol=1e-6)
    found, expected = (xa.attribute(one, IMAGES, "saliency") for one in (fast, fast.exact))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
