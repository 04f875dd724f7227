"""Misuse is refused with the argument, what came, and the remedy."""

import numpy as np
import pytest
import torch
from known_models import Pixelwise, ReturnsNaN, ReturnsTuple, WrongBatch, draw
from torch import nn

import xai_assert as xa

IMAGES = draw(3, 3, 8, 8)
STATISTICS = {"mean": [0.5] * 3, "std": [0.5] * 3}


def pixelwise():
    return Pixelwise(draw(3, 8, 8, seed=1))


def fidelity(model=None, method="saliency", images=IMAGES, **options):
    return xa.attribution_fidelity(model or pixelwise(), method, images, **{"task": "depth", **options})


def returning(heatmap):
    return xa.method(lambda model, images, target: heatmap)


class TestImages:
    def test_none(self):
        with pytest.raises(TypeError, match=r"images: give a tensor \(B, C, H, W\) or a data set"):
            fidelity(images=None)

    @pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (1, 3, 3, 8, 8)], ids=str)
    def test_rank(self, shape):
        words = rf"images must be \(B, C, H, W\), not \({', '.join(map(str, shape))}\); add or drop a dimension"
        with pytest.raises(ValueError, match=words):
            fidelity(images=torch.zeros(shape))

    def test_channels_against_the_card(self):
        with pytest.raises(ValueError, match=r"images have 4 channels, the model's card says 3; shape \(2, 4, 8, 8\)"):
            fidelity(images=draw(2, 4, 8, 8), **STATISTICS)

    def test_channels_against_a_model_without_a_card(self):
        words = (
            r"the model Conv2d failed on images \(2, 4, 8, 8\) of torch.float32: .*expected input.*to have 3 channels"
        )
        with pytest.raises(xa.ModelOutputError, match=words):
            fidelity(nn.Conv2d(3, 1, 3), images=draw(2, 4, 8, 8))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
    def test_dtype(self, dtype):
        words = f"images must be floating point and preprocessed, not {dtype}; divide by 255, normalise"
        with pytest.raises(TypeError, match=words):
            fidelity(images=torch.ones(2, 3, 8, 8, dtype=dtype))

    def test_dtype_that_the_model_does_not_take(self):
        with pytest.raises(xa.ModelOutputError, match=r"the model Conv2d failed on images .* of torch.float64: "):
            fidelity(nn.Conv2d(3, 1, 3), images=IMAGES.double())

    def test_empty(self):
        with pytest.raises(ValueError, match="images: the batch is empty"):
            fidelity(images=torch.zeros(0, 3, 8, 8))

    def test_empty_data_set(self):
        with pytest.raises(ValueError, match="images: the batch is empty"):
            fidelity(images=[])

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_not_finite(self, bad):
        images = IMAGES.clone()
        images[1, 0, 2, 3] = bad
        with pytest.raises(ValueError, match="images must be finite; NaN or infinity in: b"):
            fidelity(images=images, image_ids=["a", "b", "c"])

    def test_an_array(self):
        with pytest.raises(TypeError, match=r"images\[0\] must be a Sample, an image or .*, not ndarray"):
            fidelity(images=np.zeros((2, 3, 8, 8), dtype=np.float32))

    def test_neither_tensor_nor_data_set(self):
        with pytest.raises(
            TypeError, match=r"images must be a tensor \(B, C, H, W\) or a data set with .* .dataset.*, not float"
        ):
            fidelity(images=1.0)

    def test_a_data_set_of_several_sizes(self):
        words = r"images of a data set must have one size, not \[\(3, 8, 8\), \(3, 8, 9\)\]; resize them there"
        with pytest.raises(ValueError, match=words):
            fidelity(images=[draw(3, 8, 8), draw(3, 8, 9)])

    def test_a_data_set_of_something_else(self):
        words = r"images\[0\] must be a Sample, an image or \(image, ground truth\), not str"
        with pytest.raises(TypeError, match=words):
            fidelity(images=["a.png", "b.png"])

    def test_other_number_of_ids(self):
        with pytest.raises(ValueError, match="image_ids names 2 images, images holds 3"):
            fidelity(image_ids=["a", "b"])

    def test_ids_that_repeat(self):
        with pytest.raises(ValueError, match="image_ids must differ from each other"):
            fidelity(image_ids=["a", "b", "a"])

    def test_ids_that_are_written_alike(self):
        with pytest.raises(ValueError, match="image_ids must differ from each other"):
            fidelity(image_ids=["1", 1, 2])

    @pytest.mark.parametrize("size", [0, -1, 2.0, "many", True, None])
    def test_batch_size(self, size):
        words = f"batch_size must be 'auto' or a whole number of at least 1, not {size!r}"
        with pytest.raises(ValueError, match=words):
            fidelity(batch_size=size)


class TestModel:
    def test_that_is_no_module(self):
        with pytest.raises(TypeError, match=r"subject must be a Subject \(.*\) or a torch.nn.Module, not <function"):
            fidelity(lambda images: images)

    def test_without_a_task(self):
        words = "Pixelwise does not say what its output .* means.*pass task='depth', or make a subject with xa.describe"
        with pytest.raises(TypeError, match=words):
            fidelity(task=None)

    def test_unknown_task(self):
        with pytest.raises(ValueError, match="unknown task 'dept'; did you mean 'depth'"):
            fidelity(task="dept")

    def test_nan(self):
        with pytest.raises(xa.ModelOutputError, match=r"ReturnsNaN returned NaN or infinity for images 0, 1, 2$"):
            fidelity(ReturnsNaN())

    def test_tuple(self):
        words = r"ReturnsTuple returned a tuple, not a tensor; give xa.describe an output= that picks the prediction"
        with pytest.raises(xa.ModelOutputError, match=words):
            fidelity(ReturnsTuple())

    def test_and_its_remedy(self):
        subject = xa.describe(ReturnsTuple(), name="tuple", task="depth", output=lambda raw: raw[0])
        assert len(fidelity(subject, "edges", task=None)) == 3

    def test_other_batch_size(self):
        words = r"WrongBatch returned \(6, 1, 8, 8\) for 3 images; the first dimension of the output must be the batch"
        with pytest.raises(xa.ModelOutputError, match=words):
            fidelity(WrongBatch())

    def test_output_that_is_no_depth(self):
        words = r"a depth model must return \(B, 1, H, W\) or \(B, H, W\), not \(3, 5, 6, 6\)"
        with pytest.raises(xa.ModelOutputError, match=words):
            fidelity(nn.Conv2d(3, 5, 3))

    def test_target_that_is_not_one_number_an_image(self):
        words = r"the target must be one number an image, a tensor \(3,\), not \(\); flatten and average what remains"
        with pytest.raises(xa.ModelOutputError, match=words):
            fidelity(target=torch.mean)


class TestHeatmaps:
    def test_constant(self):
        words = r"the heatmap of <lambda> is constant for 1 of 3 images \(1\); it ranks no pixel"
        maps = draw(3, 8, 8).exp()
        maps[1] = 2
        with pytest.raises(xa.DegenerateHeatmapError, match=words):
            fidelity(method=returning(maps))

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_not_finite(self, bad):
        maps = draw(3, 8, 8).exp()
        maps[2, 0, 0] = bad
        words = r"the heatmap of <lambda> is not finite \(NaN or infinity\) for 1 of 3 images \(c\)"
        with pytest.raises(xa.DegenerateHeatmapError, match=words):
            fidelity(method=returning(maps), image_ids=["a", "b", "c"])

    @pytest.mark.parametrize("shape", [(3, 4, 4), (3, 2, 8, 8), (2, 8, 8), (8, 8), (3, 3, 8, 9)], ids=str)
    def test_shape(self, shape):
        words = (
            rf"method <lambda> returned \({', '.join(map(str, shape))}\) for images \(3, 3, 8, 8\); "
            r"an attribution is \(B, C, H, W\) or \(B, H, W\), at the size of the images"
        )
        with pytest.raises(ValueError, match=words):
            fidelity(method=returning(draw(*shape)))

    def test_that_is_no_tensor(self):
        with pytest.raises(TypeError, match="method <lambda> returned a ndarray, not a tensor"):
            fidelity(method=returning(np.ones((3, 8, 8))))

    def test_negative_without_signed(self):
        words = r"returned a map \(B, H, W\) with negative values.*signed='abs'.*or signed='as_is'"
        with pytest.raises(ValueError, match=words):
            fidelity(method=returning(draw(3, 8, 8)))

    @pytest.mark.parametrize("signed", ["abs", "as_is"])
    def test_and_its_remedy(self, signed):
        method = xa.method(lambda model, images, target: draw(3, 8, 8), signed=signed)
        assert len(fidelity(method=method)) == 3

    def test_signed_otherwise(self):
        with pytest.raises(ValueError, match="signed must be 'as_is' or 'abs', not 'square'"):
            xa.method("saliency", signed="square")


class TestOptions:
    @pytest.mark.parametrize("fraction", [0, -0.1, 0.6, 1.0, float("nan")])
    def test_fraction_out_of_range(self, fraction):
        words = f"fraction must be above 0 and at most 0.5 .*, not {fraction}"
        with pytest.raises(ValueError, match=words):
            fidelity(fraction=fraction)

    def test_fraction_that_selects_no_pixel(self):
        # half a pixel of 64 is 0.0078125; to three digits, and not below it
        words = "fraction 0.001 of 8x8 pixels selects none; the smallest usable fraction is 0.00782"
        with pytest.raises(ValueError, match=words):
            fidelity(fraction=0.001)
        assert len(fidelity(fraction=0.00782)) == 3

    def test_fraction_that_makes_the_ends_overlap(self):
        with pytest.raises(ValueError, match=r"fraction 0\.5 of 3x3 pixels makes R and I overlap; use a smaller one"):
            fidelity(nn.Conv2d(3, 1, 1), "edges", draw(2, 3, 3, 3), fraction=0.5)

    @pytest.mark.parametrize("perturbation", ["black", "mean"])
    def test_colour_on_a_bare_module(self, perturbation):
        words = r"Pixelwise has no mean and std, so nobody knows what black is.*pass mean=..., std=.* or .*xa.describe"
        with pytest.raises(TypeError, match=words):
            fidelity(perturbation=perturbation)

    def test_black_baseline_on_a_bare_module(self):
        with pytest.raises(TypeError, match="Pixelwise has no mean and std, so nobody knows what black is"):
            fidelity(method="integrated_gradients")

    def test_unknown_method(self):
        with pytest.raises(ValueError, match=r"unknown method 'salience'; did you mean 'saliency'.*known: .*random"):
            fidelity(method="salience")

    def test_unknown_perturbation(self):
        with pytest.raises(ValueError, match="unknown perturbation 'gausian_noise'; did you mean 'gaussian_noise'"):
            fidelity(perturbation="gausian_noise")

    def test_unknown_parameter(self):
        words = r"perturbation 'gaussian_noise' takes no parameter 'sgima'; it takes: .*sigma"
        with pytest.raises(TypeError, match=words):
            fidelity(perturbation=xa.perturbation("gaussian_noise", sgima=1))

    @pytest.mark.parametrize("method", [None, 3, IMAGES], ids=["None", "3", "the images"])
    def test_method_of_another_type(self, method):
        words = rf"method must be a name, an xa.method\(...\) or a callable, not {type(method).__name__}"
        with pytest.raises(TypeError, match=words):
            fidelity(method=method)

    def test_perturbation_of_another_type(self):
        with pytest.raises(TypeError, match=r"perturbation must be a name or an xa.perturbation\(...\), not float"):
            fidelity(perturbation=0.8)

    def test_unknown_option(self):
        with pytest.raises(TypeError, match="unknown argument 'sed'; did you mean 'seed'"):
            fidelity(sed=1)

    def test_an_evaluation_and_options(self):
        ev = xa.Evaluation(pixelwise(), IMAGES, task="depth")
        with pytest.raises(TypeError, match="images, batch_size, seed: already fixed by the Evaluation; give it there"):
            xa.attribution_fidelity(ev, "saliency", IMAGES, seed=1, batch_size=2)
        with pytest.raises(TypeError, match=r"^task: already fixed by the Evaluation"):
            xa.faithfulness_estimate(ev, "saliency", task="depth")

    @pytest.mark.parametrize("groups", [1, 0, 2.0, "16", True])
    def test_groups(self, groups):
        with pytest.raises(ValueError, match=f"groups must be a whole number of at least 2, not {groups!r}"):
            xa.faithfulness_estimate(pixelwise(), "saliency", IMAGES, groups=groups, task="depth")

    def test_more_groups_than_pixels(self):
        with pytest.raises(ValueError, match="groups=65 is more than the 8x8 pixels of an image"):
            xa.faithfulness_estimate(pixelwise(), "saliency", IMAGES, groups=65, task="depth")

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="mode must be one of 'single', 'cumulative', not 'both'"):
            xa.faithfulness_estimate(pixelwise(), "saliency", IMAGES, mode="both", task="depth")

    def test_unknown_reference(self):
        with pytest.raises(ValueError, match="reference must be one of 'prediction', 'ground_truth', not 'truth'"):
            fidelity(reference="truth")


class TestGroundTruth:
    def test_missing(self):
        words = "reference='ground_truth' needs ground_truth=, or a data set that has it"
        with pytest.raises(ValueError, match=words):
            fidelity(reference="ground_truth")

    def test_of_another_size(self):
        words = (
            r"ground_truth is \(16, 16\) a sample, the output \(8, 8\); metrics accept only the output's size: "
            "resize the depth in the data set"
        )
        with pytest.raises(ValueError, match=words):
            fidelity(ground_truth=draw(3, 16, 16), reference="ground_truth")

    @pytest.mark.parametrize("shape", [(2, 8, 8), (8, 8), (3, 2, 8, 8)], ids=str)
    def test_of_another_shape(self, shape):
        words = rf"ground_truth must be \(B, H, W\), \(B, 1, H, W\) or.* B = 3, not \({', '.join(map(str, shape))}\)"
        with pytest.raises(ValueError, match=words):
            fidelity(ground_truth=draw(*shape))

    def test_of_another_type(self):
        with pytest.raises(TypeError, match=r"ground_truth must be a tensor \(B, H, W\), not ndarray"):
            fidelity(ground_truth=np.ones((3, 8, 8)))

    def test_without_a_known_pixel(self):
        truth = draw(3, 8, 8).exp()
        truth[1] = 0
        with pytest.raises(ValueError, match="ground_truth has a depth map without a single known pixel"):
            fidelity(ground_truth=truth, reference="ground_truth")

    def test_beside_a_data_set(self):
        words = "ground_truth= and image_ids= go with a tensor of images; a data set brings its own"
        with pytest.raises(TypeError, match=words):
            fidelity(images=list(IMAGES), ground_truth=draw(3, 8, 8))

    def test_of_some_images_only(self):
        data = [(IMAGES[0], draw(8, 8)), IMAGES[1]]
        with pytest.raises(ValueError, match="ground_truth: some images of the data set have it and others do not"):
            fidelity(images=data)
