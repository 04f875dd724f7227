"""Parameter randomisation: what is redrawn and how, on a copy; and what a map that ignores the model scores."""

import pytest
import torch
from known_models import Attentive, Counting, Pixelwise, curved, draw
from torch import nn

import xai_assert as xa
from xai_assert import registry
from xai_assert.batching import Passes
from xai_assert.metrics.randomization import Redrawn, layers_of, redraw, spread
from xai_assert.metrics.ranks import spearman

IMAGES = draw(5, 3, 8, 8, seed=1)
MODES = ["cascading", "independent"]


class Everything(nn.Module):
    """Layers of all kinds: convolutions alike, a norm with running means, raw parameters, a gate that starts at 0."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(3, 1, 1))
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.load_state_dict(self.first.state_dict())
        self.norm = nn.BatchNorm2d(3)
        self.gate = nn.ParameterList([nn.Parameter(torch.tensor(0.0))])
        self.head = nn.Conv2d(3, 1, 1)
        self.nothing = nn.Parameter(torch.zeros(0, 4))
        self.count = nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)

    def forward(self, images):
        x = self.norm(self.second(self.first(images + self.token).tanh()).tanh())
        return self.head(x + self.gate[0] * x)


class Reading:
    """Saliency that notes which parameters of the model it was given are not those of `original`."""

    def __init__(self, original):
        self.original, self.changed = dict(original.named_parameters()), []

    def __call__(self, model, images, target):
        own = model.module.named_parameters()
        self.changed.append({name for name, p in own if not torch.equal(p, self.original[name])})
        x = images.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(target(model(x)).sum(), x)
        return gradient


def evaluation(model, **options):
    return xa.Evaluation(model, IMAGES, task="depth", **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["edges", "random"])
def test_a_map_that_ignores_the_model_scores_exactly_zero(method, mode):
    assert xa.randomization_sensitivity(evaluation(Everything()), method, mode=mode).values.tolist() == [0.0] * 5


def test_the_gradient_of_one_layer_on_paper():
    weights = draw(3, 8, 8)
    score = xa.randomization_sensitivity(evaluation(Pixelwise(weights), seed=4), "saliency")
    before, after = (w.abs().amax(0).reshape(1, -1) for w in (weights, redraw(weights, "weights", 4)))
    assert score.values.tolist() == pytest.approx([1 - spearman(before, after).abs().item()] * 5, abs=1e-12)
    assert score.value > 0.5


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_changes_with_the_model(mode):
    assert xa.randomization_sensitivity(evaluation(curved()), "saliency", mode=mode).value > 0.3


def test_every_parameter_is_redrawn_each_with_its_own_numbers():
    model = Everything()
    redrawn = Redrawn(model, seed=0)
    redrawn.show(model, redrawn.layers)
    old, new = dict(model.named_parameters()), dict(redrawn.module.named_parameters())
    for name in set(old) - {"nothing", "count"}:
        assert (old[name] != new[name]).all(), name
    assert not torch.equal(new["first.weight"], new["second.weight"])
    assert torch.equal(old["count"], new["count"])  # no weight
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, redrawn.module.get_buffer(name))


def test_no_layer_is_redrawn_that_is_not_asked_for():
    model = Everything()
    redrawn = Redrawn(model, seed=0)
    redrawn.show(model, redrawn.layers)
    redrawn.show(model, redrawn.layers[1:2])
    new = dict(redrawn.module.named_parameters())
    assert {name for name, p in model.named_parameters() if not torch.equal(p, new[name])} == {"gate.0"}


def test_a_parameter_keeps_its_magnitude():
    for old, size in ((3 + draw(100, 50), 10**0.5), (torch.ones(5000), 1), (torch.zeros(100, 50), 50**-0.5)):
        new = redraw(old, "name", seed=0)
        # of 5000 numbers: the mean is within 4 standard errors, the deviation within 4 of its own
        assert abs(float(new.mean())) < 4 * size / 5000**0.5
        assert abs(float(new.std()) / size - 1) < 4 / 10000**0.5
    assert redraw(torch.ones(3, dtype=torch.float16), "name", 0).dtype == torch.float16


def test_draws_are_keyed_by_seed_and_name():
    ones = torch.ones(20)
    assert torch.equal(redraw(ones, "a", 0), redraw(ones, "a", 0))
    assert not torch.equal(redraw(ones, "a", 0), redraw(ones, "b", 0))
    assert not torch.equal(redraw(ones, "a", 0), redraw(ones, "a", 1))


def test_cascading_adds_up_from_the_output_and_independent_does_not():
    found = {}
    for mode in MODES:
        model = Everything()
        reading = Reading(model)
        xa.randomization_sensitivity(evaluation(model, batch_size=5), reading, mode=mode, layers=6)
        assert reading.changed.pop(0) == set()
        found[mode] = reading.changed
    layers = [
        {"head.weight", "head.bias"},
        {"gate.0"},
        {"norm.weight", "norm.bias"},
        {"second.weight", "second.bias"},
        {"first.weight", "first.bias"},
        {"token"},
    ]
    assert found["independent"] == layers
    assert found["cascading"] == [set.union(*layers[: i + 1]) for i in range(6)]


def test_few_layers_are_spread_evenly_and_more_than_there_are_are_all():
    model = Everything()
    reading = Reading(model)
    ev = evaluation(model, batch_size=5)
    score = xa.randomization_sensitivity(ev, reading, mode="independent", layers=2)
    assert reading.changed[1:] == [{"head.weight", "head.bias"}, {"token"}]
    assert score.details["correlations"].shape == (5, 2)
    assert xa.randomization_sensitivity(ev, reading, layers=99).details["correlations"].shape == (5, 6)
    assert [spread(9, 5), spread(9, 4), spread(3, 3), spread(7, 1)] == [
        [0, 2, 4, 6, 8],
        [0, 3, 5, 8],
        [0, 1, 2],
        [6],
    ]


def test_a_shared_parameter_is_one():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Conv2d(3, 3, 1))
    model[2].weight = model[0].weight
    assert layers_of(model) == [["0.weight", "0.bias"], ["2.bias"]]
    redrawn = Redrawn(model, 0)
    redrawn.show(model, redrawn.layers)
    assert redrawn.module[2].weight is redrawn.module[0].weight


def test_the_callers_model_is_not_touched():
    model = Everything().train()
    before = {name: (id(t), t._version, t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    xa.randomization_sensitivity(evaluation(model), "saliency")
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert (id(tensor), tensor._version) == before[name][:2]
        assert torch.equal(tensor, before[name][2])
    assert model.training


def test_one_copy_serves_all_batches():
    copies = []

    class Copied(Everything):
        def __deepcopy__(self, memo):
            copies.append(1)
            other = Everything()
            other.load_state_dict(self.state_dict())
            return other

    xa.randomization_sensitivity(evaluation(Copied(), batch_size=2), "edges")
    assert len(copies) == 1


def test_a_map_that_dies_with_the_model_counts_as_changed_and_is_counted():
    model = curved()
    first = model[0].weight.clone()

    def dying(subject, images, target):
        alive = torch.equal(subject.module[0].weight, first)
        return images.mean(1).abs() * alive

    score = xa.randomization_sensitivity(evaluation(model), dying)
    assert score.values.tolist() == [0.5] * 5  # of the two layers the first one from the output is not the one it reads
    assert score.details["constant"].tolist() == [0.5] * 5


def test_the_assertion_passes_the_gradient_and_rejects_what_was_planted():
    ev = evaluation(curved())
    kept = curved()

    def stale(model, images, target):  # explains a model that it kept, not the one it is given
        x = images.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(kept(x).sum(), x)
        return gradient

    assert xa.assert_randomization_sensitivity(ev, "saliency", min_sensitivity=0.3).higher_is_better
    for wrong in (stale, "edges", "random"):
        with pytest.raises(AssertionError, match=r"below min_sensitivity=0\.300"):
            xa.assert_randomization_sensitivity(ev, wrong, min_sensitivity=0.3)


def test_it_explains_a_rollout_of_the_copy():
    images = draw(2, 3, 16, 16, seed=1)
    score = xa.randomization_sensitivity(Attentive(), "attention_rollout", images, task="depth")
    assert score.value > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_it_costs_an_explanation_a_layer(mode):
    ev = evaluation(Counting(Everything()), batch_size=2)  # passes of the copy are counted too
    method = xa.method("integrated_gradients", steps=2, baseline=torch.zeros(3, 1, 1))
    xa.randomization_sensitivity(ev, method, mode=mode, layers=3)
    assert ev.passes_of(method) == ev.expected_passes(method) == Passes(5, 5 * 2 * (1 + 3))
    assert ev.subject.module.backwards == 5 * 2
    few = evaluation(curved())
    xa.randomization_sensitivity(few, "saliency", mode=mode)  # five layers by default, but there are two
    assert few.passes_of("saliency") == few.expected_passes("saliency") == Passes(0, 5 * (1 + 2))


@pytest.mark.parametrize("mode", MODES)
def test_batches_and_order_change_nothing(mode):
    def values(images, **options):
        return xa.randomization_sensitivity(curved(), "saliency", images, task="depth", mode=mode, **options).values

    whole = values(IMAGES, batch_size=5)
    # where two pixels are within a convolution's rounding of each other their ranks may change places
    assert values(IMAGES, batch_size=2).tolist() == pytest.approx(whole.tolist(), abs=1e-3)
    assert values(IMAGES.flip(0)).flip(0).tolist() == pytest.approx(whole.tolist(), abs=1e-3)


def test_a_model_without_parameters_or_that_cannot_be_copied_is_refused():
    class NoCopy(Pixelwise):
        def __deepcopy__(self, memo):
            raise RuntimeError("holds a file")

    class Plain(nn.Module):
        def forward(self, images):
            return images.square().mean(1, keepdim=True)

    with pytest.raises(xa.NotApplicableError, match="Plain has no parameters that could be redrawn"):
        xa.randomization_sensitivity(evaluation(Plain()), "saliency")
    with pytest.raises(xa.NotApplicableError, match=r"NoCopy cannot be copied.*: holds a file"):
        xa.randomization_sensitivity(evaluation(NoCopy(draw(3, 8, 8))), "saliency")


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="mode must be one of 'cascading', 'independent', not 'both'"):
        xa.randomization_sensitivity(evaluation(curved()), "saliency", mode="both")
    with pytest.raises(ValueError, match="layers must be a whole number of at least 1, not 0"):
        xa.randomization_sensitivity(evaluation(curved()), "saliency", layers=0)


def test_a_gate_finds_it_by_name():
    ev, named = evaluation(Everything()), registry.metrics.get("randomization_sensitivity")
    noise = xa.perturbation("gaussian_noise")
    ev.plan("saliency", named.cells(noise, 0.05))
    score = xa.randomization_sensitivity(ev, "saliency")
    assert torch.equal(named.measure(ev, "saliency", noise, 0.05).values, score.values)
    assert (score.metric, ev.passes_of("saliency")) == (named.facts.name, Passes(0, 5 * 6))
