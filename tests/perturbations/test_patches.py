"""Patches: pixels among their own, flat patches, and noise that is the same all over a patch."""

import pytest
import torch
from known_models import draw

import xai_assert as xa
from xai_assert.subject import IMAGENET_STD

# every pixel is another number, the same for both channels but for the sign
PICTURE = torch.arange(35.0).reshape(1, 1, 5, 7) * torch.tensor([1.0, -1.0])[:, None, None]
CARD = xa.Card(name="net")


def perturbed(what, images=PICTURE, *, ids=None, seed=0, card=CARD, **parameters):
    ids = ids or list(range(len(images)))
    return xa.perturbation(what, **parameters).on(images, card=card, image_ids=ids, seed=seed, gradient=None).field


class TestShuffle:
    def test_the_pixels_are_the_pictures_own(self):
        found = perturbed("shuffle")
        assert not torch.equal(found, PICTURE)
        assert torch.equal(found[0, 0].flatten().sort().values, PICTURE[0, 0].flatten())

    @pytest.mark.parametrize("name", ["shuffle", "patch_shuffle"])
    def test_all_channels_move_together_so_that_colours_stay(self, name):
        found = perturbed(name)
        assert torch.equal(found[:, 0], -found[:, 1])

    @pytest.mark.parametrize("name", ["shuffle", "patch_shuffle"])
    def test_it_turns_with_seed_and_image(self, name):
        found = perturbed(name, PICTURE.expand(2, -1, -1, -1))
        assert not torch.equal(found[0], found[1])
        assert not torch.equal(perturbed(name, seed=1)[0], found[0])
        assert torch.equal(perturbed(name, ids=[1])[0], found[1])

    def test_every_pixel_comes_to_every_place_equally_often(self):
        found = perturbed("shuffle", torch.arange(9.0).reshape(1, 1, 3, 3).expand(2000, -1, -1, -1))
        frequencies = torch.stack([(found == value).float().mean((0, 1)).flatten() for value in range(9)])
        deviation = (1 / 9 * 8 / 9 / 2000) ** 0.5
        assert (frequencies - 1 / 9).abs().max() < 5 * deviation


class TestPatchShuffle:
    def test_each_patch_keeps_its_pixels_also_the_smaller_ones_at_the_border(self):
        found = perturbed("patch_shuffle", size=3)
        assert not torch.equal(found, PICTURE)
        for rows in (slice(0, 3), slice(3, 5)):
            for columns in (slice(0, 3), slice(3, 6), slice(6, 7)):
                before, after = (p[0, 0, rows, columns].flatten().sort().values for p in (PICTURE, found))
                assert torch.equal(before, after)

    def test_patches_are_shuffled_apart(self):
        """Two patches with the same content do not come out alike."""
        found = perturbed("patch_shuffle", torch.arange(16.0).reshape(1, 1, 4, 4).repeat(1, 1, 1, 2), size=4)
        assert not torch.equal(found[..., :4], found[..., 4:])

    def test_a_patch_as_large_as_the_picture_is_a_shuffle(self):
        found = perturbed("patch_shuffle", size=7)
        assert torch.equal(found[0, 0].flatten().sort().values, PICTURE[0, 0].flatten())
        assert (found[0, 0].diff(dim=0) != 7).any()


class TestPatchMean:
    def test_a_patch_becomes_its_mean_also_the_smaller_ones_at_the_border(self):
        found = perturbed("patch_mean", size=3)[0, 0]
        for rows in (slice(0, 3), slice(3, 5)):
            for columns in (slice(0, 3), slice(3, 6), slice(6, 7)):
                patch = PICTURE[0, 0, rows, columns]
                # a mean of 9 in float64, rounded once
                torch.testing.assert_close(found[rows, columns], patch.mean().expand_as(patch), rtol=1e-6, atol=0)

    def test_one_patch_for_all_is_the_mean_colour(self):
        images = draw(2, 3, 6, 8)
        found = perturbed("patch_mean", images, size=8)
        torch.testing.assert_close(found, images.mean((2, 3), keepdim=True).expand_as(images))

    def test_again_it_changes_nothing(self):
        found = perturbed("patch_mean", draw(2, 3, 6, 9), size=4)
        torch.testing.assert_close(perturbed("patch_mean", found, size=4), found, rtol=1e-6, atol=1e-7)


class TestPatchNoise:
    def test_a_patch_has_one_value_a_channel_and_another_has_another(self):
        noise = perturbed("patch_noise", torch.zeros(1, 3, 5, 7), size=3)[0]
        values = set()
        for rows in (slice(0, 3), slice(3, 5)):
            for columns in (slice(0, 3), slice(3, 6), slice(6, 7)):
                patch = noise[:, rows, columns].flatten(1)
                assert torch.equal(patch, patch[:, :1].expand_as(patch))
                values |= set(patch[:, 0].tolist())
        assert len(values) == 3 * 6

    def test_its_strength_is_in_imagenets_deviations(self):
        raw = xa.Card(name="raw", mean=(0.0,) * 3, std=(1.0,) * 3)
        noise = perturbed("patch_noise", torch.zeros(8, 3, 64, 64), card=raw, size=4, sigma=0.5)[..., ::4, ::4]
        found = noise.permute(1, 0, 2, 3).flatten(1).std(1) / torch.tensor(IMAGENET_STD)
        # 2048 normal numbers a channel, 5 standard errors
        torch.testing.assert_close(found, torch.full((3,), 0.5), rtol=5 / (2 * 2048) ** 0.5, atol=0)

    def test_patches_of_one_pixel_are_gaussian_noise(self):
        found = perturbed("patch_noise", torch.zeros(1, 3, 40, 40), size=1)
        assert len(found.unique()) == 3 * 40 * 40


@pytest.mark.parametrize(("name", "least"), [("patch_shuffle", 2), ("patch_mean", 2), ("patch_noise", 1)])
class TestSizes:
    @pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
    def test_bad_ones_are_refused(self, name, least, size):
        with pytest.raises(ValueError, match=f"{name}: size must be a whole number of at least {least}, not {size!r}"):
            perturbed(name, size=size)

    def test_sixteen_pixels_by_default(self, name, least):
        images = draw(1, 3, 20, 36)
        assert torch.equal(perturbed(name, images), perturbed(name, images, size=16))


@pytest.mark.parametrize("name", ["patch_shuffle", "patch_mean"])
def test_patches_of_one_pixel_would_change_nothing_and_are_refused(name):
    with pytest.raises(ValueError, match="size must be a whole number of at least 2, not 1"):
        perturbed(name, size=1)
