"""What holds for every method."""

import pytest
import torch
from known_models import Attentive, Counting, Pixelwise, ReturnsTuple, WrongBatch, draw, seeded
from torch import nn

import xai_assert as xa
from xai_assert import registry
from xai_assert.attributions import check_ranks
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Subject

IMAGES = draw(5, 3, 12, 20)
IDS = ["a.png", "b.png", "c.png", "d.png", "e.png"]


class Untidy(Attentive):
    """Attention between a dropout, a batch norm and a shared layer, in training mode with one weight frozen."""

    def __init__(self):
        super().__init__(prefix=1)
        shared = nn.Conv2d(3, 3, 1)
        self.before = nn.Sequential(nn.ReLU(inplace=True), shared, nn.BatchNorm2d(3), nn.Dropout(), shared)
        self.embed.weight.requires_grad_(False)
        self.before[2].eval()
        seeded(self)

    def forward(self, images):
        if self.training:
            raise RuntimeError("still training")
        return super().forward(self.before(images.add_(1)))  # it writes on its input


def untidy(dtype=torch.float32) -> Subject:
    return xa.describe(Untidy().to(dtype).train(), name="net", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)


METHODS = [
    xa.method("saliency"),
    xa.method("input_x_gradient"),
    xa.method("smoothgrad", draws=2),
    xa.method("integrated_gradients", steps=3),
    xa.method("attention_rollout"),
    xa.method("gradient_rollout"),
    xa.method("grad_cam"),
    xa.method("random"),
    xa.method("edges"),
]


def test_every_method_of_ours_is_listed_here():
    known = [registry.methods.get(name) for name in registry.methods.names()]
    ours = {m.name for m in known if m.function.__module__.startswith("xai_assert")}
    assert ours == {m.name for m in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=str)
class TestEveryMethod:
    """The tester class: a new method is added to METHODS and passes through all of this."""

    def test_the_shapes(self, method):
        attribution = xa.attribute(untidy(), IMAGES, method)
        heatmap = xa.heatmap(untidy(), IMAGES, method)
        assert attribution.shape in {(5, 3, 12, 20), (5, 12, 20)}
        assert heatmap.shape == (5, 12, 20)
        assert heatmap.dtype == torch.float32
        assert heatmap.min() >= 0
        check_ranks(heatmap, IDS, method)

    def test_images_that_are_part_of_a_graph(self, method):
        leaf = IMAGES.clone().requires_grad_(True)
        found = xa.attribute(untidy(), leaf * 1, method)
        assert torch.equal(found, xa.attribute(untidy(), IMAGES, method))
        assert leaf.grad is None

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_it_runs_in_whatever_mode_the_caller_is(self, method, mode):
        subject = untidy()
        expected = xa.attribute(subject, IMAGES, method)
        with mode():
            images = IMAGES * 1  # under inference_mode an inference tensor
            found = xa.attribute(subject, images, method)
        assert torch.equal(found, expected)
        assert not found.is_inference()

    @pytest.mark.parametrize("batch_size", [1, 3, "auto"])
    def test_the_batch_size_does_not_matter(self, method, batch_size):
        expected = xa.attribute(untidy(), IMAGES, method, image_ids=IDS, batch_size=5)
        found = xa.attribute(untidy(), IMAGES, method, image_ids=IDS, batch_size=batch_size)
        # what a convolution's choice of algorithm moves, through a dozen layers of float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_nor_does_the_order_of_the_images(self, method):
        order = [3, 0, 4]
        expected = xa.attribute(untidy(), IMAGES, method, image_ids=IDS)[order]
        found = xa.attribute(untidy(), IMAGES[order], method, image_ids=[IDS[i] for i in order])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.2)])
    def test_other_precisions(self, method, dtype, tolerance):
        """Against float32; bfloat16 has 8 bits, a few of which a dozen layers use up."""
        expected = xa.heatmap(untidy(), IMAGES, method)
        found = xa.heatmap(untidy(dtype), IMAGES.to(dtype), method)
        assert found.dtype == torch.float32
        difference = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        assert difference.max() < tolerance

    @pytest.mark.parametrize(
        "reorder",
        [
            lambda x: x.to(memory_format=torch.channels_last),
            lambda x: x.mT.contiguous().mT,
            lambda x: torch.stack([x, x], -1)[..., 0],
        ],
        ids=["channels_last", "transposed", "strided"],
    )
    def test_the_layout_in_memory_does_not_matter(self, method, reorder):
        images = reorder(IMAGES)
        assert images.stride() != IMAGES.stride()
        expected = xa.attribute(untidy(), IMAGES, method)
        found = xa.attribute(untidy(), images, method)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_a_data_set_is_explained_as_a_tensor_is(self, method):
        data = [xa.Sample(image, name) for image, name in zip(IMAGES, IDS, strict=True)]
        expected = xa.attribute(untidy(), IMAGES, method, image_ids=IDS)
        assert torch.equal(xa.attribute(untidy(), data, method), expected)

    def test_a_model_that_returns_something_else_is_named(self, method):
        for module, text in ((ReturnsTuple(), "a tuple"), (WrongBatch(), r"\(8, 1, 12, 20\) for 4 images")):
            subject = xa.describe(module, name="net", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)
            if method.name == "gradient_rollout":  # whose own pass is the first, and which finds no attention before it
                with pytest.raises(xa.NotApplicableError, match="shows no attention"):
                    xa.attribute(subject, IMAGES, method)
                continue
            with pytest.raises(xa.ModelOutputError, match=f"net returned {text}"):
                xa.attribute(subject, IMAGES, method)

    def test_bad_images_are_refused(self, method):
        with pytest.raises(ValueError, match=r"images must be \(B, C, H, W\), not \(3, 12, 20\)"):
            xa.attribute(untidy(), IMAGES[0], method)
        with pytest.raises(ValueError, match="images have 1 channels, the model's card says 3"):
            xa.attribute(untidy(), IMAGES[:, :1], method)


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize(
    "name", ["saliency", "input_x_gradient", "smoothgrad", "integrated_gradients", "random", "edges"]
)
def test_pictures_one_pixel_wide(name, size):
    subject = xa.describe(Pixelwise(draw(3, *size)), name="net", task="depth", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert xa.heatmap(subject, draw(1, 3, *size), name).shape == (1, *size)


@pytest.mark.parametrize(
    ("method", "passes"),
    [("saliency", 1), ("input_x_gradient", 1), ("smoothgrad(draws=4)", 4), ("integrated_gradients(steps=3)", 3)],
)
def test_no_pass_is_made_for_a_target_that_does_not_need_it(method, passes):
    model = Counting(Pixelwise(draw(3, 8, 8)))
    xa.attribute(model, draw(2, 3, 8, 8), method, task="depth", mean=[0.5] * 3, std=[0.5] * 3)
    assert (model.forwards, model.backwards) == (2 * passes, 2 * passes)
