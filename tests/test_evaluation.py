"""The streaming evaluation: the same scores however it is cut up, no pass too many, and an error where it belongs."""

import numpy as np
import pytest
import torch
from known_models import (
    Capturing,
    Counting,
    Pixelwise,
    Samples,
    Squares,
    curved,
    draw,
    seeded,
)

import xai_assert as xa
from xai_assert.metrics import FaithfulnessCell, FidelityCell
from xai_assert.models.meter import Meter

PERTURBATIONS = ["black", "mean", "gaussian_noise", "fgsm"]
STATISTICS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IDS = [f"{i:02}.png" for i in range(10)]


@pytest.fixture(scope="module")
def meter():
    return seeded(Meter("xxs")).eval()


@pytest.fixture(scope="module")
def photographs():
    return draw(10, 3, 64, 128)


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


def test_weights_that_were_written_on_are_noticed_for_what_was_measured_already_too():
    model = Squares(draw(3, 4, 4))
    ev = xa.Evaluation(model, draw(3, 3, 4, 4), task="depth")
    ev.attribution_fidelity("edges", fraction=0.2)
    with torch.no_grad():
        model.weights.mul_(2)
    with pytest.raises(ValueError, match="changed since this Evaluation measured its first score"):
        ev.attribution_fidelity("edges", fraction=0.2)


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
            return sorted(picture.numpy().tobytes() for picture in torch.cat(model.seen))

        expected = shown(range(10), 16)
        assert len(set(expected)) == 30  # clean, R and I, each another picture
        assert {picture.numpy().tobytes() for picture in images} < set(expected)
        for order, batch_size in ((range(10), 1), (range(10), 3), (range(10), 40), (range(9, -1, -1), 4)):
            assert shown(order, batch_size) == expected

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
        assert model.forwards == 3 * count
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

        def target(output):
            return output[:, 0, 0].mean(-1)

        options = {"fraction": 1 / 8, "task": "depth", "batch_size": 1}
        with pytest.warns(xa.TiedHeatmapWarning):  # I is drawn among zeros
            xa.attribution_fidelity(model, "saliency", images, target=target, **options)
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

    def test_weights_that_change_between_two_scores_are_noticed(self):
        model = Pixelwise(draw(3, 8, 8))
        ev = xa.Evaluation(model, draw(2, 3, 8, 8), task="depth")
        first = ev.attribution_fidelity("edges")
        model.weights.data.neg_()
        with pytest.raises(ValueError, match="the weights or the device of Pixelwise changed since this Evaluation"):
            ev.attribution_fidelity("random")
        assert torch.equal(ev.attribution_fidelity("edges").values, first.values)  # what was measured stands
        model.weights.data.neg_()
        assert len(ev.attribution_fidelity("random")) == 2

    @pytest.mark.parametrize("seed", [1.0, "1", True, None], ids=repr)
    def test_a_seed_is_a_whole_number(self, seed):
        with pytest.raises(TypeError, match="seed must be a whole number, not "):
            xa.Evaluation(Pixelwise(draw(3, 8, 8)), draw(2, 3, 8, 8), seed=seed, task="depth")

    def test_an_unknown_argument_names_the_nearest(self):
        with pytest.raises(TypeError, match="unknown argument 'sed'; did you mean 'seed'"):
            xa.attribution_fidelity(Pixelwise(draw(3, 8, 8)), "edges", draw(2, 3, 8, 8), sed=3, task="depth")

    def test_the_callers_autocast_stays_outside(self):
        model, images = curved(), draw(2, 3, 8, 8)
        plain = xa.attribution_fidelity(model, "saliency", images, task="depth").values
        with torch.autocast("cpu", torch.bfloat16):
            inside = xa.attribution_fidelity(model, "saliency", images, task="depth").values
            assert model(images).dtype == torch.bfloat16  # it is on again, and would have mattered
        assert torch.equal(plain, inside)
