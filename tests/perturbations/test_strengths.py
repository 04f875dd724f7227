"""What all perturbations share; fillers, noise and FGSM, seen as what they do to the picture behind the input."""

from dataclasses import replace

import pytest
import torch
from known_models import draw
from torch import Tensor

import xai_assert as xa
from xai_assert import registry
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card

PICTURES = draw(4, 3, 6, 8).sigmoid()  # RGB in (0, 1)
IDS = ["a.png", "b.png", "c.png", "d.png"]
CHECKERBOARD = (torch.arange(6)[:, None] + torch.arange(8) + 1).remainder(2).bool().expand(4, 1, 6, 8)
GRADIENT = draw(4, 3, 6, 8, seed=1)
# Through the scaling and back, in float32; "caffe" multiplies by 255, so a rounding of its input is 255 times smaller.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def as_input(pictures: Tensor, card: Card) -> Tensor:
    """RGB pictures in [0, 1] as the network of this card sees them."""
    ordered = pictures.flip(1) if card.layout == "BGR" else pictures
    return (ordered - channels(card.mean)) / channels(card.std)


def as_picture(images: Tensor, card: Card) -> Tensor:
    pictures = images * channels(card.std) + channels(card.mean)
    return pictures.flip(1) if card.layout == "BGR" else pictures


def channels(values) -> Tensor:
    return torch.tensor(values).reshape(3, 1, 1)


def perturbed(what, images, card, *, ids=IDS, seed=0, gradient=GRADIENT):
    made = xa.perturbation(what).on(images, card=card, image_ids=ids, seed=seed, gradient=lambda at=None: gradient)
    return (
        made.fill(CHECKERBOARD[: len(images), :, : images.shape[2], : images.shape[3]])
        if made.field is None
        else made.field
    )


def change(what, card, **options) -> Tensor:
    """What it adds to the RGB picture."""
    images = as_input(PICTURES, card)
    return as_picture(perturbed(what, images, card, **options), card) - PICTURES


class TestFillers:
    @pytest.mark.parametrize(("name", "colour"), [("black", (0.0, 0.0, 0.0)), ("mean", IMAGENET_MEAN)])
    def test_the_picture_has_one_colour_in_every_input_space(self, name, colour, card):
        found = as_picture(perturbed(name, as_input(PICTURES, card), card), card)
        torch.testing.assert_close(found, channels(colour).expand_as(PICTURES), **CLOSE)

    def test_zero_in_the_networks_input_is_grey_not_black(self):
        card = Card(name="net", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        images = as_input(PICTURES, card)
        assert perturbed("black", images, card).max() < -1
        assert perturbed("mean", images, card).abs().max() < 1e-6

    @pytest.mark.parametrize("name", ["black", "mean"])
    def test_grey_pictures(self, name):
        card = Card(name="grey", mean=(0.5,), std=(0.5,))
        colour = 0.0 if name == "black" else sum(IMAGENET_MEAN) / 3
        found = perturbed(name, draw(4, 1, 6, 8), card)
        torch.testing.assert_close(found, torch.full((4, 1, 6, 8), (colour - 0.5) / 0.5), **CLOSE)

    @pytest.mark.parametrize("name", ["black", "mean"])
    def test_a_bare_module_must_say_what_black_is(self, name):
        with pytest.raises(TypeError, match=r"Conv2d has no mean and std, so nobody knows what black is.*pass mean="):
            perturbed(name, PICTURES, Card(name="Conv2d"))


class TestNoise:
    @pytest.mark.parametrize("sigma", [0.1, 0.8])
    def test_its_strength_is_in_imagenets_deviations_of_the_picture(self, sigma, card):
        added = change(f"gaussian_noise(sigma={sigma})", card) / channels(IMAGENET_STD) / sigma
        # 576 standard normal numbers, 5 standard errors
        assert abs(added.std() - 1) < 5 / (2 * added.numel()) ** 0.5
        assert abs(added.mean()) < 5 / added.numel() ** 0.5

    def test_both_scalings_give_the_same_picture(self):
        normalised = Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        raw = Card(name="r", mean=(0.0,) * 3, std=(1.0,) * 3)
        torch.testing.assert_close(change("gaussian_noise", normalised), change("gaussian_noise", raw), **CLOSE)

    def test_a_card_without_std_is_taken_to_be_normalised(self):
        images = as_input(PICTURES, Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD))
        found = perturbed("gaussian_noise", images, Card(name="bare"))
        expected = perturbed("gaussian_noise", images, Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD))
        torch.testing.assert_close(found, expected, **CLOSE)

    def test_the_field_is_the_same_for_every_sigma(self, card):
        weak, strong = (change(f"gaussian_noise(sigma={s})", card) for s in (0.25, 1.0))
        torch.testing.assert_close(4 * weak, strong, rtol=1e-4, atol=1e-5)

    def test_it_is_keyed_by_seed_and_image(self, card):
        images = as_input(PICTURES, card)
        found = perturbed("gaussian_noise", images, card)
        order = [2, 0]
        assert torch.equal(perturbed("gaussian_noise", images[order], card, ids=["c.png", "a.png"]), found[order])
        assert not torch.equal(perturbed("gaussian_noise", images, card, seed=1), found)
        assert not torch.equal(perturbed("gaussian_noise", images, card, ids=["e", "f", "g", "h"]), found)

    def test_the_default_is_four_fifths(self, card):
        assert torch.equal(change("gaussian_noise", card), change("gaussian_noise(sigma=0.8)", card))


class TestFgsm:
    @pytest.mark.parametrize("epsilon", [0.5, 3.0])
    def test_it_moves_by_epsilon_along_the_sign_of_the_gradient(self, epsilon, card):
        found = change(f"fgsm(epsilon={epsilon})", card)
        sign = GRADIENT.flip(1).sign() if card.layout == "BGR" else GRADIENT.sign()
        torch.testing.assert_close(found, epsilon * channels(IMAGENET_STD) * sign, **CLOSE)

    def test_in_units_of_the_input_the_step_is_exact(self):
        """Normalised input: the unit is 1, so 3 means 3."""
        images = torch.zeros(4, 3, 6, 8)
        found = perturbed("fgsm", images, Card(name="n", mean=(0.0,) * 3, std=IMAGENET_STD))
        assert torch.equal(found, 3 * GRADIENT.sign())

    def test_a_value_without_gradient_stays(self, card):
        images, gradient = as_input(PICTURES, card), GRADIENT.clone()
        gradient[:, 1, :, ::2] = 0
        found = perturbed("fgsm", images, card, gradient=gradient)
        assert torch.equal(found == images, gradient == 0)

    def test_the_size_of_the_gradient_does_not_matter(self, card):
        images = as_input(PICTURES, card)
        found = perturbed("fgsm", images, card)
        assert torch.equal(perturbed("fgsm", images, card, gradient=1e-30 * GRADIENT), found)

    def test_the_gradient_is_asked_for_once(self):
        asked = []
        xa.perturbation("fgsm").on(
            PICTURES, card=Card(name="net"), image_ids=IDS, seed=0, gradient=lambda: asked.append(1) or GRADIENT
        )
        assert asked == [1]

    def test_it_says_that_it_is_an_attack_of_one_step(self):
        flags = {name: (xa.perturbation(name).gradients, xa.perturbation(name).single_step) for name in OURS}
        assert flags == {**dict.fromkeys(OURS, (0, False)), "fgsm": (1, True), "pgd": (10, False)}


OURS = [
    name
    for name in registry.perturbations.names()
    if registry.perturbations.get(name).function.__module__.startswith("xai_assert.")
]
STRONG = [("gaussian_noise", "sigma"), ("patch_noise", "sigma"), ("fgsm", "epsilon"), ("pgd", "epsilon")]


@pytest.mark.parametrize(("name", "strength"), STRONG)
class TestStrengths:
    @pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "much", None])
    def test_bad_ones_are_refused(self, name, strength, bad):
        with pytest.raises(ValueError, match=f"{name}: {strength} must be a positive number, not {bad!r}"):
            perturbed(xa.perturbation(name, **{strength: bad}), PICTURES, Card(name="net"))

    def test_clipping_keeps_the_picture_between_black_and_white(self, name, strength, card):
        images = as_input(PICTURES, card)
        free = as_picture(perturbed(f"{name}({strength}=4)", images, card), card)
        clipped = as_picture(perturbed(f"{name}({strength}=4, clip=True)", images, card), card)
        assert free.min() < -0.4 < 1.4 < free.max()
        torch.testing.assert_close(clipped, free.clamp(0, 1), **CLOSE)

    def test_clipping_needs_to_know_black(self, name, strength):
        with pytest.raises(TypeError, match="net has no mean and std, so nobody knows what black is"):
            perturbed(f"{name}(clip=True)", PICTURES, Card(name="net"))


@pytest.mark.parametrize("name", OURS)
class TestEveryPerturbation:
    def test_the_same_again_and_in_any_batch(self, name, card):
        images, order = as_input(PICTURES, card), [2, 0]
        found = perturbed(name, images, card)
        assert torch.isfinite(found).all()
        assert torch.equal(perturbed(name, images, card), found)
        some = perturbed(name, images[order], card, ids=["c.png", "a.png"], gradient=GRADIENT[order])
        assert torch.equal(some, found[order])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_a_gpu_it_is_the_same(self, name, card):
        images = as_input(PICTURES, card)
        made = xa.perturbation(name).on(
            images.cuda(), card=card, image_ids=IDS, seed=0, gradient=lambda at=None: GRADIENT.cuda()
        )
        found = made(CHECKERBOARD.cuda())
        assert found.is_cuda
        expected = torch.where(CHECKERBOARD, perturbed(name, images, card), images)
        # what is drawn or solved is done on the CPU; a GPU may fuse the multiply and the add that follow
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))

    def test_it_does_something_to_every_picture(self, name, card):
        images = as_input(PICTURES, card)
        assert (perturbed(name, images, card) != images).flatten(1).any(1).all()

    def test_the_images_are_not_changed(self, name, card):
        images = as_input(PICTURES, card)
        kept = images.clone()
        perturbed(name, images, card)
        assert torch.equal(images, kept)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_the_type_stays(self, name, dtype, card):
        images = as_input(PICTURES, card)
        found = perturbed(name, images.to(dtype), card, gradient=GRADIENT.to(dtype))
        assert found.dtype == dtype
        # half precision has 8 bits: a rounding of input, change and sum of up to 2^-8 each
        largest = float(perturbed(name, images, card).abs().max())
        torch.testing.assert_close(found.float(), perturbed(name, images, card), rtol=0, atol=3 * 2**-8 * largest)

    def test_images_of_a_graph_leave_it(self, name, card):
        images = as_input(PICTURES, card).requires_grad_(True)
        assert not perturbed(name, images, card).requires_grad

    @pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
    def test_pictures_one_pixel_wide(self, name, size):
        images = draw(2, 3, *size)
        card = Card(name="n", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        assert perturbed(name, images, card, ids=["a", "b"], gradient=images).shape == images.shape

    def test_the_layout_in_memory_does_not_matter(self, name, card):
        images = as_input(PICTURES, card)
        found = perturbed(name, images.to(memory_format=torch.channels_last), card)
        assert torch.equal(found, perturbed(name, images, card))

    def test_the_name_of_the_card_does_not_matter(self, name, card):
        images = as_input(PICTURES, card)
        assert torch.equal(perturbed(name, images, replace(card, name="other")), perturbed(name, images, card))
