"""Depth: how an output is read, what is explained, and how far apart two predictions are."""

import math

import pytest
import torch
from known_models import Pixelwise, draw

import xai_assert as xa
from xai_assert.tasks import (
    Depth,
    as_task,
    depth_in_box,
    depth_in_mask,
    depth_mean,
    depth_quantile,
    log_depth,
)

DEPTH = Depth()


class TestRead:
    @pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 4), (1, 1, 1, 1)])
    def test_both_shapes_are_read_as_maps(self, shape):
        output = draw(*shape)
        assert torch.equal(DEPTH.read(output), output.reshape(shape[0], *shape[-2:]))

    @pytest.mark.parametrize("shape", [(2,), (2, 5), (2, 3, 4, 5), (2, 1, 3, 4, 5)])
    def test_other_shapes_are_refused_with_the_remedy(self, shape):
        with pytest.raises(xa.ModelOutputError, match=r"must return .B, 1, H, W. or .B, H, W., not") as error:
            DEPTH.read(torch.zeros(shape))
        assert str(shape) in str(error.value)
        assert "output=" in str(error.value)

    @pytest.mark.parametrize(
        ("given", "read"),
        [
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
            (torch.int32, torch.float32),
        ],
    )
    def test_errors_are_never_taken_in_half_precision(self, given, read):
        assert DEPTH.read(torch.ones(1, 2, 2, dtype=given)).dtype == read


class TestErrors:
    def test_the_error_is_the_rmse(self):
        one, two = torch.zeros(2, 1, 2), torch.tensor([[[7.0, -1.0]], [[0.0, 0.0]]])
        assert DEPTH.error(one, two).tolist() == [5.0, 0.0]

    def test_the_error_is_symmetric_and_never_clipped(self):
        one, two = draw(3, 4, 5), 1e6 * draw(3, 4, 5, seed=1)
        error = DEPTH.error(one, two)
        assert torch.equal(error, DEPTH.error(two, one))
        assert (error > 1e5).all()

    def test_truth_is_masked_where_it_is_zero_or_not_finite(self):
        prediction = torch.tensor([[[1.0, 50.0, 50.0, 50.0, 50.0, 7.0]]])
        truth = torch.tensor([[[3.0, 0.0, math.nan, math.inf, -math.inf, 3.0]]])
        assert DEPTH.loss(prediction, truth).tolist() == [10.0]  # (2^2 + 4^2) / 2
        assert DEPTH.truth_error(prediction, truth).item() == pytest.approx(math.sqrt(10))  # float32's sqrt

    def test_without_missing_truth_it_is_the_error(self):
        prediction, truth = draw(3, 4, 5), draw(3, 4, 5, seed=1)
        assert torch.equal(DEPTH.truth_error(prediction, truth), DEPTH.error(prediction, truth))

    def test_the_gradient_of_the_loss_is_finite_also_at_the_truth_and_where_it_is_unknown(self):
        truth = torch.tensor([[[1.0, 2.0, math.nan, 0.0]]])
        prediction = torch.tensor([[[1.0, 4.0, 9.0, 9.0]]], requires_grad=True)
        DEPTH.loss(prediction, truth).sum().backward()
        assert prediction.grad.tolist() == [[[0.0, 2.0, 0.0, 0.0]]]

    @pytest.mark.parametrize("shape", [(2, 3, 5), (2, 4, 4), (2, 1, 3, 4)])
    def test_truth_of_another_size_is_refused_with_the_remedy(self, shape):
        with pytest.raises(ValueError, match="metrics accept only the output's size: resize the depth in") as error:
            DEPTH.truth_error(torch.zeros(2, 3, 4), torch.ones(shape))
        assert f"ground_truth is {shape[1:]} a sample, the output (3, 4)" in str(error.value)

    def test_truth_without_a_known_pixel_is_refused(self):
        truth = torch.ones(2, 1, 2)
        truth[1] = torch.tensor([0.0, math.nan])
        with pytest.raises(ValueError, match="without a single known pixel"):
            DEPTH.truth_error(torch.zeros(2, 1, 2), truth)

    def test_magnitude_and_spread(self):
        prediction = torch.tensor([[[-3.0, 1.0]], [[2.0, 2.0]], [[0.0, 1.0]]])
        assert DEPTH.magnitude(prediction).tolist() == [3.0, 2.0, 1.0]
        assert DEPTH.spread(prediction).tolist() == [2.0, 0.0, 0.5]

    def test_the_spread_is_the_error_of_a_map_that_lost_its_structure(self):
        prediction = draw(3, 8, 8)
        flat = prediction.mean((1, 2), keepdim=True).expand_as(prediction)
        # both are one sum of 64 squares in float32, in different orders
        torch.testing.assert_close(DEPTH.spread(prediction), DEPTH.error(flat, prediction), rtol=1e-5, atol=0)


class TestTargets:
    maps = torch.arange(12.0).reshape(1, 3, 4) + torch.tensor([0.0, 100.0])[:, None, None]

    @pytest.mark.parametrize("add_channel", [False, True])
    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (depth_mean, 5.5),
            (depth_in_box(1, 0, 3, 2), (4 + 5 + 8 + 9) / 4),
            (depth_in_mask(torch.eye(3, 4, dtype=torch.bool)), (0 + 5 + 10) / 3),
            (depth_quantile(0.0), 0.0),
            (depth_quantile(0.5), 5.5),
            (depth_quantile(1.0), 11.0),
        ],
        ids=["mean", "box", "mask", "least", "median", "most"],
    )
    def test_known_values_for_both_output_shapes(self, target, expected, add_channel):
        output = self.maps[:, None] if add_channel else self.maps
        assert target(output).tolist() == [expected, expected + 100]

    def test_log_depth(self):
        output = torch.tensor([[[1.0, math.e**2]], [[0.0, -5.0]]])
        # float32 logarithms of numbers near 1 and 1e-6
        torch.testing.assert_close(log_depth(output), torch.tensor([1.0, math.log(1e-6)]), rtol=1e-6, atol=0)

    def test_the_default_is_the_mean_of_the_map(self):
        assert torch.equal(DEPTH.target(self.maps)(self.maps), depth_mean(self.maps))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_every_target_takes_every_precision(self, dtype):
        for target in (depth_mean, depth_in_box(0, 0, 1, 1), depth_quantile(0.5), log_depth):
            assert target(self.maps.to(dtype)).isfinite().all()

    def test_a_box_target_explains_the_box_alone(self):
        images = draw(2, 3, 4, 6)
        weights = draw(3, 4, 6, seed=1)
        found = xa.attribute(Pixelwise(weights), images, "saliency", target=depth_in_box(1, 2, 3, 4))
        expected = torch.zeros(3, 4, 6)
        expected[:, 1:3, 2:4] = weights[:, 1:3, 2:4] / 4
        assert torch.equal(found, expected.expand_as(found))

    def test_misuse_is_refused(self):
        with pytest.raises(ValueError, match=r"depth_in_box\(5, 0, 6, 1\) is empty in \(2, 3, 4\)"):
            depth_in_box(5, 0, 6, 1)(self.maps)
        with pytest.raises(ValueError, match="depth_in_mask: the mask selects no pixel"):
            depth_in_mask(torch.zeros(3, 4))
        with pytest.raises(ValueError, match=r"depth_in_mask: the mask is \(4, 3\), the output \(2, 3, 4\)"):
            depth_in_mask(torch.ones(4, 3))(self.maps)
        with pytest.raises(ValueError, match=r"depth_quantile: q must be between 0 and 1, not 50"):
            depth_quantile(50)


class TestNames:
    def test_by_name_as_it_is_or_none(self):
        assert isinstance(as_task("depth"), Depth)
        assert as_task(DEPTH) is DEPTH
        assert as_task(None) is None

    def test_an_unknown_task(self):
        with pytest.raises(xa.UnknownNameError, match=r"unknown task 'depht'; did you mean 'depth'\?"):
            as_task("depht")
