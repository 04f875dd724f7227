"""Images of any form, read a batch at a time, and passes counted."""

import numpy as np
import pytest
import torch
from known_models import Counting, Pixelwise, ReturnsTuple, draw
from torch import nn

import xai_assert as xa
from xai_assert.batching import ImageSource, Passes, counted, finite_rows, without_gradient
from xai_assert.subject import as_subject


class Listed:
    """A data set that counts what is read of it."""

    def __init__(self, items):
        self.items, self.read = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.read.append(index)
        return self.items[index]


class TestTensors:
    def test_a_batch_holds_images_ids_and_truth(self):
        images, truth = draw(5, 3, 4, 6), draw(5, 2, 3)
        batch = ImageSource(images, ground_truth=truth, image_ids="abcde").batch(1, 3)
        assert torch.equal(batch.images, images[1:3])
        assert torch.equal(batch.ground_truth, truth[1:3])
        assert batch.ids == ("b", "c")
        assert len(batch) == 2

    def test_positions_are_the_ids_by_default(self):
        assert ImageSource(draw(5, 3, 2, 2)).batch(3, 5).ids == (3, 4)

    def test_truth_may_have_a_channel(self):
        truth = draw(2, 1, 4, 4)
        assert torch.equal(ImageSource(draw(2, 3, 4, 4), ground_truth=truth).batch(0, 2).ground_truth, truth[:, 0])

    def test_images_that_require_grad_are_detached_not_changed(self):
        images = draw(2, 3, 4, 4).requires_grad_(True)
        assert not ImageSource(images).batch(0, 2).images.requires_grad
        assert images.requires_grad

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_any_floating_type_stays(self, dtype):
        assert ImageSource(draw(2, 3, 1, 1).to(dtype)).batch(0, 1).images.dtype == dtype

    @pytest.mark.parametrize(
        ("images", "error", "text"),
        [
            (None, TypeError, r"images: give a tensor \(B, C, H, W\) or a data set"),
            (3, TypeError, r"images must be a tensor \(B, C, H, W\) or a data set with .*, not int"),
            (iter([]), TypeError, "or a data set with .*, not list_iterator"),
            (torch.zeros(3, 4, 4), ValueError, r"images must be \(B, C, H, W\), not \(3, 4, 4\); add or drop"),
            (torch.zeros(1, 2, 3, 4, 4), ValueError, r"not \(1, 2, 3, 4, 4\)"),
            (
                torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
                TypeError,
                "floating point and preprocessed, not torch.uint8;",
            ),
            (torch.zeros(1, 1, 4, 4), ValueError, r"have 1 channels, the model's card says 3; shape \(1, 1, 4, 4\)"),
            (torch.zeros(0, 3, 4, 4), ValueError, "images: the batch is empty"),
            ([], ValueError, "images: the batch is empty"),
        ],
    )
    def test_bad_images(self, images, error, text):
        with pytest.raises(error, match=text):
            ImageSource(images, channels=3)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_images_that_are_not_finite_are_named(self, bad):
        images = draw(4, 3, 4, 4)
        images[1, 2, 3, 3] = images[3, 0, 0, 0] = bad
        source = ImageSource(images, image_ids=["a.png", "b.png", "c.png", "d.png"])
        with pytest.raises(ValueError, match=r"images must be finite; NaN or infinity in: b.png, d.png"):
            source.batch(0, 4)
        assert len(source.batch(2, 3)) == 1

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"image_ids": ["a"]}, ValueError, "image_ids names 1 images, images holds 2"),
            ({"image_ids": ["a", "a"]}, ValueError, "image_ids must differ from each other: the random draws"),
            ({"image_ids": ["1", 1]}, ValueError, "image_ids must differ"),
            ({"ground_truth": torch.ones(3, 4, 4)}, ValueError, r"ground_truth must be .* with B = 2, not \(3, 4, 4\)"),
            ({"ground_truth": torch.ones(4, 4)}, ValueError, r"with B = 2, not \(4, 4\)"),
            ({"ground_truth": torch.ones(2, 3, 4, 4)}, ValueError, r"with B = 2, not \(2, 3, 4, 4\)"),
            ({"ground_truth": np.ones((2, 4, 4))}, TypeError, r"ground_truth must be a tensor .*, not ndarray"),
        ],
    )
    def test_bad_companions(self, options, error, text):
        with pytest.raises(error, match=text):
            ImageSource(draw(2, 3, 4, 4), **options)


class TestDataSets:
    def test_only_what_a_batch_needs_is_read(self):
        data = Listed(list(draw(100, 3, 2, 2)))
        source = ImageSource(data)
        assert len(source) == 100
        assert data.read == []
        batch = source.batch(40, 43)
        assert data.read == [40, 41, 42]
        assert batch.ids == (40, 41, 42)
        assert torch.equal(batch.images, torch.stack(data.items[40:43]))
        assert batch.ground_truth is None

    def test_samples_bring_their_ids_and_truth(self):
        images, truth = draw(2, 3, 4, 4), draw(2, 2, 2)
        data = [xa.Sample(images[0], "a.png", truth[0]), xa.Sample(images[1], "b.png", truth[1][None])]
        batch = ImageSource(data).batch(0, 2)
        assert batch.ids == ("a.png", "b.png")
        assert torch.equal(batch.ground_truth, truth)

    def test_pairs_are_image_and_truth(self):
        data = torch.utils.data.TensorDataset(draw(3, 3, 4, 4), draw(3, 1, 2, 2))
        batch = ImageSource(data).batch(1, 3)
        assert batch.ids == (1, 2)
        assert torch.equal(batch.ground_truth, data.tensors[1][1:, 0])

    @pytest.mark.parametrize(
        ("items", "error", "text"),
        [
            ([np.zeros((3, 4, 4))], TypeError, r"images\[0\] must be a Sample, an image or .*, not ndarray"),
            ([xa.Sample(np.zeros((3, 4, 4)), "a")], TypeError, r"images\[0\] must be"),
            ([(torch.zeros(3, 4, 4), "cat")], TypeError, r"images\[0\] must be .*, not tuple"),
            ("ab", TypeError, r"images\[0\] must be .*, not str"),
            (
                [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)],
                ValueError,
                r"have one size, not \[\(3, 4, 4\), \(3, 4, 5\)\]",
            ),
            ([torch.zeros(4, 4)] * 2, ValueError, r"images must be \(B, C, H, W\), not \(2, 4, 4\)"),
            ([torch.zeros(1, 4, 4)] * 2, ValueError, "images have 1 channels, the model's card says 3"),
            ([torch.zeros(3, 4, 4, dtype=torch.long)] * 2, TypeError, "floating point and preprocessed, not torch.int"),
            ([torch.full((3, 4, 4), torch.nan)] * 2, ValueError, "images must be finite; NaN or infinity in: 0, 1"),
            (
                [xa.Sample(torch.zeros(3, 4, 4), "a", torch.ones(4, 4)), xa.Sample(torch.zeros(3, 4, 4), "b")],
                ValueError,
                "ground_truth: some images of the data set have it and others do not",
            ),
            (
                [xa.Sample(torch.zeros(3, 4, 4), s, torch.ones(4, s)) for s in (4, 5)],
                ValueError,
                r"ground_truth of a data set must have one size, not \[\(4, 4\), \(4, 5\)\]",
            ),
            ([xa.Sample(torch.zeros(3, 4, 4), "a", torch.ones(4))], ValueError, r"ground_truth must be \(B, H, W\)"),
        ],
    )
    def test_bad_items(self, items, error, text):
        with pytest.raises(error, match=text):
            ImageSource(items, channels=3).batch(0, len(items))

    def test_companions_belong_to_tensors(self):
        with pytest.raises(TypeError, match="go with a tensor of images; a data set brings its own"):
            ImageSource([torch.zeros(3, 4, 4)], image_ids=["a"])


class TestFiniteRows:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_one_bad_number_is_enough(self, bad, dtype):
        values = torch.zeros(3, 2, 5, dtype=dtype)
        values[1, 1, 3] = bad
        assert finite_rows(values).tolist() == [True, False, True]

    def test_of_no_numbers_none_is_bad(self):
        assert finite_rows(torch.zeros(2, 0)).tolist() == [True, True]


class TestPasses:
    def test_images_are_counted_with_and_without_gradient(self):
        model, passes = Pixelwise(draw(3, 4, 4)), Passes()
        images = draw(5, 3, 4, 4)
        with counted(model, passes):
            model(images)
            model(images.clone().requires_grad_(True))
            with torch.no_grad():
                model(images[:2].clone().requires_grad_(True))
        assert passes == Passes(forward=7, gradient=5)
        model(images)
        assert passes == Passes(7, 5)
        assert passes - Passes(2, 1) == Passes(5, 4)

    def test_the_hook_is_removed_after_an_exception(self):
        model = Pixelwise(draw(3, 4, 4))
        with pytest.raises(RuntimeError), counted(model, Passes()):
            model(draw(1, 7, 4, 4))
        assert not model._forward_hooks

    def test_the_counts_of_the_test_model_agree(self):
        inner = Counting(Pixelwise(draw(3, 4, 4)))
        subject, passes = as_subject(inner, task="depth", mean=[0] * 3, std=[1] * 3), Passes()
        with counted(subject.module, passes):
            xa.attribute(subject, draw(5, 3, 4, 4), xa.method("integrated_gradients", steps=3), batch_size=2)
            xa.attribute(subject, draw(5, 3, 4, 4), "edges", batch_size=2)  # the clean pass alone
        assert passes == Passes(forward=5, gradient=15)
        assert (inner.forwards, inner.backwards, inner.largest) == (20, 15, 2)


class TestRunClean:
    def test_a_failing_model_is_named_with_the_images_it_failed_on(self):
        subject = as_subject(nn.Conv2d(4, 1, 1))
        with pytest.raises(xa.ModelOutputError, match=r"the model Conv2d failed on images \(2, 3, 4, 4\) of torch"):
            without_gradient(subject, draw(2, 3, 4, 4))

    def test_so_is_one_of_another_precision(self):
        with pytest.raises(xa.ModelOutputError, match=r"of torch.float64: "):
            without_gradient(as_subject(nn.Conv2d(3, 1, 1)), draw(2, 3, 4, 4).double())

    def test_a_models_own_assertion_is_no_verdict(self):
        class Asserts(nn.Module):
            def forward(self, images):
                assert images.shape[-1] == 224, "input must be 224"

        with pytest.raises(xa.ModelOutputError, match="input must be 224"):
            without_gradient(as_subject(Asserts()), draw(1, 3, 4, 4))

    def test_an_output_error_keeps_its_own_words(self):
        with pytest.raises(xa.ModelOutputError, match=r"^ReturnsTuple returned a tuple"):
            without_gradient(as_subject(ReturnsTuple()), draw(1, 3, 4, 4))

    def test_out_of_memory_stays_what_it_is(self):
        class Full(nn.Module):
            def forward(self, images):
                raise torch.OutOfMemoryError

        with pytest.raises(torch.OutOfMemoryError):
            without_gradient(as_subject(Full()), draw(1, 3, 4, 4))

    def test_no_graph_is_built(self):
        assert not without_gradient(as_subject(nn.Conv2d(3, 1, 1)), draw(1, 3, 4, 4)).requires_grad
