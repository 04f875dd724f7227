"""Infidelity: linear models whose answer is known, captum's numbers, and where the patches lie."""

import pytest
import torch
from known_models import Capturing, Counting, Pixelwise, Squares, curved, draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.batching import Passes
from xai_assert.metrics.infidelity import random_patches, unexplained

WEIGHTS = draw(3, 8, 8)
IMAGES = draw(6, 3, 8, 8, seed=1)
OPTIONS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ROUNDING = 1e-5  # the target is a mean in float32, of which two are subtracted


def slope(scale):
    """`scale` times the true gradient of a Pixelwise model's mean."""

    def method(model, images, target):
        return (scale * WEIGHTS / 64).expand_as(images)

    return method


def evaluation(model=None, **options):
    return xa.Evaluation(model or Pixelwise(WEIGHTS), IMAGES, **OPTIONS | options)


@pytest.mark.parametrize("perturbation", ["gaussian_noise", "black", "mean", "fgsm"])
def test_the_gradient_of_a_linear_model_explains_everything(perturbation):
    ev = evaluation()
    assert xa.infidelity(ev, "saliency", perturbation=perturbation).values.max() < ROUNDING
    assert xa.infidelity(ev, "saliency", perturbation=perturbation, normalize=False).values.max() < ROUNDING**2


def test_only_the_papers_definition_knows_the_scale():
    ev = evaluation()
    tripled = slope(3)
    assert xa.infidelity(ev, tripled).values.max() < ROUNDING
    raw = [xa.infidelity(ev, slope(scale), normalize=False).values for scale in (3, -1)]
    # (3 d - d)^2 and (-d - d)^2 of the same changes d: both are 4 d^2
    assert raw[0].tolist() == pytest.approx(raw[1].tolist(), rel=1e-4)


def test_the_contrary_explains_nothing():
    assert xa.infidelity(evaluation(), slope(-1)).values.tolist() == [1.0] * 6


@pytest.mark.parametrize(("name", "normalize"), [("infidelity", True), ("infidelity_raw", False)])
def test_a_gate_finds_it_by_name(name, normalize):
    ev, noise = evaluation(), xa.perturbation("gaussian_noise")
    named = registry.metrics.get(name)
    ev.plan("edges", named.cells(noise, 0.05))
    score = xa.infidelity(ev, "edges", normalize=normalize)
    assert torch.equal(named.measure(ev, "edges", noise, 0.05).values, score.values)
    assert (score.metric, ev.passes_of("edges").forward) == (named.facts.name, 6 * 17)


def test_the_share_on_paper():
    expected, change = torch.tensor([[6.0, 10.0]]).double(), torch.tensor([[3.0, 10.0]]).double()
    # s = 118 / 136 leaves 109 - 118^2 / 136 of 109
    assert unexplained(expected, change).item() == pytest.approx(1 - 118**2 / 136 / 109)
    assert unexplained(1e-200 * expected, 1e200 * change).item() == pytest.approx(1 - 118**2 / 136 / 109)


def test_where_nothing_is_said_or_nothing_changed_nothing_is_explained():
    some, none = torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 2).double()
    assert [unexplained(*pair).item() for pair in ((none, some), (some, none), (none, none))] == [1, 1, 1]


def test_changes_that_are_rounding_are_counted_and_not_explained():
    class Hardly(Pixelwise):
        def forward(self, images):
            return 1 + 1e-9 * super().forward(images)

    score = xa.infidelity(evaluation(Hardly(WEIGHTS)), slope(1))
    assert score.values.tolist() == [1.0] * 6
    assert not score.details["responsive"].any()


def test_a_map_without_channels_stands_for_all_of_them():
    grey = Pixelwise(WEIGHTS[:1].expand(3, -1, -1))
    flat = xa.method(lambda model, images, target: WEIGHTS[0].expand(len(images), -1, -1) / 64, signed="abs")
    for normalize in (True, False):
        assert xa.infidelity(evaluation(grey), flat, normalize=normalize).values.max() < ROUNDING


def test_it_is_captums_given_the_same_perturbations():
    metrics = pytest.importorskip("captum.metrics")
    model = Capturing(curved())
    ev = evaluation(model, batch_size=6)
    raw = xa.infidelity(ev, "saliency", samples=7, normalize=False)
    shown = torch.stack(model.seen[-7:], 1).flatten(0, 1)  # of each image, its seven
    attribution = xa.attribute(model.inner, IMAGES, "saliency", task="depth")

    def perturb(repeated):
        return repeated - shown, shown

    def theirs(**options):
        return metrics.infidelity(
            lambda x: model.inner(x).flatten(1).mean(1), perturb, IMAGES, attribution, n_perturb_samples=7, **options
        )

    # float32 there, float64 here: a square of differences of nearly equal sums
    assert raw.values.tolist() == pytest.approx(theirs().tolist(), rel=1e-3)
    clean = model.inner(IMAGES).flatten(1).mean(1)
    change = clean[:, None] - model.inner(shown).flatten(1).mean(1).reshape(6, 7)
    share = theirs(normalize=True) / change.square().mean(1)
    assert xa.infidelity(ev, "saliency", samples=7).values.tolist() == pytest.approx(share.tolist(), rel=1e-3)


def test_the_slope_does_better_than_what_is_multiplied_by_the_input():
    ev = evaluation(Squares(WEIGHTS))

    def multiplied(model, images, target):
        return images.square() * WEIGHTS.square()

    assert xa.infidelity(ev, "saliency").value < xa.infidelity(ev, multiplied).value - 0.2


def test_the_assertion_passes_the_truth_and_rejects_what_was_planted():
    ev = evaluation()
    assert xa.assert_infidelity(ev, "saliency", max_infidelity=0.01).metric == "infidelity"
    for wrong in (slope(-1), "random", "edges"):
        with pytest.raises(AssertionError, match=r"above max_infidelity=0\.500"):
            xa.assert_infidelity(ev, wrong, max_infidelity=0.5)


def test_the_slope_beats_the_controls_and_the_contrary_does_not():
    ev = evaluation()
    for control in ("random", "edges"):
        xa.assert_infidelity(ev, "saliency", beats=control)
        with pytest.raises(AssertionError, match=f"does not beat {control}"):
            xa.assert_infidelity(ev, slope(-1), beats=control)


def test_it_costs_a_pass_a_patch_and_the_clean_one_is_not_repeated():
    model = Counting(Pixelwise(WEIGHTS))
    ev = evaluation(model, batch_size=4)
    for normalize in (True, False):  # both are of the same passes
        xa.infidelity(ev, "saliency", samples=5, normalize=normalize)
    assert ev.passes_of("saliency") == ev.expected_passes("saliency") == Passes(6 * 5, 6)
    assert (model.forwards, model.backwards) == (6 * 6, 6)
    xa.infidelity(ev, "random", perturbation="fgsm", samples=2)
    assert ev.passes_of("random") == ev.expected_passes("random") == Passes(6 * (1 + 2), 6)


def test_batches_and_order_change_nothing():
    ids = [f"{i}.png" for i in range(6)]
    whole = xa.infidelity(evaluation(curved(), image_ids=ids, batch_size=6), "saliency")
    pairs = xa.infidelity(evaluation(curved(), image_ids=ids, batch_size=2), "saliency")
    turned = xa.infidelity(curved(), "saliency", IMAGES.flip(0), image_ids=ids[::-1], **OPTIONS)
    # a convolution's rounding, in a share of differences
    assert pairs.values.tolist() == pytest.approx(whole.values.tolist(), abs=1e-4)
    assert turned.values.flip(0).tolist() == pytest.approx(whole.values.tolist(), abs=1e-4)


def test_another_seed_draws_other_patches():
    first, second = (xa.infidelity(evaluation(curved(), seed=seed), "saliency").values for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("size", "side"), [(0.25, 2), (0.01, 1), (1, 6), (0.5, 3)])
def test_a_patch_is_a_square_inside_the_image(size, side):
    masks = random_patches(torch.zeros(50, 3, 6, 9), size, seed=0, image_ids=range(50), purpose="test")
    assert masks.shape == (50, 1, 6, 9)
    assert masks.any(3).sum(2).unique().tolist() == masks.any(2).sum(2).unique().tolist() == [side]
    assert masks.flatten(1).sum(1).unique().tolist() == [side**2]


def test_patches_reach_every_place():
    masks = random_patches(torch.zeros(400, 3, 4, 4), 0.25, seed=0, image_ids=range(400), purpose="test")
    counts = masks.sum(0).flatten()
    # 25 expected in each of 16 places, standard deviation 4.8
    assert counts.min() > 8
    assert counts.max() < 45


@pytest.mark.parametrize("size", [0, -0.1, 1.5, "big"])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="size must be a share"):
        xa.infidelity(evaluation(), "saliency", size=size)


@pytest.mark.parametrize("samples", [0, 2.5, True])
def test_an_impossible_number_of_samples_is_refused(samples):
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1"):
        xa.infidelity(evaluation(), "saliency", samples=samples)
