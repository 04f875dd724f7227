"""IG with as many gradients as each image needs: exact where it can be, and spent where the map still changes."""

import math

import pytest
import torch
from captum.attr import IntegratedGradients
from known_models import Counting, Pixelwise, curved, draw
from torch import nn

import xai_assert as xa
from xai_assert.attributions.path_integral import EDGES, FEWEST, PANELS, gap, integrate
from xai_assert.tasks import depth_mean, for_rows

WEIGHTS = draw(3, 4, 6)
IMAGES = draw(5, 3, 4, 6, seed=1)
ZERO = torch.zeros(())


class Hinge(nn.Module):
    """f(x) = relu(sum w x - threshold): the gradient jumps from 0 to w at one place of the path."""

    def __init__(self, weights, threshold):
        super().__init__()
        self.weights, self.threshold = nn.Parameter(weights), threshold

    def forward(self, images):
        value = (images * self.weights).sum((1, 2, 3)) - self.threshold
        return value.relu()[:, None, None, None].expand(-1, 1, 4, 6)


def run(model, images=IMAGES, target=depth_mean, **options):
    options = {"tolerance": 0.05, "most": 500} | options
    return integrate(model, images, ZERO, target, **options)


class TestKnownAnswers:
    def test_a_linear_model_is_exact_with_the_fewest_gradients(self):
        found = run(Pixelwise(WEIGHTS))
        torch.testing.assert_close(found.integral, WEIGHTS / 24 * IMAGES, rtol=1e-5, atol=1e-7)  # 17 float32 added up
        assert found.gradients.tolist() == [FEWEST] * 5
        # sums of 72 float32 numbers that partly cancel
        assert found.gap.max() < 1e-4
        assert found.map_change.max() < 1e-4

    def test_a_quadratic_model_is_exact_too(self):
        """Its gradient is linear along the path, as the trapezoidal rule takes it to be."""

        class Squares(nn.Module):
            def forward(self, images):
                return images.square().sum(1, keepdim=True)

        found = run(Squares())
        torch.testing.assert_close(found.integral, IMAGES.square() / 24, rtol=1e-5, atol=1e-7)
        assert found.gradients.tolist() == [FEWEST] * 5

    @pytest.mark.parametrize("tolerance", [0.1, 0.03, 0.01])
    @pytest.mark.parametrize("at", [0.013, 0.3, 0.77])
    def test_a_jump_of_the_gradient_is_found_wherever_it_is(self, at, tolerance):
        images = 0.5 + IMAGES.abs()
        reached = (images * WEIGHTS.abs()).sum((1, 2, 3))
        model = Hinge(WEIGHTS.abs(), at * float(reached[0]))
        found = run(model, images[:1], tolerance=tolerance)
        expected = WEIGHTS.abs() * images[:1] * (1 - at)
        distance = (found.integral - expected).abs().sum() / expected.abs().sum()
        assert distance <= tolerance  # the map is off by what its sum is off, for all of it jumps at once
        assert max(found.gap, found.map_change) <= tolerance
        change = float((1 - at) * (images[:1] * WEIGHTS.abs()).sum())
        # f only rises, so that its change is its variation; float32 sums
        assert float(found.gap) == pytest.approx(abs(float(found.integral.sum()) - change) / change, abs=1e-4)
        # halving only where it jumps: each of log2(width / tolerance) refinements doubles one panel
        assert found.gradients <= FEWEST + 2 / tolerance

    def test_gradients_go_where_the_map_changes(self):
        model = Counting(Hinge(WEIGHTS.abs(), 0.3 * float((IMAGES[:1].abs() * WEIGHTS.abs()).sum())))
        seen = []
        model.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0].detach().clone()))
        run(model, IMAGES[:1].abs(), tolerance=0.01)
        alphas = sorted(float((x / IMAGES[0].abs()).mean()) for x in seen)
        panel = next(k for k in range(PANELS) if EDGES[k] <= 0.3 < EDGES[k + 1])
        inside = [a for a in alphas if EDGES[panel] + 1e-4 < a < EDGES[panel + 1] - 1e-4]  # they are read from float32
        assert len(inside) == len(alphas) - (FEWEST - 1)  # all but the first ones of the other panels

    def test_it_agrees_with_captum_where_that_has_converged(self):
        model = curved().eval()
        images = draw(2, 3, 8, 8)
        found = run(model, images, tolerance=0.002, most=4000)
        reference = IntegratedGradients(lambda x: depth_mean(model(x)))
        expected = reference.attribute(images, torch.zeros_like(images), n_steps=1000, internal_batch_size=50)
        distance = (found.integral.sum(1) - expected.sum(1)).abs().sum((1, 2)) / expected.sum(1).abs().sum((1, 2))
        assert distance.max() < 0.002


class TestGap:
    def test_on_paper(self):
        assert gap(5.0, {0.0: 0.0, 1.0: 4.0}) == 0.25
        assert gap(4.0, {0.0: 0.0, 1.0: 4.0}) == 0
        # f goes up by 100 and down by 99: 5 % of 199 is the scale, not the difference of 1
        assert gap(2.0, {0.0: 0.0, 0.5: 100.0, 1.0: 1.0}) == pytest.approx(1 / (0.05 * 199))
        # where f does not change at all, rounding of f is no gap
        assert gap(1e-4, {0.0: 1000.0, 1.0: 1000.0}) == pytest.approx(1e-4 / 0.01)
        assert gap(0.0, {0.0: 0.0, 1.0: 0.0}) == 0


class TestStopping:
    def mixed(self):
        """One image on which the model is linear, one on which its gradient jumps."""
        images = torch.stack([-IMAGES[0].abs(), IMAGES[0].abs()])
        reached = float((images[1] * WEIGHTS.abs()).sum())

        class Mixed(nn.Module):
            def forward(self, images):
                value = (images * WEIGHTS.abs()).sum((1, 2, 3))
                return torch.where(value < 0, value, (value - 0.4 * reached).relu())[:, None, None, None]

        return Mixed(), images

    def test_an_image_that_has_converged_leaves_the_batch(self):
        mixed, images = self.mixed()
        model = Counting(mixed)
        found = run(model, images)
        assert found.gradients[0] == FEWEST < found.gradients[1]
        assert model.backwards == int(found.gradients.sum())  # none is taken for nothing, and all are told

    def test_an_image_does_not_depend_on_its_batch(self):
        mixed, images = self.mixed()
        together = run(mixed, images)
        for i in (0, 1):
            alone = run(mixed, images[i : i + 1])
            # the same gradients, added up in the same order
            torch.testing.assert_close(alone.integral[0], together.integral[i], rtol=1e-6, atol=1e-8)
            assert alone.gradients[0] == together.gradients[i]

    @pytest.mark.parametrize("most", [17, 18, 40, 100, 101])
    def test_no_more_than_most(self, most):
        model = Counting(Hinge(WEIGHTS.abs(), 1.0))
        found = run(model, IMAGES.abs(), tolerance=1e-6, most=most)
        assert found.gradients.max() <= most
        assert found.gradients.min() > most - 64  # the least a panel that is left would take

    def test_a_model_without_a_path(self):
        """f does not change: nothing to integrate, and nothing missed."""
        found = run(Hinge(WEIGHTS.abs(), 1e9), IMAGES.abs())
        assert found.integral.abs().max() == 0
        assert (found.gradients.tolist(), found.gap.max(), found.map_change.max()) == ([FEWEST] * 5, 0, 0)

    def test_a_gradient_that_is_not_finite_ends_it(self):
        class Root(nn.Module):
            def forward(self, images):
                return images.sum(1, keepdim=True).abs().sqrt()  # whose slope at 0 is infinite

        found = run(Root())
        assert not torch.isfinite(found.integral).any()
        assert found.gradients.tolist() == [FEWEST] * 5

    def test_dropout_does_not_go_on_for_ever(self):
        found = run(nn.Sequential(curved(), nn.Dropout(0.5)).train(), draw(1, 3, 8, 8), most=60)
        assert found.gradients[0] <= 60


class TestRows:
    def test_a_target_that_knows_its_batch(self):
        """Each image has a target of its own; converged images leave, and the others keep theirs."""
        weights = torch.stack([WEIGHTS * (i + 1) for i in range(5)])

        class Several(nn.Module):
            def forward(self, images):  # (B, 5, 1, 1): the score of each class
                return torch.stack([(images * w).sum((1, 2, 3)).relu() for w in weights], 1)[..., None, None]

        labels = torch.tensor([3, 0, 4, 1, 2])
        found = run(Several(), IMAGES, target=lambda output: output[torch.arange(5), labels, 0, 0], tolerance=0.001)
        for i, label in enumerate(labels):
            alone = run(Several(), IMAGES[i : i + 1], target=lambda o, n=label: o[:, n, 0, 0], tolerance=0.001)
            torch.testing.assert_close(found.integral[i], alone.integral[0], rtol=1e-5, atol=1e-7)  # float32 sums

    @pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1, 1], [2, 1, 2, 0, 2]])
    def test_outputs_meet_their_own_targets(self, rows):
        output = draw(len(rows), 4)
        labels = torch.tensor([3, 0, 2])
        found = for_rows(lambda o: o[torch.arange(3), labels], torch.tensor(rows), 3)(output)
        assert found.tolist() == [float(output[i, labels[row]]) for i, row in enumerate(rows)]


class TestMethod:
    def attribute(self, model, images=IMAGES, **options):
        run = {key: options.pop(key) for key in ("batch_size",) if key in options}
        method = xa.method("integrated_gradients", steps="auto", baseline=ZERO, **options)
        return xa.attribute(model, images, method, task="depth", **run)

    def test_by_its_name(self):
        assert str(xa.method("integrated_gradients(steps='auto')")) == "integrated_gradients(steps='auto')"
        torch.testing.assert_close(self.attribute(Pixelwise(WEIGHTS)), WEIGHTS / 24 * IMAGES, rtol=1e-5, atol=1e-7)

    def test_what_it_cost_stands_beside_the_scores(self):
        model = Counting(Hinge(WEIGHTS.abs(), 2.0))
        ev = xa.Evaluation(model, IMAGES.abs(), task="depth", batch_size=2)
        method = xa.method("integrated_gradients", steps="auto", baseline=ZERO, tolerance=0.02)
        score = ev.attribution_fidelity(method, fraction=0.2)
        details = score.to_dict()["details"]
        assert sum(details["ig_gradients"]) == ev.passes.gradient == model.backwards
        assert max(details["ig_gap"] + details["ig_map_change"]) <= 0.02
        assert ev.expected_passes(method) is None  # nobody knows beforehand

    def test_of_several_baselines_it_is_the_mean(self):
        images = IMAGES.abs()
        model = Hinge(WEIGHTS.abs(), 2.0)
        starts = (ZERO, torch.tensor(-0.1))
        options = {"task": "depth"}
        found = xa.method("integrated_gradients", steps="auto", baseline=starts)
        each = [
            xa.attribute(model, images, xa.method("integrated_gradients", steps="auto", baseline=s), **options)
            for s in starts
        ]
        torch.testing.assert_close(xa.attribute(model, images, found, **options), sum(each) / 2, rtol=1e-6, atol=1e-8)

    def test_half_precision_is_summed_up_in_full(self):
        found = self.attribute(Pixelwise(WEIGHTS.bfloat16()), IMAGES.bfloat16())
        assert found.dtype == torch.float32
        # each gradient and each product is rounded to 8 bits once
        torch.testing.assert_close(found, (WEIGHTS.bfloat16() / 24 * IMAGES.bfloat16()).float(), rtol=2**-6, atol=0)

    def test_too_few_are_said(self):
        with pytest.warns(
            xa.NotConvergedWarning, match=r"5 of 5 images are above the tolerance of 0\.001 after 20 gra"
        ):
            self.attribute(Hinge(WEIGHTS.abs(), 2.0), IMAGES.abs(), tolerance=0.001, most=20, batch_size=5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": "many"}, "steps must be 'auto' or a whole number of at least 1, not 'many'"),
            ({"steps": "auto", "tolerance": 0}, "tolerance must be above 0 and below 1, not 0"),
            ({"steps": "auto", "tolerance": math.nan}, "tolerance must be above 0 and below 1, not nan"),
            ({"steps": "auto", "most": 16}, "most must be a whole number of at least 17, not 16"),
            ({"steps": 50, "most": 100}, r"tolerance= and most= go with steps='auto', not with steps=50"),
        ],
    )
    def test_what_cannot_be(self, options, message):
        method = xa.method("integrated_gradients", baseline=ZERO, **options)
        with pytest.raises(ValueError, match=message):
            xa.attribute(Pixelwise(WEIGHTS), IMAGES, method, task="depth")
