"""Saliency, against the weights of a model whose gradient is known, and against Captum."""

import re

import pytest
import torch
from captum.attr import Saliency
from known_models import Blind, Corner, Pixelwise, SignedSum, draw
from torch import nn

import xai_assert as xa
from xai_assert.tasks import depth_mean

WEIGHTS = draw(3, 4, 6)
IMAGES = draw(5, 3, 4, 6, seed=1)


class TestKnownAnswers:
    def test_the_gradient_of_a_pixelwise_model_is_its_weights(self):
        found = xa.attribute(Pixelwise(WEIGHTS), IMAGES, "saliency", task="depth")
        # one division by HW = 24, in another order of operations
        torch.testing.assert_close(found, (WEIGHTS / 24).expand_as(IMAGES), rtol=1e-6, atol=0)

    def test_its_heatmap_is_the_largest_absolute_weight(self):
        found = xa.heatmap(Pixelwise(WEIGHTS), IMAGES, "saliency", task="depth")
        torch.testing.assert_close(found, (WEIGHTS.abs().amax(0) / 24).expand(5, 4, 6), rtol=1e-6, atol=0)

    def test_one_channel_gives_exactly_the_weights(self):
        weights = draw(1, 4, 4)
        found = xa.heatmap(Pixelwise(weights), draw(2, 1, 4, 4), "saliency", task="depth")
        assert torch.equal(found, weights.abs().expand(2, 4, 4) / 16)  # a division by a power of 2 is exact

    def test_the_counter_example_sees_the_weights_too(self):
        found = xa.attribute(SignedSum(WEIGHTS), IMAGES, "saliency", task="depth")
        # 24 equal shares of the mean are added up again
        torch.testing.assert_close(found, WEIGHTS.expand_as(IMAGES), rtol=1e-6, atol=0)

    def test_a_corner_is_all_that_a_corner_model_sees(self):
        found = xa.heatmap(Corner(), draw(2, 3, 6, 6), "saliency", task="depth")
        seen = torch.zeros(6, 6, dtype=torch.bool)
        seen[:3, :3] = True
        assert torch.equal(found > 0, seen.expand(2, 6, 6))

    def test_the_wrong_reduction_is_told_apart(self):
        """A heatmap that summed the channels first would lose what cancels between them."""
        cancelling = torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, 2, 2)
        kept = xa.heatmap(Pixelwise(cancelling), draw(1, 3, 2, 2), "saliency", task="depth")
        summed = xa.heatmap(
            Pixelwise(cancelling), draw(1, 3, 2, 2), lambda m, x, t: xa.attribute(m, x, "saliency"), task="depth"
        )
        assert kept.min() == 0.25
        assert summed.max() == 0


class TestCaptum:
    def test_it_agrees_on_meter(self, meter):
        images = draw(2, 3, 64, 128)
        theirs = Saliency(lambda x: depth_mean(meter(x))).attribute(images.clone().requires_grad_(), abs=False)
        ours = xa.attribute(meter, images, "saliency", batch_size=2)
        # The same operations in the same order; what is left is how the backend cuts a sum into threads.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))

    def test_it_agrees_in_float64_one_image_at_a_time(self, meter64):
        images = draw(3, 3, 64, 128).double()
        theirs = Saliency(lambda x: depth_mean(meter64(x))).attribute(images.clone().requires_grad_(), abs=False)
        ours = xa.attribute(meter64, images, "saliency", batch_size=1)
        # other batch sizes, other convolution algorithms: some 100 layers' rounding of 1e-16
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * float(theirs.abs().max()))


class TestTargets:
    def test_any_callable_is_explained(self):
        found = xa.attribute(Pixelwise(WEIGHTS), IMAGES, "saliency", target=lambda out: out[:, 0, 2, 3])
        expected = torch.zeros_like(IMAGES)
        expected[:, :, 2, 3] = WEIGHTS[:, 2, 3]
        assert torch.equal(found, expected)

    def test_a_model_without_a_task_needs_one(self):
        with pytest.raises(TypeError, match=r"Pixelwise does not say what its output .* means, .*pass task='depth'"):
            xa.attribute(Pixelwise(WEIGHTS), IMAGES, "saliency")

    @pytest.mark.parametrize("shape", ["(2, 3, 4, 6)", "(2,)"])
    def test_an_output_that_is_not_of_the_task_is_refused(self, shape):
        """The mean of three channels would be a number too, but not of a depth map."""
        module = (
            nn.Identity() if shape == "(2, 3, 4, 6)" else nn.Sequential(nn.Flatten(), nn.Linear(72, 1), nn.Flatten(0))
        )
        with pytest.raises(xa.ModelOutputError, match=f"a depth model must return .* not {re.escape(shape)}"):
            xa.attribute(module, IMAGES[:2], "saliency", task="depth")

    @pytest.mark.parametrize(
        ("target", "got"),
        [
            (lambda out: out, r"\(5, 1, 4, 6\)"),
            (lambda out: out.mean(), r"\(\)"),
            (lambda out: out.flatten(1).mean(1, keepdim=True), r"\(5, 1\)"),
            (lambda out: 3.0, "a float"),
        ],
    )
    def test_it_must_be_one_number_an_image(self, target, got):
        with pytest.raises(xa.ModelOutputError, match=rf"must be one number an image, a tensor \(5,\), not {got}"):
            xa.attribute(Pixelwise(WEIGHTS), IMAGES, "saliency", target=target, batch_size=5)


class TestNoGradient:
    class Detaches(nn.Module):
        def forward(self, images):
            return images.detach().mean(1, keepdim=True)

    class Frozen(nn.Module):
        @torch.no_grad()
        def forward(self, images):
            return images.mean(1, keepdim=True)

    class Rounds(nn.Module):
        def forward(self, images):
            return images.argmax(1, keepdim=True).float()

    @pytest.mark.parametrize("module", [Blind(), Detaches(), Frozen(), Rounds()])
    def test_a_target_that_ignores_the_images_is_translated(self, module):
        with pytest.raises(xa.ModelOutputError, match="the target does not depend on the images: no gradient"):
            xa.attribute(module, IMAGES, "saliency", task="depth")

    def test_also_where_only_other_weights_have_a_gradient(self):
        target_weight = torch.ones((), requires_grad=True)
        with pytest.raises(xa.ModelOutputError, match="does not depend on the images"):
            xa.attribute(Blind(), IMAGES, "saliency", target=lambda out: target_weight * out.flatten(1).mean(1))
        assert target_weight.grad is None
