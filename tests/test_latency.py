"""What an attribution costs: passes are counted, and time is read off a clock that the model itself moves on."""

import json
import types

import pytest
import torch
from known_models import Attentive, Counting, CountingAttentive, Squares, draw
from torch import nn
from untouched import untouched

import xai_assert
import xai_assert as xa
from xai_assert import cost
from xai_assert.batching import Passes
from xai_assert.cost import Speed, measure_speed, predict_cost, synchronise, timed
from xai_assert.latency import assert_attribution_latency, attribution_latency
from xai_assert.metrics import FaithfulnessCell, FidelityCell

STATISTICS = {"task": "depth", "mean": [0.5] * 3, "std": [0.25] * 3}
IMAGES = draw(6, 3, 8, 8, seed=1)


class Clock:
    """Stands still but for what moves it."""

    now = 0.0

    def __call__(self):
        return self.now


class Slow(nn.Module):
    """`inner`, whose forward pass of a batch takes `seconds(number of the call, from 0)` and its backward `back`."""

    def __init__(self, inner, clock, seconds=lambda call: 1.0, back=0.0):
        super().__init__()
        self.inner, self.clock, self.seconds, self.back = inner, clock, seconds, back
        self.calls = 0

    def forward(self, images):
        self.clock.now += self.seconds(self.calls)
        self.calls += 1
        output = self.inner(images)
        if output.requires_grad:
            output.register_hook(self._went_back)
        return output

    def _went_back(self, _):
        self.clock.now += self.back


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(cost, "clock", found)
    return found


@pytest.fixture
def slow(clock):
    """A subject with a forward pass of one second."""
    return xa.describe(Slow(Squares(draw(3, 8, 8)), clock), name="slow-net", **STATISTICS)


def with_a_hidden_forward(model, images, target):
    model(images)
    return torch.autograd.grad(target(model(images.requires_grad_())).sum(), images)[0]


def behind_the_subject(model, images, target):
    with torch.no_grad():
        return model.module(images).expand(-1, 3, -1, -1) + model.module(2 * images)


def a_single_baseline(model, images, target):
    return images - model(images[:1].mean((2, 3), keepdim=True).expand(-1, -1, 8, 8))


class TestPasses:
    @pytest.mark.parametrize(
        ("method", "passes"),
        [
            ("saliency", (0, 1)),
            ("integrated_gradients(steps=7)", (0, 7)),
            ("attention_rollout", (1, 0)),
            ("random", (0, 0)),
            ("edges", (0, 0)),
        ],
    )
    def test_are_those_that_the_method_declares(self, method, passes):
        found = attribution_latency(CountingAttentive(Attentive()), method, IMAGES, rounds=1, **STATISTICS)
        assert found.passes == passes
        assert found.passes_per_image == sum(passes) == sum(xa.method(method).passes(**xa.method(method).parameters))

    @pytest.mark.parametrize(
        ("method", "passes"),
        [(with_a_hidden_forward, (1, 1)), (behind_the_subject, (2, 0)), (a_single_baseline, (0.25, 0))],
    )
    def test_nothing_is_hidden(self, method, passes):
        found = attribution_latency(Squares(draw(3, 8, 8)), method, IMAGES, rounds=1, task="depth")
        assert found.passes == passes

    def test_the_chunk_is_the_first_four_images(self):
        model = Counting(Squares(draw(3, 8, 8)))
        found = attribution_latency(model, "saliency", IMAGES, rounds=1, task="depth")
        assert (model.largest, found.provenance["batch_size"]) == (4, 4)
        assert model.forwards % 4 == 0
        for batch_size, images, chunk in ((2, IMAGES, 2), (None, IMAGES[:3], 3), (6, IMAGES, 6)):
            model = Counting(Squares(draw(3, 8, 8)))
            attribution_latency(model, "saliency", images, rounds=1, batch_size=batch_size, task="depth")
            assert (model.largest, model.forwards % chunk) == (chunk, 0)

    def test_the_model_is_in_evaluation_mode_and_frozen(self):
        model, seen = Squares(draw(3, 8, 8)).train(), []

        def looks(subject, images, target):
            seen.append((subject.module.training, subject.module.weights.requires_grad))
            return images

        attribution_latency(model, looks, IMAGES, rounds=2, task="depth")
        assert set(seen) == {(False, False)}

    def test_model_and_images_are_left_as_they_were(self):
        model = Squares(draw(3, 8, 8)).train()
        images = IMAGES.clone()
        with untouched(model, images):
            attribution_latency(model, "integrated_gradients(steps=2)", images, rounds=2, **STATISTICS)
        with untouched(model, images), pytest.raises(ZeroDivisionError):
            attribution_latency(model, lambda model, images, target: 1 / 0, images, task="depth")


class TestTime:
    """A forward pass of the chunk takes a second on the clock, and nothing else takes any."""

    @pytest.mark.parametrize(
        ("method", "ratio"),
        [
            ("integrated_gradients(steps=7)", 7),
            ("saliency", 1),
            (with_a_hidden_forward, 2),
            (behind_the_subject, 2),
            ("edges", 0),
        ],
    )
    def test_ratio(self, slow, method, ratio):
        found = attribution_latency(slow, method, IMAGES)
        assert (found.value, found.seconds, found.forward_seconds) == (ratio, ratio / 4, 1 / 4)

    def test_a_backward_pass_takes_time_too(self, clock):
        model = Slow(Squares(draw(3, 8, 8)), clock, back=2.0)
        assert attribution_latency(model, "integrated_gradients(steps=5)", IMAGES, **STATISTICS).value == 15

    def test_what_the_method_does_itself(self, slow, clock):
        def thinks(model, images, target):
            clock.now += 3.5
            return images

        assert attribution_latency(slow, thinks, IMAGES).value == 3.5

    def test_noise_that_only_adds_is_seen_through(self, clock):
        model = Slow(Squares(draw(3, 8, 8)), clock, lambda call: 0.125 * (1 + 5 * (call % 7 in (0, 1, 4))))
        assert attribution_latency(model, "saliency", IMAGES, rounds=20, task="depth").value == 1

    @pytest.mark.parametrize(("before", "after"), [(0.125, 0.0625), (0.0625, 0.125)])
    def test_a_machine_that_changes_half_way_changes_both(self, clock, before, after):
        model = Slow(Squares(draw(3, 8, 8)), clock, lambda call: before if call < 60 else after)
        found = attribution_latency(model, "integrated_gradients(steps=4)", IMAGES, rounds=12, **STATISTICS)
        assert model.calls > 80
        assert (found.value, found.forward_seconds) == (4, 0.0625 / 4)

    @pytest.mark.parametrize(
        ("seconds", "rounds", "calls"),
        [
            (2**-10, 20, 1 + 6 + 20 * 2),  # the target; the warm-up; a forward and a gradient a round, 20 at most
            (2**-3, 8, 1 + 6 + 8 * 2),  # 2 seconds / (1/8 + 1/8)
            (2.0, 3, 1 + 6 + 2 * 2),  # slower than the budget: at least 3, and the first one counts
        ],
    )
    def test_rounds_come_from_a_budget(self, clock, seconds, rounds, calls):
        model = Slow(Squares(draw(3, 8, 8)), clock, lambda call: seconds)
        assert attribution_latency(model, "saliency", IMAGES, task="depth").rounds == rounds
        assert model.calls == calls

    def test_rounds_can_be_said(self, slow):
        assert attribution_latency(slow, "integrated_gradients(steps=2)", IMAGES, rounds=5).rounds == 5

    def test_the_device_is_idle_at_both_readings(self, clock, monkeypatch):
        heard = []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: heard.append("wait"))
        monkeypatch.setattr(cost, "clock", lambda: heard.append("read") or 0.0)
        timed(torch.device("cuda:0"), lambda: heard.append("work"))
        assert heard == ["wait", "read", "work", "wait", "read"]
        monkeypatch.setattr(torch.mps, "synchronize", lambda: heard.append("mps"))
        synchronise(torch.device("mps"))
        synchronise(torch.device("cpu"))
        assert heard[5:] == ["mps"]


class TestScore:
    def test_to_dict_is_json(self, slow):
        found = attribution_latency(slow, "edges", IMAGES)  # no time at all
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert (content["metric"], content["value"], content["higher_is_better"]) == ("forward_ratio", 0, False)
        assert (content["forward_passes"], content["gradient_passes"], content["images_per_second"]) == (0, 0, None)
        assert content["forward_milliseconds"] == 250
        assert content["provenance"]["threads"] == torch.get_num_threads()
        assert content["provenance"]["method"] == "edges"

    def test_any_bound_can_be_put_on_it(self, slow):
        found = attribution_latency(slow, "saliency", IMAGES)
        with pytest.raises(
            AssertionError, match=r"^forward_ratio of slow-net / saliency is 1\.000 forward passes, above"
        ):
            xa.assert_score(found, max=0.5)
        assert xa.assert_score(found.of_passes(), max=1).value == 1

    def test_an_evaluation_remembers(self, clock):
        model = Slow(Squares(draw(3, 8, 8)), clock)
        ev = xa.Evaluation(model, IMAGES, **STATISTICS)
        first, calls = attribution_latency(ev, "saliency", batch_size=2), model.calls
        assert attribution_latency(ev, xa.method("saliency")) is first
        assert model.calls == calls
        assert attribution_latency(ev, "saliency", batch_size=3) is not first
        assert attribution_latency(ev, "edges").value == 0
        assert ev.passes == Passes()  # those of its cells, which nothing here was one of

    def test_gates_know_both_metrics(self, slow):
        ev, noise = xa.Evaluation(slow, IMAGES), xa.perturbation("gaussian_noise")
        values = {}
        for name in ("passes_per_image", "forward_ratio"):
            metric = xai_assert.registry.metrics.get(name)
            values[name] = metric.measure(ev, xa.method("integrated_gradients(steps=3)"), noise, 0.05).value
            assert metric.about == "run"
        assert values == {"passes_per_image": 3, "forward_ratio": 3}


class TestAssertion:
    def text(self, subject, method="integrated_gradients(steps=7)", **bounds):
        with pytest.raises(AssertionError) as caught:
            assert_attribution_latency(subject, method, IMAGES, **bounds)
        assert type(caught.value) is AssertionError
        assert caught.value.score.metric == "forward_ratio"
        return str(caught.value).splitlines()

    def test_a_bound_that_is_just_met(self, slow):
        found = assert_attribution_latency(slow, "saliency", IMAGES, max_passes=1, max_forward_ratio=1)
        assert (found.passes_per_image, found.value) == (1, 1)

    def test_too_many_passes(self, slow):
        lines = self.text(slow, max_passes=4)
        assert lines == [
            "integrated_gradients(steps=7) on slow-net costs 7 passes an image, above max_passes=4 (by 3)",
            "  passes an image: 0 forward, 7 gradient; the method says that it makes 0 and 7",
            "  time an image, for information: 1750.0 ms, a forward pass 250.0 ms; minimum of rounds: 3, "
            f"images at a time: 4, threads: {torch.get_num_threads()}",
            f"  seed 0; weights as given ({slow.fingerprint()}); torch {torch.__version__} on cpu",
            "  reproduce: xa.attribution_latency(subject, 'integrated_gradients(steps=7)', images, batch_size=4)",
        ]

    def test_too_much_time(self, slow):
        first = "integrated_gradients(steps=7) on slow-net costs "
        ratio = "7.0 forward passes' time an image, above max_forward_ratio=6.5 (by 0.5)"
        assert self.text(slow, max_forward_ratio=6.5)[0] == first + ratio
        both = self.text(slow, max_passes=6, max_forward_ratio=6.5)[0]
        assert both == f"{first}7 passes an image, above max_passes=6 (by 1); and {ratio}"

    def test_a_pass_more_than_declared_is_told(self, slow):
        with xa.registry.isolated():
            xa.register_method("sly", passes=lambda: (0, 1))(with_a_hidden_forward)
            lines = self.text(slow, "sly", max_passes=1)
        assert lines[0] == "sly on slow-net costs 2 passes an image, above max_passes=1 (by 1)"
        assert lines[1] == "  passes an image: 1 forward, 1 gradient; the method says that it makes 0 and 1"
        assert self.text(slow, with_a_hidden_forward, max_passes=1)[1] == "  passes an image: 1 forward, 1 gradient"

    def test_a_running_test_is_told(self, slow):
        test = types.SimpleNamespace(records=[], reproduce="pytest that", pictures="none")
        token = xai_assert._running_test.set(test)
        try:
            assert self.text(slow, max_passes=1, max_forward_ratio=100)[-1] == "  reproduce: pytest that"
        finally:
            xai_assert._running_test.reset(token)
        (record,) = test.records
        assert (record["model"], record["method"], record["verdict"]) == (
            "slow-net",
            str(xa.method("integrated_gradients", steps=7)),
            "fail",
        )
        assert {gate["bound"]: gate["outcome"] for gate in record["gates"]} == {
            "max_passes=1": "fail",
            "max_forward_ratio=100": "pass",
        }
        assert {name: score["value"] for name, score in record["scores"].items()} == {
            "passes_per_image": 7,
            "forward_ratio": 7,
        }

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({}, TypeError, r"^an assertion needs a bound: give max_passes= or max_forward_ratio=$"),
            ({"max_passes": float("inf")}, ValueError, r"max_passes must be a finite number, not inf"),
            ({"max_forward_ratio": True}, ValueError, r"max_forward_ratio must be a finite number, not True"),
            ({"max_passes": 1, "rounds": 0}, ValueError, r"rounds must be None or a whole number of at least 1, not 0"),
            ({"max_passes": 1, "batch_size": 0}, ValueError, r"batch_size must be a whole number of at least 1, not 0"),
            ({"max_passes": 1, "batch_size": "auto"}, ValueError, r"batch_size must be a whole number .* not 'auto'"),
        ],
    )
    def test_a_mistake_is_told(self, slow, options, error, words):
        with pytest.raises(error, match=words):
            assert_attribution_latency(slow, "saliency", IMAGES, **options)
        assert slow.module.calls == 0

    def test_an_evaluation_has_its_own_seed(self, slow):
        with pytest.raises(TypeError, match="seed: already fixed by the Evaluation"):
            attribution_latency(xa.Evaluation(slow, IMAGES), "saliency", seed=1)


class TestPrediction:
    NAMES = ("black", "gaussian_noise", "fgsm")

    def cells(self):
        noise = xa.perturbation("gaussian_noise")
        return [*(FidelityCell(xa.perturbation(name)) for name in self.NAMES), FaithfulnessCell(noise, 5)]

    @pytest.mark.parametrize("method", ["saliency", "integrated_gradients(steps=3)", "random"])
    def test_is_what_an_evaluation_then_spends(self, method):
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), IMAGES, **STATISTICS)
        ev.plan(method, self.cells())
        for name in self.NAMES:
            ev.attribution_fidelity(method, perturbation=name)
        spent, _ = predict_cost([(xa.method(method), self.cells() * 2)], len(IMAGES), Speed(1, 1))
        assert spent == ev.passes_of(method) == ev.expected_passes(method)

    def test_seconds_on_paper(self):
        plan = [(xa.method(name), self.cells()) for name in ("saliency", "edges")]
        # an image: 3 cells of 2 + 5 groups = 11 forwards, for edges a clean one too; fgsm, and for saliency the map
        assert predict_cost(plan, 10, Speed(0.5, 3.0)) == (Passes(230, 30), 230 * 0.5 + 30 * 3.0)

    def test_a_method_that_does_not_declare_counts_what_was_measured(self):
        method = xa.method(with_a_hidden_forward)
        plan = [(method, [FidelityCell(xa.perturbation("black"))])]
        assert predict_cost(plan, 2, Speed(1, 1))[0] == Passes(2 * 3, 0)
        assert predict_cost(plan, 2, Speed(1, 1), {method.key: Passes(1, 1)})[0] == Passes(2 * 4, 2)

    def test_speed_is_read_off_the_model(self, clock):
        jumps = lambda call: 8.0 if call in (0, 1, 4) else 1.0  # noqa: E731  (cold, cold, disturbed)
        subject = xa.describe(Slow(Squares(draw(3, 8, 8)), clock, jumps, back=2.0), name="slow", **STATISTICS)
        target = subject.card.task.target(None)
        assert measure_speed(subject, IMAGES[:4], target) == Speed(1 / 4, 3 / 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGpu:
    def test_memory_is_reported_and_time_is_not_that_of_the_launch(self):
        network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Tanh(), nn.Conv2d(64, 1, 3, padding=1)).cuda()
        images = torch.randn(4, 3, 256, 256, device="cuda")
        found = attribution_latency(network, "saliency", images, **STATISTICS)
        # a gradient pass keeps the 64 channels of both inner layers, (4, 64, 256, 256) float32 each
        assert found.peak_memory >= 2 * 4 * 64 * 256 * 256 * 4
        assert found.value > 1  # a gradient pass is a forward pass and more
        assert found.passes == (0, 1)
