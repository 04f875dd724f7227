"""Input x gradient and SmoothGrad: answers on paper, beside Captum's, keyed noise."""

import pytest
import torch
from captum.attr import InputXGradient
from known_models import Counting, Pixelwise, curved, draw
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert import randomness
from xai_assert.tasks import depth_mean

WEIGHTS = draw(3, 4, 6)
IMAGES = draw(3, 3, 4, 6, seed=1)


class Square(nn.Module):
    """The square of each value, summed over the channels, (B, 1, H, W): its gradient is 2x / HW."""

    def forward(self, images):
        return images.square().sum(1, keepdim=True)


class TestInputXGradient:
    def test_of_a_linear_network_it_is_weight_times_input(self):
        found = xa.attribute(Pixelwise(WEIGHTS), IMAGES, "input_x_gradient", task="depth")
        torch.testing.assert_close(found, WEIGHTS * IMAGES / 24, rtol=1e-6, atol=0)  # one division, in another order

    def test_the_values_add_up_to_the_target(self):
        model = Pixelwise(WEIGHTS)
        found = xa.attribute(model, IMAGES, "input_x_gradient", task="depth")
        torch.testing.assert_close(found.sum((1, 2, 3)), depth_mean(model(IMAGES)))

    def test_it_agrees_with_captum(self):
        model = curved()
        theirs = InputXGradient(lambda x: depth_mean(model(x))).attribute(IMAGES.clone().requires_grad_())
        found = xa.attribute(model, IMAGES, "input_x_gradient", task="depth", batch_size=3)
        torch.testing.assert_close(found, theirs.detach())


def smoothgrad(model, images, *, image_ids=None, seed=0, batch_size="auto", **parameters):
    method = xa.method("smoothgrad", **parameters)
    return xa.attribute(model, images, method, task="depth", image_ids=image_ids, seed=seed, batch_size=batch_size)


class TestSmoothGrad:
    def test_of_a_linear_network_it_is_the_gradient(self):
        found = smoothgrad(Pixelwise(WEIGHTS), IMAGES, draws=3)
        torch.testing.assert_close(found, (WEIGHTS / 24).expand_as(IMAGES), rtol=1e-6, atol=0)

    def test_of_a_square_it_is_the_mean_of_the_noisy_images(self):
        """The gradient is 2 (x + s e) / HW; s is a share of each image's own range, e is keyed by image and draw."""
        images, ids = IMAGES.double() * torch.tensor([1.0, 5.0, 0.1]).reshape(3, 1, 1, 1), ["a", "b", "c"]
        found = smoothgrad(Square(), images, image_ids=ids, draws=4, noise=0.2)
        for i, (image, name) in enumerate(zip(images, ids, strict=True)):
            fields = [
                randomness.normal((3, 4, 6), seed=0, image_ids=[name], purpose=f"smoothgrad {k}")[0] for k in range(4)
            ]
            noisy = image + 0.2 * (image.max() - image.min()) * torch.stack(fields).double().mean(0)
            torch.testing.assert_close(found[i], 2 * noisy / 24)

    def test_without_noise_it_is_the_gradient(self):
        found = smoothgrad(curved(), IMAGES, draws=2, noise=0)
        torch.testing.assert_close(found, xa.attribute(curved(), IMAGES, "saliency", task="depth"))

    def test_a_kink_is_smoothed_to_its_share(self):
        """Of relu(x) at 0.1 under noise of 0.2: P(x + e > 0) = Phi(1/2) = .6915; plainly the gradient is 1."""

        class Relu(nn.Module):
            def forward(self, images):
                return images.relu()

        image = torch.full((1, 1, 1, 4), 0.1)
        image[..., 1:] = torch.tensor([0.1, 0.1, 1.1])  # the range is 1
        found = 4 * smoothgrad(Relu(), image, draws=400, noise=0.2)[0, 0, 0, :3].mean()
        assert float(found) == pytest.approx(0.6915, abs=4 * 0.4619 / (3 * 400) ** 0.5)  # 4 standard errors
        assert 4 * xa.attribute(Relu(), image, "saliency", task="depth")[0, 0, 0, 0] == 1

    def test_it_follows_from_the_seed_and_the_images_name(self):
        first, again = (smoothgrad(curved(), IMAGES, image_ids=["a", "b", "c"], draws=2) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, smoothgrad(curved(), IMAGES, image_ids=["a", "b", "c"], draws=2, seed=1))
        other = smoothgrad(curved(), IMAGES[:1], image_ids=["d"], draws=2)
        assert not torch.equal(first[:1], other)
        alone = smoothgrad(curved(), IMAGES[1:2], image_ids=["b"], draws=2)
        torch.testing.assert_close(first[1:2], alone)

    def test_one_gradient_pass_a_draw_and_never_more_than_the_batch(self):
        model = Counting(curved())
        with untouched(model, IMAGES):
            smoothgrad(model, IMAGES, draws=5, batch_size=3)
        assert (model.forwards, model.backwards, model.largest) == (15, 15, 3)
        assert xa.method("smoothgrad", draws=5).declared_passes == (0, 5)

    @pytest.mark.parametrize("draws", [0, -1, 2.0, True, "many"])
    def test_draws_that_are_none(self, draws):
        with pytest.raises(ValueError, match="smoothgrad: draws must be a whole number of at least 1, not"):
            smoothgrad(curved(), IMAGES, draws=draws)

    @pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), True, "much"])
    def test_noise_that_is_none(self, noise):
        with pytest.raises(ValueError, match="smoothgrad: noise must be a finite number of at least 0, not"):
            smoothgrad(curved(), IMAGES, noise=noise)
