"""Noisy linear imputation: what is taken away becomes the weighted mean of its neighbours."""

import numpy as np
import pytest
import torch
from known_models import draw

import xai_assert as xa
from xai_assert.perturbations.imputation import harmonic

CARD = xa.Card(name="net")


def imputed(images, mask, *, ids=None, seed=0, card=CARD, **parameters):
    """The images with the pixels of a mask (H, W) or (B, 1, H, W) perturbed."""
    made = xa.perturbation("noisy_linear", **parameters).on(
        images, card=card, image_ids=ids or list(range(len(images))), seed=seed, gradient=None
    )
    assert made.field is None
    return made(mask if mask.ndim == 4 else mask.expand(len(images), 1, *mask.shape))


def hole(size, *places):
    mask = torch.zeros(size, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


class TestOnPaper:
    def test_a_single_hole_is_the_weighted_mean_of_its_eight_neighbours(self):
        images = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 99.0, 6.0], [7.0, 8.0, 10.0]]]])
        found = imputed(images, hole((3, 3), (1, 1)), noise=0)
        assert found[0, 0, 1, 1] == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 10) / 12, rel=1e-6)

    def test_in_a_corner_the_weights_of_the_three_that_exist_are_made_to_add_up(self):
        images = torch.tensor([[[[99.0, 2.0], [4.0, 7.0]]]])
        found = imputed(images, hole((2, 2), (0, 0)), noise=0)
        assert found[0, 0, 0, 0] == pytest.approx((2 / 6 + 4 / 6 + 7 / 12) / (1 / 6 + 1 / 6 + 1 / 12), rel=1e-6)

    def test_at_an_edge_those_of_five(self):
        images = torch.tensor([[[[1.0, 99.0, 3.0], [4.0, 5.0, 7.0]]]])
        expected = ((1 + 3 + 5) / 6 + (4 + 7) / 12) / (3 / 6 + 2 / 12)
        assert imputed(images, hole((2, 3), (0, 1)), noise=0)[0, 0, 0, 1] == pytest.approx(expected, rel=1e-6)

    def test_in_a_row_two_neighbours_share_and_a_gap_is_a_straight_line(self):
        images = torch.tensor([[[[0.0, 99.0, 99.0, 99.0, 8.0]]]])
        found = imputed(images, hole((1, 5), (0, slice(1, 4))), noise=0)
        torch.testing.assert_close(found, torch.tensor([[[[0.0, 2.0, 4.0, 6.0, 8.0]]]]))

    def test_two_holes_side_by_side_solve_their_two_equations(self):
        """In a row of 1, a, b, 4 between rows of zeros: a = (1 + b) / 6 and b = (a + 4) / 6, so a = 2/7, b = 5/7."""
        images = torch.zeros(1, 1, 3, 4)
        images[0, 0, 1] = torch.tensor([1.0, 99.0, 99.0, 4.0])
        found = imputed(images, hole((3, 4), (1, 1), (1, 2)), noise=0)
        torch.testing.assert_close(found[0, 0, 1, 1:3], torch.tensor([2 / 7, 5 / 7]))

    @pytest.mark.parametrize("kind", ["box", "scattered"])
    def test_a_linear_ramp_is_reproduced_in_the_interior(self, kind):
        down, right = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
        images = torch.stack([2 * down - 3 * right, down + right + 1]).double()[None]
        mask = hole((12, 15), (slice(2, 9), slice(3, 13)))
        if kind == "scattered":
            mask &= draw(12, 15) > -0.5
        found = imputed(torch.where(mask, 99.0, images), mask, noise=0)
        torch.testing.assert_close(found, images, rtol=0, atol=1e-12)

    def test_every_channel_by_itself(self):
        images, mask = draw(2, 3, 6, 7), draw(6, 7, seed=1) > 0
        together = imputed(images, mask, noise=0)
        for channel in range(3):
            alone = imputed(images[:, [channel]], mask, noise=0)
            torch.testing.assert_close(together[:, [channel]], alone)

    def test_as_the_equations_solved_densely(self):
        """I x = W x + known, row by row renormalised, in plain matrix algebra."""
        picture = draw(2, 5, 6).double().numpy()
        removed = (draw(5, 6, seed=2) > -0.3).numpy()
        weights = np.zeros((30, 30))
        for i in range(30):
            for j in range(30):
                away = sorted((abs(i // 6 - j // 6), abs(i % 6 - j % 6)))
                weights[i, j] = {(0, 1): 1 / 6, (1, 1): 1 / 12}.get(tuple(away), 0)
        weights /= weights.sum(1, keepdims=True)
        unknown = removed.ravel()
        flat = picture.reshape(2, 30)
        system = np.eye(unknown.sum()) - weights[unknown][:, unknown]
        expected = np.linalg.solve(system, weights[unknown][:, ~unknown] @ flat[:, ~unknown].T).T
        np.testing.assert_allclose(harmonic(picture, removed), expected, rtol=0, atol=1e-12)


class TestEdges:
    def test_a_picture_of_which_nothing_is_left_becomes_its_mean_colour(self):
        images = draw(2, 3, 4, 5)
        found = imputed(images, torch.ones(4, 5, dtype=torch.bool), noise=0)
        torch.testing.assert_close(found, images.mean((2, 3), keepdim=True).expand_as(images))

    def test_one_pixel_that_is_left_is_everywhere(self):
        images = draw(1, 3, 4, 5)
        found = imputed(images, ~hole((4, 5), (2, 3)), noise=0)
        torch.testing.assert_close(found, images[:, :, 2:3, 3:4].expand_as(images))

    def test_nothing_taken_away_changes_nothing(self):
        images = draw(2, 3, 4, 5)
        assert torch.equal(imputed(images, torch.zeros(4, 5, dtype=torch.bool)), images)

    def test_what_was_taken_away_does_not_matter(self):
        images, mask = draw(2, 3, 8, 9), draw(8, 9, seed=3) > 0
        other = torch.where(mask, draw(2, 3, 8, 9, seed=4), images)
        assert torch.equal(imputed(images, mask), imputed(other, mask))

    def test_no_value_leaves_the_range_of_those_that_are_left(self):
        images, mask = draw(1, 1, 9, 9), draw(9, 9, seed=5) > -0.5
        found, left = imputed(images, mask, noise=0)[0, 0], images[0, 0][~mask]
        assert left.min() - 1e-6 <= found.min() <= found.max() <= left.max() + 1e-6

    def test_each_image_has_a_mask_of_its_own(self):
        images, masks = draw(3, 3, 6, 6), draw(3, 1, 6, 6, seed=6) > 0
        together = imputed(images, masks, ids=["a", "b", "c"])
        for i, name in enumerate("abc"):
            assert torch.equal(imputed(images[[i]], masks[[i]], ids=[name])[0], together[i])

    def test_the_images_are_not_changed(self):
        images, mask = draw(1, 3, 6, 6).double(), draw(6, 6, seed=7) > 0
        kept = images.clone()
        imputed(images, mask)
        assert torch.equal(images, kept)


class TestNoise:
    def noise(self, mask, **options):
        images = draw(2, 3, 40, 50)
        clean = imputed(images, mask, noise=0)
        return (imputed(images, mask, **options) - clean)[mask.expand(2, 3, 40, 50)].double()

    def test_it_is_small_and_in_imagenets_deviations(self):
        mask = draw(40, 50, seed=8) > 0
        for scale, card in ((1, CARD), (0.225, xa.Card(name="raw", mean=(0.0,) * 3, std=(1.0,) * 3))):
            found = self.noise(mask, noise=0.2, card=card) / scale
            # some 6000 normal numbers, 5 standard errors; channels of the raw card differ by 2 %
            assert found.std() == pytest.approx(0.2, rel=0.02 + 5 / (2 * len(found)) ** 0.5)

    def test_one_percent_by_default(self):
        mask = draw(40, 50, seed=8) > 0
        assert torch.equal(self.noise(mask), self.noise(mask, noise=0.01))

    def test_both_ends_see_the_same_field(self):
        """A pixel's noise does not depend on which others were taken away; on a flat picture it is all there is."""
        images, one, other = torch.zeros(1, 3, 6, 6), hole((6, 6), (slice(0, 4),)), hole((6, 6), (slice(2, 6),))
        both = one & other
        first, second = (imputed(images, mask)[0][:, both] for mask in (one, other))
        assert torch.equal(first, second)
        assert first.abs().min() > 0

    def test_it_turns_with_seed_and_image(self):
        images, mask = torch.zeros(1, 3, 6, 6), hole((6, 6), (slice(0, 4),))
        found = imputed(images, mask, ids=["a"])
        assert not torch.equal(imputed(images, mask, ids=["a"], seed=1), found)
        assert not torch.equal(imputed(images, mask, ids=["b"]), found)

    @pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), "much", None])
    def test_bad_ones_are_refused(self, noise):
        with pytest.raises(ValueError, match=f"noisy_linear: noise must be 0 or a positive number, not {noise!r}"):
            imputed(torch.zeros(1, 3, 4, 4), hole((4, 4), (0, 0)), noise=noise)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_fidelity_of_the_truth_is_one_and_that_of_its_inverse_minus_one(sign):
    model = xa.known_models.KnownModel("corner", 0)  # it sees a quarter of the pixels
    truth = sign * (model.relevance((8, 8)) + torch.linspace(0, 0.1, 64).reshape(8, 8))  # without ties

    def explain(model, images, target):
        return truth.expand(len(images), -1, -1)

    score = xa.attribution_fidelity(
        model.subject((8, 8)),
        xa.method(explain, signed="as_is"),
        draw(4, 3, 8, 8),
        perturbation="noisy_linear",
        fraction=0.25,
    )
    assert score.values.tolist() == [sign] * 4
