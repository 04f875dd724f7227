"""How perturbations are named, and what a user's own one may do."""

import pytest
import torch
from known_models import draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.subject import Card

IMAGES = draw(2, 3, 4, 5)


@pytest.fixture
def register():
    """Register a function as "mine" and perturb IMAGES with it."""

    def run(function, **parameters):
        xa.register_perturbation("mine")(function)
        perturbed = xa.perturbation("mine", **parameters).on(
            IMAGES, card=Card(name="net"), image_ids=["a", "b"], seed=3, gradient=lambda: IMAGES.sign()
        )
        return perturbed.field

    with registry.isolated():
        yield run


class TestUsersOwn:
    def test_it_is_given_what_it_declares(self, register):
        seen = {}

        def mine(images, *, card, image_ids, seed, gradient, scale=1.0):
            seen.update(card=card.name, image_ids=image_ids, seed=seed, gradient=gradient(), scale=scale)
            return images

        register(mine, scale=2.0)
        assert torch.equal(seen.pop("gradient"), IMAGES.sign())
        assert seen == {"card": "net", "image_ids": ["a", "b"], "seed": 3, "scale": 2.0}

    def test_it_may_declare_nothing(self, register):
        assert torch.equal(register(lambda images: -images), -IMAGES)

    def test_it_may_write_on_its_images(self, register):
        kept = IMAGES.clone()
        assert torch.equal(register(lambda images: images.mul_(2)), 2 * kept)
        assert torch.equal(IMAGES, kept)

    def test_another_precision_is_brought_back(self, register):
        assert register(lambda images: images.double()).dtype == torch.float32

    @pytest.mark.parametrize(
        ("function", "got"),
        [
            (lambda images: images[:, :1], r"\(2, 1, 4, 5\)"),
            (lambda images: images[0], r"\(3, 4, 5\)"),
            (lambda images: None, "NoneType"),
            (lambda images: images.numpy(), "ndarray"),
        ],
    )
    def test_something_else_is_refused(self, register, function, got):
        with pytest.raises(ValueError, match=rf"perturbation mine returned {got} for images \(2, 3, 4, 5\)"):
            register(function)


class TestNames:
    def test_words_and_keywords_make_the_same(self):
        one, two = xa.perturbation("gaussian_noise(sigma=0.5)"), xa.perturbation("gaussian_noise", sigma=0.5)
        assert str(one) == str(two) == "gaussian_noise(sigma=0.5)"
        assert one.key == two.key
        assert one.key != xa.perturbation("gaussian_noise").key

    def test_an_unknown_name_gets_the_nearest(self):
        with pytest.raises(xa.UnknownNameError, match="perturbation 'gausian_noise'; did you mean 'gaussian_noise'"):
            xa.perturbation("gausian_noise")

    def test_an_unknown_parameter_gets_those_that_exist(self):
        with pytest.raises(TypeError, match="'gaussian_noise' takes no parameter 'epsilon'; it takes: clip, sigma"):
            xa.perturbation("gaussian_noise(epsilon=3)")
