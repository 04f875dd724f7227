"""Random numbers are keyed by (seed, image id, purpose) and by nothing else."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from xai_assert import randomness

IDS = ["a.png", "b.png", 7, "dir/c.png"]


def normal(ids, *, seed=0, purpose="noise"):
    return randomness.normal((3, 4, 5), seed=seed, image_ids=ids, purpose=purpose)


def uniform(ids, *, seed=0, purpose="noise"):
    return randomness.uniform((3, 4, 5), seed=seed, image_ids=ids, purpose=purpose)


def permutations(ids, *, seed=0, purpose="noise"):
    return randomness.permutations(60, seed=seed, image_ids=ids, purpose=purpose)


@pytest.mark.parametrize("draw", [normal, uniform, permutations])
class TestKeys:
    @pytest.mark.parametrize("split", [[0, 1, 2, 3, 4], [0, 1, 4], [0, 3, 4]])
    def test_any_split_into_batches_is_bitwise_equal(self, draw, split):
        parts = [draw(IDS[start:stop]) for start, stop in pairwise(split)]
        assert torch.equal(torch.cat(parts), draw(IDS))

    def test_any_order_and_subset_is_bitwise_equal(self, draw):
        order = [2, 0, 3]
        assert torch.equal(draw([IDS[i] for i in order]), draw(IDS)[order])

    def test_images_differ(self, draw):
        fields = draw(IDS)
        assert not any(torch.equal(fields[i], fields[j]) for i in range(4) for j in range(i))

    def test_seeds_differ(self, draw):
        assert not torch.equal(draw(IDS, seed=0), draw(IDS, seed=1))

    def test_purposes_differ(self, draw):
        assert not torch.equal(draw(IDS, purpose="noise"), draw(IDS, purpose="ties"))

    def test_the_key_is_not_a_mere_concatenation(self, draw):
        assert not torch.equal(draw(["2a"], seed=1), draw(["a"], seed=12))

    def test_global_states_are_neither_read_nor_written(self, draw):
        def states():
            return torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

        before, first = states(), draw(IDS)
        assert states() == before
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(99)
            assert torch.equal(draw(IDS), first)


class TestGolden:
    """Hard numbers: scores in people's records stand on this stream, so a change of it must be noticed."""

    def test_normal(self):
        field = randomness.normal((3,), seed=0, image_ids=["a.png"], purpose="gaussian_noise")
        assert field.dtype == torch.float32
        # equal to the last bit but one: libm's exp and log differ there between platforms
        expected = torch.tensor([[-1.3117512464523315, 2.283282518386841, 0.7936021685600281]])
        torch.testing.assert_close(field, expected, rtol=3e-7, atol=0)

    def test_a_later_value_of_another_key(self):
        field = randomness.normal((1000,), seed=7, image_ids=[3], purpose="gaussian_noise")
        expected = torch.tensor([-0.10138021409511566, 1.5777909755706787, 0.061838675290346146])
        torch.testing.assert_close(field[0, -3:], expected, rtol=3e-7, atol=0)

    def test_uniform(self):
        field = randomness.uniform((3,), seed=0, image_ids=["a.png"], purpose="random control")
        assert field.tolist() == [[0.712766170501709, 0.49426090717315674, 0.3276355266571045]]

    def test_permutation(self):
        order = randomness.permutations(8, seed=0, image_ids=["a.png"], purpose="ties")
        assert order.tolist() == [[1, 0, 5, 7, 3, 2, 4, 6]]


class TestDistributions:
    """100 images of 1000 values; each bound is 5 standard errors of what it bounds."""

    ids = range(100)

    def test_normal(self):
        field = randomness.normal((1000,), seed=0, image_ids=self.ids, purpose="noise")
        assert abs(field.mean()) < 5 / 1e5**0.5
        assert abs(field.std() - 1) < 5 / 2e5**0.5

    def test_uniform(self):
        field = randomness.uniform((1000,), seed=0, image_ids=self.ids, purpose="noise")
        assert 0 <= field.min() <= field.max() < 1
        assert abs(field.mean() - 0.5) < 5 * (1 / 12) ** 0.5 / 1e5**0.5

    def test_images_are_independent(self):
        field = randomness.normal((1000,), seed=0, image_ids=self.ids, purpose="noise")
        correlation = (field[:-1] * field[1:]).mean(1)
        assert correlation.abs().max() < 5 / 1000**0.5

    def test_every_permutation_holds_everything_once(self):
        orders = randomness.permutations(50, seed=0, image_ids=self.ids, purpose="ties")
        assert torch.equal(orders.sort(1).values, torch.arange(50).expand(100, 50))
