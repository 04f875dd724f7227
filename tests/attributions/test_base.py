"""How methods are named, checked and reduced to heatmaps; and what a user's own one may do."""

import pytest
import torch
from known_models import Pixelwise, draw

import xai_assert as xa
from xai_assert import registry
from xai_assert.attributions import as_method, check_ranks
from xai_assert.subject import Subject

IDS = ["a.png", "b.png", "c.png", "d.png"]


def constant(shape, value=1.0):
    """A user's method that returns this shape for two images."""
    return lambda model, images, target: torch.full(shape, value)


def explain(method):
    return xa.heatmap(Pixelwise(draw(3, 4, 6)), draw(2, 3, 4, 6), method, task="depth")


class TestUsersMethods:
    def test_a_callable_is_given_the_model_the_images_and_the_target(self):
        seen = {}

        def mine(model, images, target):
            seen.update(model=model, images=images, target=target(model(images)))
            return images

        weights, images = draw(3, 4, 6), draw(2, 3, 4, 6, seed=1)
        xa.attribute(Pixelwise(weights), images, mine, task="depth")
        assert isinstance(seen["model"], Subject)
        assert torch.equal(seen["images"], images)
        assert seen["target"].shape == (2,)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_it_may_take_gradients_in_whatever_mode_the_caller_is(self, mode):
        def mine(model, images, target):
            images.requires_grad_(True)
            return torch.autograd.grad(target(model(images)).sum(), images)[0]

        model, images = Pixelwise(draw(3, 4, 6)), draw(2, 3, 4, 6)
        with mode():
            found = xa.attribute(model, images, mine, task="depth")
        # one division by HW = 24
        torch.testing.assert_close(found, (model.weights / 24).expand_as(found), rtol=1e-6, atol=0)

    def test_it_may_ask_for_ids_and_seed(self):
        def mine(model, images, target, *, image_ids, seed):
            return torch.full_like(images, seed) * len(image_ids)

        found = xa.attribute(Pixelwise(draw(3, 4, 6)), draw(2, 3, 4, 6), mine, task="depth", seed=7)
        assert (found == 14).all()

    def test_its_parameters_are_passed_and_written(self):
        method = xa.method(lambda model, images, target, power=1: images**power, power=2)
        assert str(method) == "<lambda>(power=2)"
        assert explain(method).shape == (2, 4, 6)

    @pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 1, 4, 6), (2, 4, 6)])
    def test_three_shapes_are_maps(self, shape):
        assert explain(constant(shape)).shape == (2, 4, 6)

    @pytest.mark.parametrize("shape", [(2, 3, 6, 4), (2, 2, 4, 6), (1, 4, 6), (4, 6), (2, 3), (2, 1, 1, 4, 6)])
    def test_a_wrong_shape_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"for images \(2, 3, 4, 6\); an attribution is \(B, C, H, W\)") as error:
            explain(constant(shape))
        assert f"method <lambda> returned {shape}" in str(error.value)

    @pytest.mark.parametrize("what", [None, [[1.0]], 3.0])
    def test_what_is_no_tensor_is_refused(self, what):
        with pytest.raises(TypeError, match=f"method <lambda> returned a {type(what).__name__}, not a tensor"):
            explain(lambda model, images, target: what)

    @pytest.mark.parametrize("method", [None, 3, ["saliency"]])
    def test_what_is_no_method_is_refused(self, method):
        with pytest.raises(TypeError, match=r"method must be a name, an xa.method.* or a callable, not"):
            explain(method)

    def test_an_unknown_name(self):
        with pytest.raises(xa.UnknownNameError, match="unknown method 'salincy'; did you mean 'saliency'"):
            explain("salincy")


class TestReduction:
    """Two pixels, three channels; by hand."""

    attribution = torch.tensor([[[[1.0, -4.0]], [[-3.0, 0.5]], [[1.0, 0.5]]]])

    def heatmap(self, **options):
        with registry.isolated():
            xa.register_method("mine", **options)(lambda model, images, target: images)
            return xa.method("mine").heatmap(self.attribution).tolist()

    def test_max_abs(self):
        assert self.heatmap(reduction="max_abs") == [[[3.0, 4.0]]]

    def test_abs_sum(self):
        assert self.heatmap() == self.heatmap(signed="abs") == [[[1.0, 3.0]]]

    def test_the_sum_as_it_is(self):
        assert self.heatmap(signed="as_is") == [[[-1.0, -3.0]]]

    def test_half_precision_is_summed_in_full(self):
        attribution = torch.tensor([256.0, 1.0, 0.0], dtype=torch.bfloat16).reshape(1, 3, 1, 1)
        assert as_method("integrated_gradients").heatmap(attribution).item() == 257  # 8 bits know no 257


class TestSigns:
    """A map (B, H, W) with negative values: what they mean must be said."""

    map = torch.tensor([[[1.0, -4.0], [0.0, 2.0]]])

    def heatmap(self, **options):
        return xa.method(lambda model, images, target: images, **options).heatmap(self.map).tolist()

    def test_without_a_word_it_is_refused_with_both_remedies(self):
        with pytest.raises(ValueError, match=r"map .B, H, W. with negative values.*signed='abs'.*or signed='as_is'"):
            self.heatmap()

    def test_abs(self):
        assert self.heatmap(signed="abs") == [[[1.0, 4.0], [0.0, 2.0]]]

    def test_as_is(self):
        assert self.heatmap(signed="as_is") == self.map.tolist()

    def test_the_word_stays_when_parameters_are_added(self):
        assert xa.method(xa.method(lambda m, x, t, k=1: x, signed="abs"), k=2).signed == "abs"

    @pytest.mark.parametrize("signed", ["absolute", True, 0])
    def test_another_word(self, signed):
        with pytest.raises(ValueError, match=f"signed must be 'as_is' or 'abs', not {signed!r}"):
            self.heatmap(signed=signed)


class TestRanks:
    """A heatmap that ranks no pixel before another is refused, with the images it is of."""

    good = draw(4, 2, 3).abs()

    @pytest.mark.parametrize(
        ("bad", "what"),
        [(0.0, "constant"), (5.0, "constant"), (float("nan"), "not finite"), (float("inf"), "not finite")],
    )
    def test_wholly_bad_maps(self, bad, what):
        heatmap = self.good.clone()
        heatmap[1], heatmap[3] = bad, bad
        with pytest.raises(xa.DegenerateHeatmapError, match=f"of mine is {what}.* 2 of 4 images .b.png, d.png."):
            check_ranks(heatmap, IDS, "mine")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_one_bad_value(self, bad):
        heatmap = self.good.clone()
        heatmap[2, 1, 1] = bad
        with pytest.raises(xa.DegenerateHeatmapError, match=r"not finite .* 1 of 4 images .c.png."):
            check_ranks(heatmap, IDS, "mine")

    def test_one_pixel_that_differs_is_a_ranking(self):
        heatmap = torch.zeros(1, 2, 3)
        heatmap[0, 0, 0] = 1e-30
        check_ranks(heatmap, ["a"], "mine")


class TestKeys:
    def test_methods_that_would_return_the_same_share_a_key(self):
        assert as_method("saliency").key == xa.method("saliency").key
        assert xa.method("integrated_gradients", steps=5).key == as_method("integrated_gradients(steps=5)").key

    def test_others_do_not(self):
        zero, black = torch.zeros(()), "black"
        keys = {
            as_method(m).key
            for m in (
                "saliency",
                "integrated_gradients",
                xa.method("integrated_gradients", steps=5),
                xa.method("integrated_gradients", steps=5, baseline=black),
                xa.method("integrated_gradients", steps=5, baseline=zero),
                xa.method("integrated_gradients", steps=5, baseline=zero.clone()),
                xa.method("integrated_gradients", signed="as_is"),
                lambda m, x, t: x,
                lambda m, x, t: -x,
            )
        }
        assert len(keys) == 9
