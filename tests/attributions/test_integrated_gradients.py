"""Integrated gradients: exact where it can be, as a plain loop and as Captum elsewhere, at constant memory."""

import pytest
import torch
from captum.attr import IntegratedGradients
from known_models import Counting, Pixelwise, draw
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import xai_assert as xa
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD
from xai_assert.tasks import depth_mean

WEIGHTS = draw(3, 4, 6)
IMAGES = draw(5, 3, 4, 6, seed=1)
BLACK = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)


def normalised(module):
    return xa.describe(module, name="net", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)


def integrated(subject, images, **options):
    run = {key: options.pop(key) for key in ("target", "batch_size") if key in options}
    return xa.attribute(subject, images, xa.method("integrated_gradients", **options), **run)


class Squares(nn.Module):
    """f(x)_i = sum_c x_ci^2: the gradient is linear along the path, so that the midpoint rule is exact."""

    def forward(self, images):
        return images.square().sum(1, keepdim=True)


class TestKnownAnswers:
    @pytest.mark.parametrize("steps", [1, 7, 200])
    def test_a_linear_model_is_exact_at_any_number_of_steps(self, steps):
        found = integrated(normalised(Pixelwise(WEIGHTS)), IMAGES, steps=steps)
        expected = WEIGHTS / 24 * (IMAGES - BLACK[:, None, None])
        # a sum of `steps` equal float32 numbers, which grows by one rounding a step
        torch.testing.assert_close(found, expected, rtol=1e-6 + steps * 1e-7, atol=1e-7)

    @pytest.mark.parametrize("steps", [1, 10])
    def test_a_quadratic_model_is_exact_by_the_midpoint_rule(self, steps):
        found = integrated(normalised(Squares()), IMAGES, steps=steps)
        expected = (IMAGES.square() - BLACK[:, None, None].square()) / 24
        # differences of squares of order 10, in float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_an_end_point_rule_would_be_told_apart(self):
        """Sums at t = k/n or (k+1)/n miss x^2 - b^2 by (x - b)^2 / n."""
        path = IMAGES - BLACK[:, None, None]
        left = path * sum(2 * (BLACK[:, None, None] + path * k / 10) for k in range(10)) / 10 / 24
        found = integrated(normalised(Squares()), IMAGES, steps=10)
        assert (found - left).abs().max() > 0.01

    @pytest.mark.parametrize("steps", [1, 50])
    def test_completeness(self, steps):
        subject = normalised(Squares())
        found = integrated(subject, IMAGES, steps=steps).sum((1, 2, 3))
        black = BLACK[:, None, None].expand_as(IMAGES)
        # sums of 72 float32 numbers
        difference = depth_mean(subject(IMAGES)) - depth_mean(subject(black))
        torch.testing.assert_close(found, difference, rtol=1e-5, atol=1e-6)

    def test_the_heatmap_is_the_absolute_sum_over_the_channels(self):
        attribution = integrated(normalised(Pixelwise(WEIGHTS)), IMAGES)
        found = xa.heatmap(normalised(Pixelwise(WEIGHTS)), IMAGES, "integrated_gradients")
        assert torch.equal(found, attribution.sum(1).abs())

    def test_half_precision_is_summed_up_in_full(self):
        weights, images = WEIGHTS.bfloat16(), IMAGES.bfloat16()
        found = integrated(normalised(Pixelwise(weights)), images, baseline=torch.zeros(()))
        assert found.dtype == torch.float32
        # Each gradient w / 24 is rounded to 8 bits once; 200 of them added up in bfloat16 would be 20 % off.
        torch.testing.assert_close(found, weights.float() / 24 * images.float(), rtol=2**-7, atol=0)


class TestAgreement:
    """On METER in float64: the path crosses kinks, and in float32 two orders of a sum may fall on two sides of one."""

    def test_with_a_plain_loop(self, meter64):
        images = draw(2, 3, 64, 64).double()
        black = BLACK.double()[:, None, None].expand_as(images)
        total = torch.zeros_like(images)
        for k in range(8):
            point = (black + (k + 0.5) / 8 * (images - black)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(meter64(point).mean(), point)
            total += 2 * gradient  # the mean over two images halves each image's gradient
        expected = (images - black) * total / 8
        found = integrated(meter64, images, steps=8, batch_size=2)
        # 8 float64 sums along some 100 layers
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))

    def test_with_captums_midpoint_rule(self, meter64):
        images = draw(1, 3, 64, 128).double()
        black = BLACK.double()[:, None, None].expand_as(images)
        theirs = IntegratedGradients(lambda x: depth_mean(meter64(x))).attribute(
            images, black, n_steps=10, method="riemann_middle", internal_batch_size=5
        )
        found = integrated(meter64, images, steps=10)
        # Captum keeps the weights of the steps in float32, whatever the images are in: 6e-8 of each term.
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-7 * float(theirs.abs().max()))

    def test_in_float32_to_float_precision(self, meter):
        images = draw(1, 3, 64, 128)
        black = BLACK[:, None, None].expand_as(images)
        theirs = IntegratedGradients(lambda x: depth_mean(meter(x))).attribute(
            images, black, n_steps=8, method="riemann_middle", internal_batch_size=1
        )
        found = integrated(meter, images, steps=8)
        # The points of the path are rounded in the last bit; through some 100 layers of float32 that is about 1e-5.
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors made inside and still alive, at their peak."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._seen[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._seen = {key: entry for key, entry in self._seen.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._seen.values()))
        return output


def all_at_once(model, images, target, *, steps):
    """Integrated gradients that expands every step into one batch."""
    points = torch.cat([images * (k + 0.5) / steps for k in range(steps)]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(target(model(points)).sum(), points)
    return images * gradient.reshape(steps, *images.shape).mean(0)


def graph_kept(model, images, target, *, steps):
    """Integrated gradients that adds up the function, so that every step's graph stays."""
    points = images.clone().requires_grad_(True)
    total = sum(target(model(points * ((k + 0.5) / steps))).sum() / ((k + 0.5) / steps) for k in range(steps))
    (gradient,) = torch.autograd.grad(total, points)
    return images * gradient / steps


class TestMemory:
    @staticmethod
    def peak(method):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Conv2d(8, 1, 3, padding=1))
        subject, images = normalised(model), draw(2, 3, 16, 16)
        with LiveBytes() as memory:
            xa.attribute(subject, images, method)
        return memory.peak

    def test_it_does_not_grow_with_the_steps(self):
        few, many = (self.peak(xa.method("integrated_gradients", steps=steps)) for steps in (3, 48))
        assert few == many > 0

    @pytest.mark.parametrize("wrong", [all_at_once, graph_kept])
    def test_the_measurement_sees_an_implementation_that_does_grow(self, wrong):
        few, many = (self.peak(xa.method(wrong, steps=steps)) for steps in (3, 48))
        assert many > 8 * few

    def test_no_larger_batch_than_the_callers_reaches_the_model(self):
        model = Counting(Pixelwise(WEIGHTS))
        integrated(normalised(model), IMAGES, steps=50, batch_size=2)
        assert model.largest == 2

    def test_it_costs_as_many_gradients_as_steps(self):
        model = Counting(Pixelwise(WEIGHTS))
        integrated(normalised(model), IMAGES, steps=50, target=depth_mean)
        assert (model.forwards, model.backwards) == (5 * 50, 5 * 50)
        assert xa.method("integrated_gradients", steps=50).passes(steps=50) == (0, 50)


class TestBaselines:
    def attribution(self, **options):
        return integrated(normalised(Pixelwise(WEIGHTS)), IMAGES, steps=4, **options)

    @pytest.mark.parametrize(
        ("name", "colour"), [("black", (0.0, 0.0, 0.0)), ("white", (1.0, 1.0, 1.0)), ("mean", IMAGENET_MEAN)]
    )
    def test_colours_are_colours_of_the_picture(self, name, colour):
        start = (torch.tensor(colour) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
        expected = WEIGHTS / 24 * (IMAGES - start[:, None, None])
        torch.testing.assert_close(self.attribution(baseline=name), expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("shape", [(), (3, 1, 1), (4, 6), (3, 4, 6), (1, 3, 4, 6), (1, 1, 1, 6)])
    def test_a_tensor_that_broadcasts_to_an_image(self, shape):
        start = draw(*shape, seed=2)
        expected = WEIGHTS / 24 * (IMAGES - start)
        torch.testing.assert_close(self.attribution(baseline=start), expected, rtol=1e-5, atol=1e-7)

    def test_the_blurred_image_of_each(self):
        """Mirrored at its border, a picture of 4x6 pixels blurs to its mean colour, but for exp(-(10 pi / 6)^2 / 2)."""
        start = torch.from_numpy(gaussian_filter(IMAGES.double().numpy(), 10, axes=(2, 3))).float()
        expected = WEIGHTS / 24 * (IMAGES - start)
        # a difference of float32 numbers of order 1
        torch.testing.assert_close(self.attribution(baseline="blurred"), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(start, IMAGES.mean((2, 3), keepdim=True).expand_as(start), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("several", ["black+white+mean", "black + white + mean", ("black", "white", "mean")])
    def test_of_several_it_is_the_mean(self, several):
        each = [self.attribution(baseline=name) for name in ("black", "white", "mean")]
        # three float32 numbers added up
        torch.testing.assert_close(self.attribution(baseline=several), sum(each) / 3, rtol=1e-6, atol=1e-7)

    def test_names_and_tensors_together(self):
        start = draw(3, 1, 1, seed=2)
        expected = (self.attribution(baseline="black") + self.attribution(baseline=start)) / 2
        torch.testing.assert_close(self.attribution(baseline=("black", start)), expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize(("baseline", "passes"), [("black", 4), ("black+white+mean", 12), (("mean", "blurred"), 8)])
    def test_each_costs_its_steps(self, baseline, passes):
        model, chosen = Counting(Pixelwise(WEIGHTS)), {"steps": 4, "baseline": baseline}
        integrated(normalised(model), IMAGES, target=depth_mean, **chosen)
        assert (model.forwards, model.backwards) == (5 * passes, 5 * passes)
        method = xa.method("integrated_gradients", **chosen)
        assert method.passes(**method.parameters) == (0, passes)

    def test_the_command_line_says_several_too(self):
        method = xa.method("integrated_gradients(steps=4, baseline='black+white')")
        assert str(method) == "integrated_gradients(steps=4, baseline='black+white')"
        assert method.passes(**method.parameters) == (0, 8)

    def test_a_tensor_of_another_type_that_requires_grad(self):
        start = draw(3, 1, 1).double().requires_grad_(True)
        found = self.attribution(baseline=start)
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
        assert start.grad is None

    def test_the_baseline_itself_is_attributed_nothing(self):
        with pytest.warns(xa.NearBaselineWarning, match=r"1 of 5 images are as their baseline tensor .*\(100%,"):
            assert self.attribution(baseline=IMAGES[0], batch_size=5)[0].abs().max() == 0

    @pytest.mark.parametrize("shape", [(5, 3, 4, 6), (2, 4, 6), (3,), (1, 1, 3, 4, 6)])
    def test_another_shape_is_refused_whatever_the_batch_size(self, shape):
        with pytest.raises(ValueError, match=r"baseline .* does not broadcast to one image \(3, 4, 6\)") as error:
            self.attribution(baseline=torch.zeros(shape), batch_size=5)
        assert f"integrated_gradients: baseline {shape} " in str(error.value)

    @pytest.mark.parametrize("baseline", ["grey", 3, None, [0.0, 0.0, 0.0], (), "black+grey", ("black", None)])
    def test_an_unknown_baseline_is_refused_with_the_known_ones(self, baseline):
        with pytest.raises(ValueError, match=r"unknown baseline .*; known: black, white, mean, blurred, or a tensor"):
            self.attribution(baseline=baseline)

    @pytest.mark.parametrize("steps", [0, -1, 2.5, "3", True])
    def test_bad_steps(self, steps):
        with pytest.raises(ValueError, match=r"steps must be .auto. or a whole number of at least 1, not"):
            integrated(normalised(Pixelwise(WEIGHTS)), IMAGES, steps=steps)

    def test_black_needs_to_know_the_preprocessing(self):
        with pytest.raises(TypeError, match=r"Pixelwise has no mean and std, so nobody .*pass mean=\.\.\., std="):
            xa.attribute(Pixelwise(WEIGHTS), IMAGES, "integrated_gradients", task="depth")

    def test_which_a_bare_module_can_be_told(self):
        found = xa.attribute(
            Pixelwise(WEIGHTS), IMAGES, "integrated_gradients", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD
        )
        torch.testing.assert_close(found, self.attribution(), rtol=1e-4, atol=1e-7)  # 200 steps against 4

    def test_and_a_tensor_needs_no_card(self):
        found = integrated(xa.describe(Pixelwise(WEIGHTS), name="net", task="depth"), IMAGES, baseline=torch.zeros(()))
        torch.testing.assert_close(found, WEIGHTS / 24 * IMAGES, rtol=1e-4, atol=1e-7)
