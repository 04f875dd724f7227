"""One tester that every metric of explanations passes, in the form in which gates ask for it.

A metric that is registered is tested: without a case worked out on paper (`ON_PAPER`) it fails.
"""

import json
import math

import pytest
import torch
from known_models import Counting, Pixelwise, ReturnsNaN, curved, draw
from untouched import untouched

import xai_assert as xa
from xai_assert import registry
from xai_assert.explain import reproduce
from xai_assert.metrics import FidelityScore

METRICS = [name for name in registry.metrics.names() if registry.metrics.get(name).about == "explanation"]
NOISE = xa.perturbation("gaussian_noise")
CARD = {"task": "depth", "mean": [0.5] * 3, "std": [0.25] * 3}
IMAGES = draw(5, 3, 8, 8, seed=1)
IDS = tuple("abcde")


def measure(name, model=None, images=IMAGES, method="saliency", **options):
    ev = xa.Evaluation(model or curved(), images, **{"image_ids": IDS[: len(images)], **CARD, **options})
    return registry.metrics.get(name).measure(ev, method, NOISE, 0.1)


# --- on paper ------------------------------------------------------------------------------------------------------
# Four pixels of one channel, each 1; black is 0. The depth of a pixel is its weight, so perturbing the pixels S moves
# the map by an RMSE of sqrt(sum over S of w^2 / 4). The target, the mean depth, is sum w x / 4.

PIXELS = torch.ones(2, 1, 2, 2)
ADDITIVE = {"task": "depth", "mean": [0.0], "std": [1.0]}
BLACK = {"perturbation": "black", **ADDITIVE}
TRUE = torch.tensor([[4.0, 3.0], [1.0, 0.0]])


def additive():
    return Pixelwise(torch.tensor([[[4.0, 3.0], [0.0, 0.0]]]))


def truth(model, images, target):
    return TRUE.expand(len(images), -1, -1)


def inverse(model, images, target):
    return TRUE.max() - truth(model, images, target)


SHARES = (0.5, 0.375, 0.125)  # of the relevance 4, 3, 1, 0
ON_PAPER = {
    "af": (lambda m: xa.attribution_fidelity(m, truth, PIXELS, fraction=0.25, **BLACK), 1),  # 2 and 0
    "asr": (lambda m: registry.metrics.get("asr").measure(xa.Evaluation(m, PIXELS, **ADDITIVE), truth, NOISE, 0.25), 1),
    # relevance 4, 3, 1, 0 and errors 2, 1.5, 0, 0: 5.5 / sqrt(10 * 3.1875)
    "fe": (lambda m: xa.faithfulness_estimate(m, truth, PIXELS, groups=4, **BLACK), 5.5 / math.sqrt(31.875)),
    # 4, 7, 8, 8 and 2, 2.5, 2.5, 2.5: 1.375 / sqrt(10.75 * 0.1875)
    "fe_cumulative": (
        lambda m: xa.faithfulness_estimate(m, truth, PIXELS, groups=4, mode="cumulative", **BLACK),
        1.375 / math.sqrt(10.75 * 0.1875),
    ),
    "deletion_auc": (lambda m: xa.deletion_auc(m, truth, PIXELS, steps=4, **BLACK), (2 + 2.5 + 2.5 + 1.25) / 4),
    "insertion_auc": (lambda m: xa.insertion_auc(m, truth, PIXELS, steps=4, **BLACK), (0 + 0 + 1.5 + 1.25) / 4),
    "srg": (lambda m: xa.srg(m, truth, PIXELS, steps=4, **BLACK), (2 + 2.5 + 2.5 - 1.5) / 4),
    "road": (lambda m: xa.road(m, truth, PIXELS, fractions=(0.25, 0.5), **BLACK), (2 + 2.5) / 2),
    "sufficiency": (lambda m: xa.sufficiency(m, truth, PIXELS, fraction=0.25, **BLACK), 0.25),  # 2.5 and 1.5
    "infidelity": (lambda m: xa.infidelity(m, "saliency", PIXELS, **BLACK), 0),  # a slope is all there is to a plane
    "infidelity_raw": (lambda m: xa.infidelity(m, "saliency", PIXELS, normalize=False, **BLACK), 0),
    "max_sensitivity": (lambda m: xa.max_sensitivity(m, "saliency", PIXELS, **ADDITIVE), 0),
    "completeness": (lambda m: xa.completeness(m, "integrated_gradients(steps=1)", PIXELS, **ADDITIVE), 0),
    "randomization_sensitivity": (lambda m: xa.randomization_sensitivity(m, truth, PIXELS, **ADDITIVE), 0),
    "input_shift": (lambda m: xa.input_shift(m, "saliency", PIXELS, **ADDITIVE), 0),
    "sparseness": (lambda m: xa.sparseness(m, truth, PIXELS, **ADDITIVE), (-1 * 1 + 1 * 3 + 3 * 4) / (4 * 8)),
    "complexity": (
        lambda m: xa.complexity(m, truth, PIXELS, **ADDITIVE),
        -sum(s * math.log(s) for s in SHARES) / math.log(4),
    ),
    "rank_agreement": (lambda m: xa.rank_agreement(m, truth, PIXELS, other=inverse, **ADDITIVE), -1),
}


@pytest.mark.parametrize("name", METRICS)
def test_the_case_on_paper(name):
    assert name in ON_PAPER, f"the metric {name} has no case worked out on paper"
    score, expected = ON_PAPER[name][0](additive()), ON_PAPER[name][1]
    assert score.values.tolist() == pytest.approx([expected] * 2, abs=1e-6)  # float32 through a handful of operations


# --- what it says of itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_the_score_is_what_the_facts_say(name):
    score, facts = measure(name), registry.metrics.get(name).facts
    assert facts in xa.list_metrics()
    assert (score.metric, score.higher_is_better, score.chance, score.range) == (
        name,
        facts.higher_is_better,
        facts.chance,
        facts.range,
    )
    low, high = facts.range
    assert (score.values >= low).all()
    assert (score.values <= high).all()
    assert facts.paper
    assert score.image_ids == IDS
    assert json.loads(json.dumps(score.to_dict(), allow_nan=False))["metric"] == name


@pytest.mark.parametrize("name", METRICS)
def test_the_line_of_a_failure_measures_it_again(name):
    subject = xa.describe(curved(), name="curved", **CARD)
    score = measure(name, subject, image_ids=None, task=None, mean=None, std=None, seed=3)
    again = eval(reproduce(score), {"xa": xa, "subject": subject, "images": IMAGES})
    assert torch.equal(again.successes if name == "asr" else again.values, score.values)


@pytest.mark.parametrize("name", METRICS)
def test_passes_are_those_declared(name):
    model = Counting(curved())
    ev = xa.Evaluation(model, IMAGES, batch_size=2, **CARD)
    registry.metrics.get(name).measure(ev, "saliency", NOISE, 0.1)
    expected = ev.expected_passes("saliency")
    assert ev.passes == expected
    if name != "randomization_sensitivity":  # whose explanations a copy of the model makes
        assert (model.forwards - model.backwards, model.backwards) == (expected.forward, expected.gradient)


@pytest.mark.parametrize("name", [n for n in METRICS if registry.metrics.get(n).facts.chance == 0])
def test_what_turns_round_with_the_map_is_at_chance_for_random_maps(name):
    relevance = draw(64, 8, 8, seed=5)

    def planted(sign):
        return xa.method(lambda model, images, target: sign * relevance[: len(images)], signed="as_is")

    there, back = (measure(name, method=planted(sign), batch_size=5) for sign in (1, -1))
    assert torch.equal(there.values, -back.values)
    images = draw(64, 3, 8, 8, seed=2)
    score = measure(name, images=images, method="random", image_ids=None)
    assert abs(score.mean) < 4 * score.standard_error  # of which chance takes more once in 16,000


# --- what must not matter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_neither_batch_nor_order_matters_and_twice_is_the_same(name):
    score = measure(name, batch_size=5)
    assert torch.equal(measure(name, batch_size=5).values, score.values)
    for order, size in (([0, 1, 2, 3, 4], 2), ([3, 1, 4, 0, 2], 3)):
        ids = tuple(IDS[i] for i in order)
        found = measure(name, images=IMAGES[order], image_ids=ids, batch_size=size)
        # What a convolution's choice of algorithm may move, an image; the scales of these scores are about 1.
        torch.testing.assert_close(found.values, score.values[order], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_double_precision_says_the_same(name):
    """The draws are the same in both, so what differs is float32's rounding, and near-ties of ranks under it."""
    double = measure(name, curved().double(), IMAGES.double())
    torch.testing.assert_close(measure(name).values, double.values, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_measured(name, dtype):
    score = measure(name, curved().to(dtype), IMAGES.to(dtype))
    low, high = score.range
    assert ((score.values >= low) & (score.values <= high)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", METRICS)
def test_a_gpu_says_the_same(name):
    found = measure(name, curved().cuda())
    torch.testing.assert_close(found.values, measure(name).values, rtol=1e-2, atol=1e-2)  # as for double precision


# --- what must not change, and what must be refused ----------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_nothing_of_the_caller_s_changes(name):
    model, images = curved().train(), IMAGES.clone()
    with untouched(model, images):
        measure(name, model, images)


@pytest.mark.parametrize("name", METRICS)
def test_images_that_are_not_finite_are_refused(name):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="images must be finite; NaN or infinity in: b"):
        measure(name, images=images)


@pytest.mark.parametrize("name", METRICS)
def test_a_model_that_returns_nan_is_refused(name):
    with pytest.raises(xa.ModelOutputError, match="ReturnsNaN returned NaN or infinity for images a, b"):
        measure(name, ReturnsNaN(), method="random")


@pytest.mark.parametrize("name", METRICS)
def test_a_map_that_ranks_nothing_is_refused(name):
    def constant(model, images, target):
        return torch.ones_like(images[:, 0])

    with pytest.raises(
        xa.DegenerateHeatmapError, match=r"the heatmap of constant is constant for (4 of 4|5 of 5) images"
    ):
        measure(name, method=constant)


def test_the_facts_of_the_two_scores_of_the_paper_agree_with_their_classes():
    assert isinstance(measure("af"), FidelityScore)
    assert [metric.name for metric in xa.list_metrics()] == registry.metrics.names()


def test_a_metric_of_the_user_s_without_facts_is_listed():
    with registry.isolated():
        xa.register_metric("mine")(lambda evaluation, method, perturbation, fraction: None)
        (mine,) = [metric for metric in xa.list_metrics() if metric.name == "mine"]
    assert str(mine) == "mine: higher is better, -inf to inf"
