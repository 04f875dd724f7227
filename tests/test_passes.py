"""Passes are counted, not timed: an evaluation costs what its cells need and nothing twice."""

import itertools
import weakref

import pytest
import torch
from known_models import (
    Attentive,
    CountingAttentive,
    ReturnsNaN,
    Squares,
    curved,
    draw,
)

import xai_assert as xa
from xai_assert.attributions import Method
from xai_assert.batching import Passes
from xai_assert.metrics import FaithfulnessCell, FidelityCell
from xai_assert.tasks import Task

PERTURBATIONS = ["black", "mean", "gaussian_noise", "fgsm"]
STATISTICS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IDS = [f"{i:02}.png" for i in range(10)]


class TestPasses:
    """Counted by the model itself, and by the evaluation, which must agree."""

    N = 6

    def evaluation(self, inner=None, **options):
        model = CountingAttentive(inner or Squares(draw(3, 8, 8)))
        options = {"batch_size": 4} | STATISTICS | options
        return model, xa.Evaluation(model, draw(self.N, 3, 8, 8, seed=1), **options)

    def check(self, model, ev, methods, forward, gradient):
        """Each image went forward and back this often in all; the evaluation says the same, method by method."""
        assert model.backwards == gradient * self.N
        assert model.forwards == (forward + gradient) * self.N
        assert ev.passes == Passes(forward * self.N, gradient * self.N)
        spent = [ev.passes_of(method) for method in methods]
        assert spent == [ev.expected_passes(method) for method in methods]
        assert Passes(sum(p.forward for p in spent), sum(p.gradient for p in spent)) == ev.passes

    def test_four_perturbations(self):
        model, ev = self.evaluation()
        ev.plan("saliency", [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        for name in PERTURBATIONS:
            ev.attribution_fidelity("saliency", perturbation=name)
        self.check(model, ev, ["saliency"], 2 * 4, 1 + 1)  # R and I; the map (which gives the clean prediction), fgsm

    @pytest.mark.parametrize(
        ("method", "forward", "gradient"),
        [
            ("saliency", -1, 1),  # its pass is the clean one too
            (xa.method("integrated_gradients", steps=5), 0, 5),
            ("attention_rollout", 1, 0),
            ("random", 0, 0),
            ("edges", 0, 0),
        ],
        ids=str,
    )
    def test_of_each_method(self, method, forward, gradient):
        model, ev = self.evaluation(Attentive())
        ev.attribution_fidelity(method, fraction=0.5)  # of the four patches of a rollout, two
        assert model.forwards == (1 + forward + gradient + 2) * self.N
        self.check(model, ev, [method], 1 + forward + 2, gradient)

    def test_faithfulness_adds_its_groups_once(self):
        model, ev = self.evaluation()
        noise = xa.perturbation("gaussian_noise")
        ev.plan("saliency", [FidelityCell(noise), FaithfulnessCell(noise, 5)])
        for _ in range(2):
            ev.attribution_fidelity("saliency")
            ev.faithfulness_estimate("saliency", groups=5)
        self.check(model, ev, ["saliency"], 2 + 5, 1)

    def test_an_attack_is_made_once_for_all_its_cells(self):
        model, ev = self.evaluation()
        fgsm = xa.perturbation("fgsm")
        ev.plan("random", [FidelityCell(fgsm), FidelityCell(fgsm, 0.2), FaithfulnessCell(fgsm, 4)])
        ev.attribution_fidelity("random", perturbation="fgsm")
        self.check(model, ev, ["random"], 1 + 2 + 2 + 4, 1)

    def test_several_methods_each_pay_for_themselves(self):
        model, ev = self.evaluation()
        for method in ("saliency", "random", "edges"):
            ev.attribution_fidelity(method)
        self.check(model, ev, ["saliency", "random", "edges"], 2 + 3 + 3, 1)

    def test_asking_again_is_free(self):
        truth = draw(self.N, 8, 8, seed=2)
        model, ev = self.evaluation(ground_truth=truth)
        first = ev.attribution_fidelity("saliency")
        spent = model.forwards
        again = ev.attribution_fidelity(xa.method("saliency"), perturbation=xa.perturbation("gaussian_noise"))
        assert torch.equal(again.values, first.values)
        for reference, aggregate in itertools.product(("prediction", "ground_truth"), ("image", "set")):
            ev.attribution_fidelity("saliency", reference=reference, aggregate=aggregate)
        ev.attribution_fidelity("saliency", reference="ground_truth", asr="degrades")
        ev.attribution_fidelity("saliency()", fraction=5e-2, perturbation="gaussian_noise")
        assert model.forwards == spent

    def test_equal_specifications_share_their_results(self):
        model, ev = self.evaluation()
        written = [
            xa.method("integrated_gradients", steps=3, baseline="mean"),
            xa.method("integrated_gradients", baseline="mean", steps=3),
            "integrated_gradients(steps=3, baseline=mean)",
            xa.method(xa.method("integrated_gradients", steps=3), baseline="mean"),
        ]
        results = [ev.attribution_fidelity(method).values for method in written]
        assert all(torch.equal(values, results[0]) for values in results)
        self.check(model, ev, written[:1], 3, 3)

    def test_methods_that_differ_do_not(self):
        model, ev = self.evaluation(curved())
        methods = [
            xa.method("integrated_gradients", steps=2),
            xa.method("integrated_gradients", steps=3),
            xa.method("integrated_gradients", steps=2, baseline="white"),
        ]
        results = [ev.attribution_fidelity(method).values for method in methods]
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(results, 2))
        self.check(model, ev, methods, 9, 7)

    def test_a_tensor_among_the_parameters_is_told_from_the_next(self):
        def values(ev, level):
            baseline = torch.full((1, 3, 1, 1), float(level))
            made.append(weakref.ref(baseline))
            return ev.attribution_fidelity(xa.method("integrated_gradients", steps=1, baseline=baseline)).values

        made = []
        shared = self.evaluation()[1]
        found = [values(shared, level) for level in range(6)]
        # had one been freed, the next could lie at its address, and be taken for it
        assert all(reference() is not None for reference in made)
        for level in range(6):
            assert torch.equal(found[level], values(self.evaluation()[1], level))

    def test_a_method_of_the_users_has_no_expected_passes(self):
        _, ev = self.evaluation()
        method = xa.method(lambda model, images, target: images)
        ev.attribution_fidelity(method)
        assert ev.expected_passes(method) is None
        assert ev.passes_of(method) == Passes(3 * self.N, 0)

    def test_nothing_is_spent_before_it_is_asked_for(self):
        model, ev = self.evaluation()
        ev.plan("saliency", [FidelityCell(xa.perturbation("black"))])
        assert (model.forwards, ev.passes_of("saliency")) == (0, Passes())

    def test_a_rule_that_does_not_exist_costs_no_pass(self):
        model, ev = self.evaluation()
        for options in ({"reference": "truth"}, {"aggregate": "all"}, {"asr": "degrades"}):
            with pytest.raises(ValueError, match=r"must be one of|needs reference="):
                ev.attribution_fidelity("saliency", **options)
        assert model.forwards == 0

    def test_an_impossible_fraction_costs_one_batch(self):
        model, ev = self.evaluation(batch_size=2)
        with pytest.raises(ValueError, match="fraction"):
            ev.attribution_fidelity("saliency", fraction=0.6)
        assert model.forwards == 2  # the size of the images is known then: a gradient


class UpperHalf(Task):
    """A target that must see the clean output: the sum where that is above its mean. The error is that of depth."""

    name = "upper half"

    def read(self, output):
        return output

    def target(self, clean):
        frozen = clean > clean.mean((1, 2, 3), keepdim=True)
        return lambda output: (output * frozen).flatten(1).sum(1)

    def error(self, prediction, reference):
        return (prediction.flatten(1) - reference.flatten(1)).square().flatten(1).mean(1).sqrt()

    truth_error = loss = error

    def magnitude(self, prediction):
        return prediction.abs().flatten(1).amax(1)

    def spread(self, prediction):
        return prediction.flatten(1).std(1, correction=0)


class TestThePredictionOfAMap:
    """A method that gives the model's output spares the clean pass, and nothing else changes."""

    IMAGES = draw(5, 3, 8, 8, seed=1)

    @pytest.mark.parametrize("task", ["depth", UpperHalf()], ids=["depth", "upper half"])
    @pytest.mark.parametrize("reference", ["prediction", "ground_truth"])
    def test_scores_are_those_of_a_pass_of_its_own(self, task, reference):
        """Without it the target is chosen from a pass without gradient, by which nothing may differ but rounding."""
        saliency = xa.method("saliency")
        plain = Method("plain", lambda *given: saliency.function(*given).attribution, reduction="max_abs")
        options = {"task": task, "ground_truth": draw(5, 8, 8, seed=2)} | {"batch_size": 2}
        scores = [xa.Evaluation(curved(), self.IMAGES, **options) for _ in range(2)]
        found = [
            ev.attribution_fidelity(what, reference=reference)
            for ev, what in zip(scores, (saliency, plain), strict=True)
        ]
        assert torch.allclose(found[0].values, found[1].values, atol=1e-6)  # one rounding of a convolution
        assert torch.allclose(found[0].relevant_error, found[1].relevant_error, rtol=1e-5)
        assert scores[1].passes.forward - scores[0].passes.forward == 5

    def test_a_method_that_does_not_keep_its_word_is_refused(self):
        broken = Method("broken", lambda model, images, target: images, predicts=True)
        with pytest.raises(ValueError, match=r"method broken is registered with predicts=True, but gave no Explained"):
            xa.attribution_fidelity(curved(), broken, self.IMAGES, task="depth")

    def test_a_model_of_nan_is_named_before_its_map(self):
        with pytest.raises(xa.ModelOutputError, match="ReturnsNaN returned NaN or infinity for images 0, 1"):
            xa.attribution_fidelity(ReturnsNaN(), "saliency", self.IMAGES[:2], task="depth")
