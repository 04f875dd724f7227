"""The maps that know nothing of the model."""

import pytest
import torch
import torch.nn.functional as F
from known_models import Blind, Counting, draw

import xai_assert as xa

IMAGES = draw(4, 3, 6, 8)


def control(name, images=IMAGES, **options):
    return xa.heatmap(Blind(), images, name, task="depth", **options)


class TestRandom:
    def test_it_is_uniform(self):
        found = control("random", torch.zeros(50, 3, 20, 20))
        assert found.shape == (50, 20, 20)
        assert 0 <= found.min() <= found.max() < 1
        assert abs(found.mean() - 0.5) < 5 * (1 / 12 / 20000) ** 0.5  # 5 standard errors

    def test_it_is_keyed_by_seed_and_image(self):
        found = control("random", image_ids="abcd")
        assert torch.equal(control("random", IMAGES[[2, 0]], image_ids="ca"), found[[2, 0]])
        assert torch.equal(control("random", image_ids="abcd", batch_size=1), found)
        assert not torch.equal(control("random", image_ids="abcd", seed=1), found)

    def test_each_draw_is_another_map(self):
        first = control("random", image_ids="abcd")
        assert torch.equal(control("random(draw=0)", image_ids="abcd"), first)
        third = control("random(draw=3)", image_ids="abcd")
        assert not torch.equal(third, first)
        assert torch.equal(control(xa.method("random", draw=3), image_ids="abcd"), third)
        assert xa.method("random", draw=3).passes(draw=3) == (0, 0)
        with pytest.raises(TypeError, match="draw must be a whole number"):
            control("random(draw=1.5)")

    def test_it_does_not_look_at_the_picture(self):
        assert torch.equal(control("random"), control("random", 7 * IMAGES))


class TestEdges:
    def test_a_step_is_seen_on_both_sides_and_nowhere_else(self):
        """Columns 0..3 are black, 4..7 are 1: |Sobel| = 4 in columns 3 and 4, also in the first and last row."""
        images = (torch.arange(8) >= 4).float().expand(1, 3, 5, 8)
        expected = torch.tensor([0.0, 0, 0, 4, 4, 0, 0, 0]).expand(1, 5, 8)
        assert torch.equal(control("edges", images), expected)
        assert torch.equal(control("edges", images.mT), expected.mT)

    def test_a_slope_is_the_same_everywhere_inside(self):
        """x + 2y: Sobel gives 8 and 16."""
        images = torch.arange(8.0) + 2 * torch.arange(6.0)[:, None]
        found = control("edges", images.expand(1, 3, 6, 8))[0, 1:-1, 1:-1]
        # a square root in float32
        torch.testing.assert_close(found, torch.full((4, 6), (8**2 + 16**2) ** 0.5), rtol=1e-6, atol=0)

    def test_against_the_definition_as_two_convolutions(self):
        kernel = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([-1.0, 0.0, 1.0])
        grey = F.pad(IMAGES.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across, down = (F.conv2d(grey, k[None, None])[:, 0] for k in (kernel, kernel.T))
        # sums of nine float32 numbers
        torch.testing.assert_close(control("edges"), torch.hypot(across, down), rtol=1e-5, atol=1e-6)

    def test_colours_that_cancel_have_no_edge(self):
        images = torch.zeros(1, 3, 5, 8)
        images[:, 0, :, 4:], images[:, 1, :, 4:] = 1, -1
        assert control("edges", images).max() == 0

    @pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
    def test_pictures_one_pixel_wide(self, size):
        assert control("edges", torch.ones(1, 3, *size)).tolist() == torch.zeros(1, *size).tolist()


@pytest.mark.parametrize("name", ["random", "edges"])
def test_a_control_asks_nothing_of_the_model(name):
    model = Counting(Blind())
    xa.attribute(model, IMAGES, name, target=lambda out: out)
    assert (model.forwards, model.backwards) == (0, 0)
    assert xa.method(name).passes() == (0, 0)
