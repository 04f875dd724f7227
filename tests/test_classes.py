"""Classification and segmentation: targets, errors and fidelity on cases whose answer is known on paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import draw, seeded
from torch import nn

import xai_assert as xa
from xai_assert.tasks import (
    Classification,
    Depth,
    Segmentation,
    as_task,
    class_in_mask,
    class_log_probability,
    class_logit,
    for_rows,
    infer_task,
)

CLASSES, PIXELS = Classification(), Segmentation()
IMAGES = draw(6, 3, 8, 8)
STATISTICS = {"mean": [0.5] * 3, "std": [0.25] * 3}


class Corner(nn.Module):
    """Two logits, z and -z, of the sum over one corner of 4x4. Only that corner moves the decision, so the true map of
    any image is the corner."""

    def forward(self, images):
        z = images[:, :, :4, :4].sum((1, 2, 3)) / 4
        return torch.stack([z, -z], 1)


class Pixels(nn.Module):
    """Three classes at every pixel, from the colours there; only the left half is looked at."""

    def forward(self, images):
        seen = images.clone()
        seen[..., 4:] = 0
        return 2 * seen


def truth_of_corner(model, images, target):
    found = torch.zeros(len(images), 8, 8)
    found[:, :4, :4] = 1 + 0.1 * torch.arange(16.0).reshape(4, 4)
    return found + 0.001 * torch.arange(64.0).reshape(8, 8)


def inverse_of_corner(model, images, target):
    return 4 - truth_of_corner(model, images, target)


def left(model, images, target):
    return torch.arange(8.0, 0.0, -1.0).expand(len(images), 8, 8) + 0.01 * torch.arange(8.0)[:, None]


def classifier(k=5):
    """A small network of convolutions whose classes depend on everything."""
    layers = (nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 16, k))
    return seeded(nn.Sequential(*layers))


class TestErrors:
    def test_total_variation_on_paper(self):
        one = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]).log()
        other = torch.tensor([[0.25, 0.25, 0.5], [0.0, 0.5, 0.5]]).log()
        assert CLASSES.error(one, other).tolist() == pytest.approx([0.25, 0.5])

    def test_of_a_segmentation_it_is_the_mean_over_the_pixels(self):
        one = torch.tensor([0.0, 0.0])[None, :, None, None].expand(1, 2, 2, 2).clone()
        other = one.clone()
        other[0, 1, 0, 0] = 100.0  # there (.5, .5) becomes (0, 1)
        assert PIXELS.error(one, other).tolist() == [0.5 / 4]

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(
        st.sampled_from([(CLASSES, (3, 4)), (PIXELS, (2, 3, 2, 5))]),
        st.integers(0, 99),
        st.floats(0, 30),
        st.floats(-50, 50),
    )
    def test_it_is_a_distance_of_distributions(self, task_and_shape, seed, scale, constant):
        task, shape = task_and_shape
        one, other = scale * draw(*shape, seed=seed), scale * draw(*shape, seed=seed + 100)
        error = task.error(one, other)
        assert error.shape == shape[:1]
        assert ((error >= 0) & (error <= 1 + 1e-6)).all()  # a sum of float32
        assert torch.equal(error, task.error(other, one))
        assert (task.error(one, one) == 0).all()
        # float32 loses what a constant of 50 hides: 50 * 2^-24 of each logit
        assert torch.allclose(task.error(one + constant, other), error, atol=2e-5)

    def test_against_labels_on_paper(self):
        logits = torch.tensor([[0.75, 0.25], [0.1, 0.9]]).log()
        labels = torch.tensor([0, 0])
        assert CLASSES.truth_error(logits, labels).tolist() == pytest.approx([0.25, 0.9])
        assert CLASSES.loss(logits, labels).tolist() == pytest.approx([-math.log(0.75), -math.log(0.1)])

    @pytest.mark.parametrize("unknown", [255, -1, -100])
    def test_pixels_without_a_label_are_left_out(self, unknown):
        logits = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]]]]).log()
        assert PIXELS.truth_error(logits, torch.tensor([[[0, unknown]]])).tolist() == pytest.approx([0.25])

    @pytest.mark.parametrize(
        ("task", "shape", "labels", "words"),
        [
            (CLASSES, (2, 3), torch.tensor([0, 3]), r"whole numbers from 0 to 2 \(the network has 3 classes"),
            (CLASSES, (2, 3), torch.tensor([0.5, 1]), "whole numbers"),
            (CLASSES, (2, 3), torch.zeros(2, 1), r"labels \(2,\), one for each prediction, not \(2, 1\)"),
            (PIXELS, (1, 3, 2, 2), torch.zeros(1, 4, 4), r"labels \(1, 2, 2\), .* not \(1, 4, 4\)"),
            (PIXELS, (1, 3, 1, 2), torch.full((1, 1, 2), 255), "an image without a single label"),
        ],
    )
    def test_labels_that_cannot_be(self, task, shape, labels, words):
        with pytest.raises(ValueError, match=words):
            task.truth_error(draw(*shape), labels)

    def test_nothing_lost_is_nothing(self):
        assert CLASSES.spread(torch.zeros(2, 4)).tolist() == [0.0, 0.0]
        assert CLASSES.spread(torch.tensor([[100.0, 0, 0, 0]])).tolist() == [0.75]
        assert PIXELS.magnitude(draw(2, 3, 4, 4)).tolist() == [1.0, 1.0]


class TestRead:
    @pytest.mark.parametrize(("task", "shape"), [(CLASSES, (2, 1)), (CLASSES, (2,)), (CLASSES, (2, 3, 4, 4))])
    def test_a_classifier_of_another_shape(self, task, shape):
        with pytest.raises(xa.ModelOutputError, match=r"a classifier must return logits \(B, K\) of at least two"):
            task.read(torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4), (2, 4, 4)])
    def test_a_segmentation_of_another_shape(self, shape):
        with pytest.raises(xa.ModelOutputError, match="a segmentation network must return logits"):
            PIXELS.read(torch.zeros(shape))

    def test_only_what_can_be_nothing_else_is_inferred(self):
        found = [infer_task(torch.zeros(shape)) for shape in ((2, 5), (2, 5, 4, 4), (2, 1), (2, 1, 4, 4), (2, 4, 4))]
        assert [task and task.name for task in found] == ["classification", "segmentation", None, None, None]

    @pytest.mark.parametrize("name", ["depth", "classification", "segmentation"])
    def test_a_task_by_name(self, name):
        assert as_task(name).name == name


class TestTargets:
    def test_the_class_is_frozen_on_the_clean_image(self):
        target = CLASSES.target(torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
        assert target(torch.tensor([[9.0, 5.0], [6.0, 8.0]])).tolist() == [5.0, 6.0]

    def test_it_follows_its_image_through_a_batch(self):
        target = for_rows(CLASSES.target(torch.tensor([[1.0, 2.0], [4.0, 3.0]])), torch.tensor([1, 1, 0]), 2)
        assert target(torch.tensor([[9.0, 5.0], [6.0, 8.0], [1.0, 7.0]])).tolist() == [9.0, 6.0, 7.0]

    def test_those_to_choose(self):
        logits = torch.tensor([[0.25, 0.75]]).log()
        assert class_logit(1)(logits).tolist() == pytest.approx([math.log(0.75)])
        assert class_log_probability(0)(logits + 7).tolist() == pytest.approx([math.log(0.25)], rel=1e-5)
        pixels = torch.arange(8.0).reshape(1, 2, 2, 2)
        assert class_logit(1)(pixels).tolist() == [5.5]
        assert class_in_mask(1, torch.tensor([[True, False], [False, True]]))(pixels).tolist() == [5.5]

    def test_those_that_cannot_be(self):
        with pytest.raises(ValueError, match=r"class_logit\(2\): the network has the classes 0 to 1"):
            class_logit(2)(torch.zeros(1, 2))
        with pytest.raises(ValueError, match="the mask selects no pixel"):
            class_in_mask(0, torch.zeros(2, 2, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"the mask is \(2, 2\), the output \(1, 2, 3, 3\)"):
            class_in_mask(0, torch.ones(2, 2, dtype=torch.bool))(torch.zeros(1, 2, 3, 3))


class TestFidelity:
    @pytest.mark.parametrize("task", [None, "classification"])
    def test_the_true_map_scores_one_and_its_inverse_minus_one(self, task):
        for what, value in ((truth_of_corner, 1.0), (inverse_of_corner, -1.0)):
            score = xa.attribution_fidelity(Corner(), what, IMAGES, task=task, fraction=0.25)
            assert score.values.tolist() == [value] * 6
            assert score.to_dict()["provenance"]["task"] == "classification"

    def test_a_planted_wrong_map_is_rejected(self):
        xa.assert_attribution_fidelity(Corner(), truth_of_corner, IMAGES, min_af=0.9, fraction=0.25)
        with pytest.raises(AssertionError, match=r"AF of Corner .* is -1.000 on 6 images, below min_af=0.900"):
            xa.assert_attribution_fidelity(Corner(), inverse_of_corner, IMAGES, min_af=0.9, fraction=0.25)

    def test_saliency_finds_the_corner(self):
        heatmap = xa.heatmap(Corner(), IMAGES, "saliency")
        assert (heatmap[:, :4, :4] == 0.25).all()
        assert heatmap.sum() == 0.25 * 16 * 6

    def test_a_segmentation_whose_left_half_decides(self):
        score = xa.attribution_fidelity(Pixels(), left, IMAGES, fraction=0.5, perturbation="gaussian_noise")
        assert score.values.tolist() == [1.0] * 6
        assert score.provenance["task"] == "segmentation"

    @pytest.mark.parametrize("method", ["saliency", xa.method("integrated_gradients", steps=4), "edges"], ids=str)
    @pytest.mark.parametrize("perturbation", ["gaussian_noise", "fgsm"])
    def test_batches_change_nothing(self, method, perturbation):
        options = {"perturbation": perturbation, "fraction": 0.25} | STATISTICS
        whole = xa.attribution_fidelity(classifier(), method, IMAGES, batch_size=6, **options)
        single = xa.attribution_fidelity(classifier(), method, IMAGES, batch_size=1, **options)
        # a convolution's choice of algorithm
        assert whole.values.tolist() == pytest.approx(single.values.tolist(), abs=1e-3)

    def test_labels_are_what_errors_can_be_taken_of(self):
        model, labels = classifier(), torch.tensor([0, 1, 2, 3, 4, 0])
        score = xa.attribution_fidelity(
            model, "saliency", IMAGES, ground_truth=labels, reference="ground_truth", fraction=0.25
        )
        with torch.no_grad():
            expected = 1 - model(IMAGES).softmax(1)[torch.arange(6), labels]
        assert score.clean_error.tolist() == pytest.approx(expected.tolist(), rel=1e-5)  # float32

    def test_a_data_set_of_images_and_labels(self):
        class Labelled:
            def __len__(self):
                return 6

            def __getitem__(self, i):
                return IMAGES[i], i % 5

        options = {"reference": "ground_truth", "fraction": 0.25}
        found = xa.attribution_fidelity(classifier(), "saliency", Labelled(), **options)
        labels = torch.arange(6) % 5
        expected = xa.attribution_fidelity(classifier(), "saliency", IMAGES, ground_truth=labels, **options)
        assert torch.equal(found.values, expected.values)

    def test_an_attack_makes_a_sure_network_less_sure(self):
        """Raising the logit of the class that is predicted would move the probabilities the other way, by little."""
        model, images = Corner(), 2 + IMAGES.abs()
        seen, attack = [], {"perturbation": "fgsm(epsilon=8.0)", "fraction": 0.25}
        model.register_forward_hook(lambda module, given, output: seen.append(output.softmax(1)[:, 0].mean()))
        xa.attribution_fidelity(model, truth_of_corner, images, batch_size=6, **attack)
        clean, attacked = seen[0], seen[-2]
        assert clean > 0.99
        assert attacked < 0.5 * clean

    @pytest.mark.parametrize("metric", ["faithfulness_estimate", "srg", "deletion_auc", "infidelity", "sufficiency"])
    def test_other_metrics_order_the_true_map_and_its_inverse(self, metric):
        score = getattr(xa, metric)
        true, inverse = (score(Corner(), what, IMAGES).mean for what in (truth_of_corner, inverse_of_corner))
        if metric == "infidelity":  # normalised, and of a map without signs: it says itself that it orders nothing
            assert math.isfinite(true)
            assert math.isfinite(inverse)
        else:
            assert true > inverse

    def test_depth_is_as_ever(self):
        one = xa.attribution_fidelity(nn.Conv2d(3, 1, 1), "edges", IMAGES, task=Depth())
        assert one.provenance["task"] == "depth"


def test_a_task_of_the_users():
    """Of an angle, in degrees: 350 and 10 are 20 apart."""

    class Angle(xa.Task):
        name = "angle"

        def read(self, output):
            return output.flatten()

        def target(self, clean):
            return lambda output: output.flatten()

        def error(self, prediction, reference):
            return 180 - ((prediction - reference).abs() % 360 - 180).abs()

        truth_error = error

        def loss(self, prediction, truth):
            return 1 - torch.cos((prediction - truth) * math.pi / 180)

        def magnitude(self, prediction):
            return torch.full_like(prediction, 360.0)

        def spread(self, prediction):
            return torch.full_like(prediction, 90.0)

    assert Angle().error(torch.tensor([350.0]), torch.tensor([10.0])).tolist() == [20.0]

    class Turned(nn.Module):
        def forward(self, images):
            return 100 * images[:, :, :4, :4].mean((1, 2, 3))[:, None]

    score = xa.attribution_fidelity(Turned(), truth_of_corner, IMAGES, task=Angle(), fraction=0.25)
    assert score.values.tolist() == [1.0] * 6
    assert score.provenance["task"] == "angle"


class Renamed(nn.Module):
    """The same network with its classes in another order."""

    def __init__(self, network, order):
        super().__init__()
        self.network, self.order = network, order

    def forward(self, images):
        return self.network(images)[:, self.order]


class OnePixel(nn.Module):
    """The logits of a classifier as those of a picture of one pixel."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)[..., None, None]


class TestProperties:
    """What holds of any network, images and perturbation."""

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(
        xa.strategies.perturbations(),
        st.permutations(range(5)),
        st.integers(0, 99),
        st.sampled_from(["saliency", "input_x_gradient", "edges"]),
    )
    def test_the_names_of_the_classes_are_nothing_to_a_score(self, perturbation, order, seed, method):
        network, images = classifier(), draw(4, 3, 8, 8, seed=seed)
        found = [
            xa.attribution_fidelity(one, method, images, perturbation=perturbation, task="classification", **STATISTICS)
            for one in (network, Renamed(network, order))
        ]
        # sums over the classes in another order: float32, of errors that may be as small as 1e-3
        assert torch.allclose(found[0].values, found[1].values, atol=1e-3)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(xa.strategies.perturbations(), st.integers(0, 99), st.sampled_from(["saliency", "edges"]))
    def test_a_segmentation_of_one_pixel_is_a_classification(self, perturbation, seed, method):
        images = draw(4, 3, 8, 8, seed=seed)
        found = [
            xa.attribution_fidelity(one, method, images, perturbation=perturbation, task=task, **STATISTICS)
            for one, task in ((classifier(), "classification"), (OnePixel(classifier()), "segmentation"))
        ]
        # another softmax, of other strides: float32, of errors that may be as small as 1e-3
        assert torch.allclose(found[0].values, found[1].values, atol=1e-3)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(xa.strategies.perturbations(), st.integers(0, 99), st.sampled_from([0.05, 0.25, 0.5]))
    def test_the_negative_of_a_map_has_the_negative_score(self, perturbation, seed, fraction):
        images = draw(4, 3, 8, 8, seed=seed)
        ranks = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(seed))  # no two alike: no lots are drawn

        def given_map(sign):
            keyed = {float(image.sum()): one for image, one in zip(images, ranks, strict=True)}
            return xa.method(
                lambda model, x, target: torch.stack([1 + sign * keyed[float(one.sum())] for one in x]), signed="as_is"
            )

        scores = [
            xa.attribution_fidelity(
                classifier(), given_map(sign), images, perturbation=perturbation, fraction=fraction, **STATISTICS
            ).values
            for sign in (1, -1)
        ]
        assert ((scores[0].abs() <= 1) & (scores[1].abs() <= 1)).all()
        assert torch.allclose(scores[0], -scores[1], atol=1e-5)
