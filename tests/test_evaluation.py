"""The streaming evaluation: the same scores however it is cut up, no pass too many, and an error where it belongs."""

import gc
import itertools
import traceback
import weakref

import numpy as np
import pytest
import torch
from known_models import (
    Attentive,
    Capturing,
    Counting,
    CountingAttentive,
    Failing,
    Pixelwise,
    SquareRoot,
    Squares,
    draw,
    seeded,
)
from torch import nn

import xai_assert as xa
from xai_assert.batching import Passes
from xai_assert.cells import FaithfulnessCell, FidelityCell
from xai_assert.models.meter import Meter

PERTURBATIONS = ["black", "mean", "gaussian_noise", "fgsm"]
STATISTICS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IDS = [f"{i:02}.png" for i in range(10)]


class Samples:
    """A lazy data set that gives what `make(index)` gives."""

    def __init__(self, count, make):
        self.count, self.make = count, make
        self.asked = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return self.make(index)


@pytest.fixture(scope="module")
def meter():
    return seeded(Meter("xxs")).eval()


@pytest.fixture(scope="module")
def photographs():
    return draw(10, 3, 64, 128)


def curved():
    """A small network whose gradient depends on the image, and not in a straight line."""
    return seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)))


def by_id(score):
    return dict(zip(score.image_ids, score.values.tolist(), strict=True))


def all_scores(model, images, ids, batch_size):
    ev = xa.Evaluation(model, images, image_ids=ids, batch_size=batch_size, **STATISTICS)
    found = {}
    for method in ("saliency", "attention_rollout", "random"):
        perturbations = [xa.perturbation(name) for name in ("gaussian_noise", "fgsm")]
        ev.plan(method, [FidelityCell(p) for p in perturbations] + [FaithfulnessCell(perturbations[0], 4)])
        for perturbation in perturbations:
            found[method, str(perturbation)] = ev.attribution_fidelity(method, perturbation=perturbation)
        found[method, "fe"] = ev.faithfulness_estimate(method, groups=4)
    return found


@pytest.fixture(scope="module")
def expected(meter, photographs):
    return all_scores(meter, photographs, IDS, 16)


class TestInvariance:
    @pytest.mark.parametrize("batch_size", [1, 3, "auto"])
    def test_batch_size(self, meter, photographs, expected, batch_size):
        self.compare(all_scores(meter, photographs, IDS, batch_size), expected)

    def test_order(self, meter, photographs, expected):
        order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
        found = all_scores(meter, photographs[order], [IDS[i] for i in order], 4)
        assert found["random", "fe"].image_ids == tuple(IDS[i] for i in order)
        self.compare(found, expected)

    def compare(self, found, expected):
        for name, score in expected.items():
            other = by_id(found[name])
            # design.md: what the choice of a convolution's algorithm moves is 1e-3 per image, 1e-4 in the mean
            assert other == pytest.approx(by_id(score), abs=1e-3)
            assert found[name].mean == pytest.approx(score.mean, abs=1e-4)
            assert max(map(abs, other.values())) > 0.01  # there is something to compare

    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "black"])
    def test_what_the_model_is_shown_is_the_same_to_the_bit(self, perturbation):
        images = draw(10, 3, 8, 8)

        def shown(order, batch_size):
            model = Capturing(Pixelwise(draw(3, 8, 8)))
            xa.attribution_fidelity(
                model,
                "random",
                images[list(order)],
                image_ids=[IDS[i] for i in order],
                perturbation=perturbation,
                batch_size=batch_size,
                **STATISTICS,
            )
            clean, relevant, irrelevant = (torch.cat(model.seen[i::3]) for i in range(3))
            back = torch.argsort(torch.tensor(list(order)))
            return clean[back], relevant[back], irrelevant[back]

        expected = shown(range(10), 16)
        assert torch.equal(expected[0], images)
        assert not torch.equal(expected[1], images)
        for order, batch_size in ((range(10), 1), (range(10), 3), (range(9, -1, -1), 4)):
            for found, same in zip(shown(order, batch_size), expected, strict=True):
                assert torch.equal(found, same)

    def test_seed_and_id_key_the_draws(self):
        model, images = Pixelwise(draw(3, 8, 8)), draw(1, 3, 8, 8).expand(2, -1, -1, -1)

        def values(seed, ids):
            return xa.attribution_fidelity(model, "random", images, seed=seed, image_ids=ids, task="depth").values

        assert values(0, ["a", "b"]).tolist() == values(0, ["b", "a"]).flip(0).tolist()
        assert len({*values(0, ["a", "b"]).tolist(), *values(1, ["a", "b"]).tolist()}) == 4

    def test_the_lots_among_equals_are_keyed_too(self):
        levels = torch.arange(64).reshape(8, 8).div(32, rounding_mode="floor")
        method = xa.method(lambda model, images, target: levels.expand(len(images), 8, 8).float())

        def values(seed):
            ev = xa.Evaluation(Pixelwise(draw(3, 8, 8)), draw(3, 3, 8, 8), seed=seed, **STATISTICS)
            with pytest.warns(xa.TiedHeatmapWarning):
                return ev.attribution_fidelity(method, perturbation="black").values

        assert torch.equal(values(0), values(0))
        assert not (values(0) == values(1)).any()

    def test_the_random_control_is_at_zero(self, meter):
        score = xa.attribution_fidelity(meter, "random", draw(24, 3, 64, 64, seed=5), task="depth")
        assert abs(score.mean) < 3 * score.standard_error
        assert score.standard_error < 0.05


class TestSources:
    """The same images in every form that they may come in."""

    IMAGES, TRUTH = draw(7, 3, 8, 8), draw(7, 8, 8, seed=1).exp()

    def fidelity(self, images, model=None, **options):
        model = model or Squares(draw(3, 8, 8, seed=2))
        return xa.attribution_fidelity(model, "saliency", images, task="depth", **options)

    def test_lazy_data_set(self):
        expected = self.fidelity(self.IMAGES, ground_truth=self.TRUTH, reference="ground_truth", batch_size=3)
        forms = (
            lambda i: (self.IMAGES[i], self.TRUTH[i]),
            lambda i: xa.Sample(self.IMAGES[i], i, self.TRUTH[i]),
        )
        for make in forms:
            data = Samples(7, make)
            score = self.fidelity(data, reference="ground_truth", batch_size=3)
            assert torch.equal(score.values, expected.values)
            assert score.image_ids == tuple(range(7))
            assert data.asked == list(range(7))  # each image read once

    def test_data_set_of_images_alone(self):
        assert torch.equal(self.fidelity(Samples(7, self.IMAGES.__getitem__)).values, self.fidelity(self.IMAGES).values)

    @pytest.mark.parametrize("count", [1, 3, 4, 5, 13, 33])
    def test_automatic_batches_leave_no_image_out(self, count):
        images = draw(count, 3, 8, 8)
        model = Counting(Squares(draw(3, 8, 8, seed=2)))
        score = self.fidelity(images, model)
        assert score.image_ids == tuple(range(count))
        assert model.forwards == 4 * count
        assert model.largest <= 32
        # one pixelwise product and sum, whatever the batch: float32's rounding of the mean is all that may differ
        assert torch.allclose(score.values, self.fidelity(images, batch_size=1).values, atol=1e-6)

    def test_channels_last(self):
        images = self.IMAGES.to(memory_format=torch.channels_last)
        assert torch.allclose(self.fidelity(images).values, self.fidelity(self.IMAGES).values, atol=1e-6)

    def test_images_that_require_a_gradient(self):
        images = self.IMAGES.clone().requires_grad_()
        assert torch.equal(self.fidelity(images).values, self.fidelity(self.IMAGES).values)
        assert images.grad is None

    @pytest.mark.parametrize("perturbation", PERTURBATIONS)
    def test_float64_agrees_with_float32(self, perturbation):
        options = {"perturbation": perturbation} | STATISTICS
        model = curved()
        single = xa.attribution_fidelity(model, "saliency", self.IMAGES, **options)
        double = xa.attribution_fidelity(model.double(), "saliency", self.IMAGES.double(), **options)
        assert torch.allclose(single.values, double.values, atol=1e-3)  # design.md's tolerance per image
        assert not torch.equal(single.values, double.values)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("perturbation", PERTURBATIONS)
    def test_half_precision_is_near_float32(self, dtype, perturbation):
        # weights of powers of 2 and a map of our own, so that the rounding is that of the images and the output alone
        weights = 2.0 ** draw(3, 8, 8, seed=3).round()
        relevance = draw(7, 8, 8, seed=4)
        method = xa.method(lambda model, images, target: relevance[: len(images)], signed="as_is")
        options = {"perturbation": perturbation, "fraction": 0.25, "batch_size": 7} | STATISTICS
        full = xa.attribution_fidelity(Pixelwise(weights), method, self.IMAGES, **options)
        half = xa.attribution_fidelity(Pixelwise(weights), method, self.IMAGES.to(dtype), **options)
        assert half.values.dtype == torch.float64
        # bfloat16 keeps 8 bits: errors of 2^-8 in each of 16 values, against changes of about 1
        assert torch.allclose(full.values, half.values, atol=0.05)

    def test_under_inference_mode_and_no_grad(self):
        model = Squares(draw(3, 8, 8, seed=2))
        expected = self.fidelity(self.IMAGES, model)
        with torch.inference_mode():
            assert torch.equal(self.fidelity(self.IMAGES.clone(), model).values, expected.values)
        with torch.no_grad():
            assert torch.equal(self.fidelity(self.IMAGES, model).values, expected.values)

    def test_a_method_of_the_users_may_take_gradients_in_any_mode(self):
        def mine(model, images, target):
            images.requires_grad_()
            target(model(images)).sum().backward()
            return images.grad

        model = Squares(draw(3, 8, 8, seed=2))
        expected = xa.attribution_fidelity(model, mine, self.IMAGES, task="depth")
        assert expected.mean > 0.3
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                score = xa.attribution_fidelity(model, mine, self.IMAGES, task="depth")
            assert torch.equal(score.values, expected.values)

    def test_a_model_that_writes_on_its_input(self):
        class InPlace(Squares):
            def forward(self, images):
                return super().forward(images.mul_(2))

        weights, images = draw(3, 8, 8, seed=2), self.IMAGES.clone()
        score = xa.attribution_fidelity(InPlace(weights), "saliency", images, task="depth")
        assert torch.equal(score.values, self.fidelity(images, Squares(2 * weights)).values)
        assert torch.equal(images, self.IMAGES)


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
        self.check(model, ev, ["saliency"], 1 + 2 * 4, 1 + 1)  # clean, R and I; the map, fgsm

    @pytest.mark.parametrize(
        ("method", "forward", "gradient"),
        [
            ("saliency", 0, 1),
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
        self.check(model, ev, ["saliency"], 1 + 2 + 5, 1)

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
        self.check(model, ev, ["saliency", "random", "edges"], 3 * 3, 1)

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
        assert model.forwards == 2 * 2  # the size of the images is known then: a clean forward, a gradient


class TestFailures:
    """An exception ends the cells that stand on it, and no other."""

    IMAGES = draw(6, 3, 8, 8)

    def test_a_perturbation_that_fails_ends_its_own_cells(self):
        model = Counting(Squares(draw(3, 8, 8)))
        ev = xa.Evaluation(model, self.IMAGES, task="depth", batch_size=4)  # no mean, no std: nobody knows black
        ev.plan("saliency", [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        good = {name: ev.attribution_fidelity("saliency", perturbation=name) for name in ("gaussian_noise", "fgsm")}
        spent = model.forwards
        for name in ("black", "mean", "black"):
            with pytest.raises(TypeError, match="Counting has no mean and std, so nobody knows what black is"):
                ev.attribution_fidelity("saliency", perturbation=name)
        assert model.forwards == spent == 6 * (1 + 2 * 2 + 2)
        options = {"perturbation": "fgsm", "task": "depth", "batch_size": 4}
        alone = xa.attribution_fidelity(model.inner, "saliency", self.IMAGES, **options)
        assert torch.equal(good["fgsm"].values, alone.values)

    def test_a_cell_that_fails_ends_alone(self):
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, task="depth")
        noise = xa.perturbation("gaussian_noise")
        ev.plan("saliency", [FidelityCell(noise, 0.001), FaithfulnessCell(noise, 65)])
        assert len(ev.attribution_fidelity("saliency")) == 6
        with pytest.raises(ValueError, match=r"fraction 0\.001 of 8x8 pixels selects none"):
            ev.attribution_fidelity("saliency", fraction=0.001)
        with pytest.raises(ValueError, match="groups=65 is more than the 8x8 pixels of an image"):
            ev.faithfulness_estimate("saliency", groups=65)

    def test_a_failing_attribution_is_raised_for_every_planned_cell(self):
        model = Counting(Squares(draw(3, 8, 8)))

        def broken(model, images, target):
            raise KeyError("weights of mine")

        method = xa.method(broken)
        ev = xa.Evaluation(model, self.IMAGES, batch_size=4, **STATISTICS)
        ev.plan(method, [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        for name in PERTURBATIONS:
            with pytest.raises(KeyError, match="weights of mine") as caught:
                ev.attribution_fidelity(method, perturbation=name)
            assert "in broken" in "".join(traceback.format_tb(caught.tb))  # each of them shows where it came from
        assert model.forwards == 4  # one clean batch
        assert ev.passes_of(method) == Passes(4, 0)
        assert ev.attribution_fidelity("saliency").mean > 0.3  # other methods are not touched

    def test_a_kept_failure_keeps_no_tensors(self):
        made = []

        def broken(model, images, target):
            large = images.clone()
            made.append(weakref.ref(large))
            raise RuntimeError("after the tensor was made")

        method = xa.method(broken)
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, **STATISTICS)
        ev.plan(method, [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        with pytest.raises(RuntimeError, match="after the tensor was made"):
            ev.attribution_fidelity(method)
        gc.collect()
        assert made[0]() is None  # though the exception waits for the other cells

    def test_a_failure_on_perturbed_images_names_them(self):
        images = 0.5 + draw(4, 3, 8, 8).sigmoid()
        images[[0, 1, 3]] += 100  # noise makes negative values in the third image alone
        ev = xa.Evaluation(SquareRoot(), images, image_ids=list("abcd"), batch_size=2, task="depth")
        noise = "gaussian_noise(sigma=2.0)"
        ev.plan("saliency", [FidelityCell(xa.perturbation(noise))])
        with pytest.raises(
            xa.ModelOutputError,
            match=r"SquareRoot returned NaN or infinity for images c perturbed by gaussian_noise\(sigma=2.0\)$",
        ):
            ev.attribution_fidelity("saliency", perturbation=noise, fraction=0.5)
        with pytest.raises(xa.ModelOutputError, match=r"for images c perturbed by gaussian_noise"):
            ev.faithfulness_estimate("saliency", perturbation=noise)
        assert len(ev.attribution_fidelity("saliency", perturbation="gaussian_noise(sigma=1e-3)")) == 4

    def test_an_interrupt_leaves_earlier_results(self):
        model = Failing(Squares(draw(3, 8, 8)), call=20, error=KeyboardInterrupt())
        ev = xa.Evaluation(model, self.IMAGES, batch_size=2, **STATISTICS)
        first = ev.attribution_fidelity("saliency")  # 3 batches of 4 calls
        assert model.calls == 12
        with pytest.raises(KeyboardInterrupt):
            ev.attribution_fidelity("saliency", perturbation="black")
        assert model.calls == 20
        assert torch.equal(ev.attribution_fidelity("saliency").values, first.values)
        assert ev.passes_of("saliency") == Passes(6 * 3 + 10, 6 + 4)  # 2 batches more, but for I of the second
        model.call = 1000  # the user presses it once: what was interrupted can be asked for again
        assert len(ev.attribution_fidelity("saliency", perturbation="black")) == 6
        fresh = xa.Evaluation(model, self.IMAGES, batch_size=2, **STATISTICS)
        values = fresh.attribution_fidelity("saliency", perturbation="black").values
        assert torch.equal(ev.attribution_fidelity("saliency", perturbation="black").values, values)

    def test_ids_that_repeat(self):
        data = Samples(6, lambda i: xa.Sample(self.IMAGES[i], f"image{i % 5}"))
        with pytest.raises(ValueError, match="two images of the data set have the same id, so they would share random"):
            xa.attribution_fidelity(Squares(draw(3, 8, 8)), "saliency", data, task="depth")

    def test_a_warning_made_an_error_ends_its_cell_alone(self):
        flat = torch.arange(64).reshape(8, 8).div(32, rounding_mode="floor")  # two levels: lots decide at 5 %
        method = xa.method(lambda model, images, target: flat.expand(len(images), 8, 8).float())
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, task="depth")
        ev.plan(method, [FidelityCell(xa.perturbation("gaussian_noise"), 0.5)])
        with pytest.raises(xa.TiedHeatmapWarning, match=r"ties decide more than half of .* 4 of 4 images"):
            ev.attribution_fidelity(method)
        assert len(ev.attribution_fidelity(method, fraction=0.5)) == 6


class TestSurface:
    def test_repr(self):
        ev = xa.Evaluation(Pixelwise(draw(3, 8, 8)), draw(2, 3, 8, 8), seed=3, task="depth")
        assert repr(ev) == "<Evaluation of Pixelwise on 2 images, seed 3>"

    def test_image_by_id(self):
        images = draw(5, 3, 8, 8)
        ev = xa.Evaluation(Pixelwise(draw(3, 8, 8)), images, image_ids=list("abcde"), task="depth", batch_size=2)
        with pytest.raises(KeyError, match="'d' is not among the 0 images measured so far"):
            ev.image("d")
        ev.attribution_fidelity("edges")
        assert torch.equal(ev.image("d"), images[3])

    def test_provenance_says_what_it_takes_to_measure_again(self):
        subject = xa.describe(Pixelwise(draw(3, 8, 8)), name="mine", task="depth", unit="m")
        noise = xa.perturbation("gaussian_noise", sigma=0.4)
        about = xa.attribution_fidelity(subject, "edges", draw(2, 3, 8, 8), perturbation=noise, seed=3).provenance
        assert about.pop("versions")["torch"] == torch.__version__
        assert about == {
            "model": "mine",
            "weights": "as given",
            "fingerprint": subject.fingerprint(),
            "task": "depth",
            "method": "edges",
            "perturbation": "gaussian_noise(sigma=0.4)",
            "seed": 3,
            "device": "cpu",
            "fraction": 0.05,
            "reference": "prediction",
            "aggregate": "image",
            "asr": "relevant",
        }

    def test_a_target_of_the_users(self):
        # only the first row is explained, so that all of R lies there at 1/8 of 8x8
        model = Capturing(Pixelwise(1 + draw(3, 8, 8).square()))
        images = draw(1, 3, 8, 8, seed=1)
        with pytest.warns(xa.TiedHeatmapWarning):  # I is drawn among zeros
            xa.attribution_fidelity(
                model, "saliency", images, fraction=1 / 8, target=lambda out: out[:, 0, 0].mean(-1), task="depth"
            )
        relevant = (model.seen[-2] != images).any(1)[0]
        assert relevant[0].all()
        assert not relevant[1:].any()

    def test_an_evaluation_in_place_of_subject_and_images(self):
        model, images = Squares(draw(3, 8, 8)), draw(5, 3, 8, 8)
        ev = xa.Evaluation(model, images, task="depth", seed=4)
        direct = xa.attribution_fidelity(model, "saliency", images, task="depth", seed=4)
        assert torch.equal(xa.attribution_fidelity(ev, "saliency").values, direct.values)
        faith = xa.faithfulness_estimate(model, "saliency", images, task="depth", seed=4, groups=4)
        assert torch.equal(xa.faithfulness_estimate(ev, "saliency", groups=4).values, faith.values)

    def test_numpy_is_no_tensor(self):
        with pytest.raises(ValueError, match="images"):
            xa.Evaluation(Pixelwise(draw(3, 8, 8)), np.zeros((0, 3, 8, 8)), task="depth")
