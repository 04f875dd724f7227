"""What the report shows of an image is what the network was shown, and costs no pass."""

import pytest
import torch
from known_models import Counting, Pixelwise, draw

import xai_assert as xa
from xai_assert.metrics import FidelityCell


@pytest.fixture
def weights():
    return draw(3, 12, 12, seed=3)


def evaluation(model, *, keep, batch_size=4, count=10):
    found = xa.Evaluation(model, draw(count, 3, 12, 12, seed=1), task="depth", batch_size=batch_size)
    found.keep = keep
    return found


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_the_worst_and_the_best_image_are_kept(weights, batch_size):
    ev = evaluation(Pixelwise(weights), keep="worst", batch_size=batch_size)
    score = ev.attribution_fidelity("random", fraction=0.1)
    kept = ev.take_evidence("random", "gaussian_noise", 0.1)
    values = score.values.tolist()
    assert [e.image_id for e in kept] == [values.index(min(values)), values.index(max(values))]
    assert [e.value for e in kept] == pytest.approx([min(values), max(values)])


def test_all_are_kept_the_worst_first(weights):
    ev = evaluation(Pixelwise(weights), keep="all")
    score = ev.attribution_fidelity("random")
    kept = ev.take_evidence("random", "gaussian_noise", 0.05)
    assert [e.image_id for e in kept] == [i for i, _ in score.worst(len(score))]


def test_it_is_what_the_network_was_shown_and_said(weights):
    model = Pixelwise(weights)
    ev = evaluation(model, keep="all")
    ev.attribution_fidelity("saliency", perturbation="gaussian_noise", fraction=0.1)
    for found in ev.take_evidence("saliency", "gaussian_noise", 0.1):
        assert torch.equal(found.image, ev.image(found.image_id))
        assert found.relevant.sum() == found.irrelevant.sum() == 14  # floor(.1 * 144 + .5)
        assert not (found.relevant & found.irrelevant).any()
        for mask, perturbed, prediction in zip(
            (found.relevant, found.irrelevant), found.perturbed, found.predictions, strict=True
        ):
            changed = (perturbed != found.image).any(0)
            assert torch.equal(changed, mask)
            assert torch.allclose(prediction, model(perturbed[None])[0, 0], atol=1e-6)  # batches of another size
        assert torch.allclose(found.clean, model(found.image[None])[0, 0], atol=1e-6)
        assert found.heatmap.shape == (12, 12)


def test_it_costs_no_pass_and_nothing_is_kept_unasked(weights):
    counts = []
    for keep in ("none", "worst"):
        model = Counting(Pixelwise(weights))
        ev = evaluation(model, keep=keep)
        ev.attribution_fidelity("saliency")
        counts.append((model.forwards, model.backwards))
        assert len(ev.take_evidence("saliency", "gaussian_noise", 0.05)) == {"none": 0, "worst": 2}[keep]
    assert counts[0] == counts[1]


def test_a_batch_that_ran_out_of_memory_is_kept_once(weights):
    class Full(torch.nn.Module):
        """Out of memory at the fourth pass of a batch over 4: after the first cell of it was measured."""

        calls = 0

        def __init__(self):
            super().__init__()
            self.inner = Pixelwise(weights)

        def forward(self, images):
            self.calls += 1
            if len(images) > 4 and self.calls >= 4:
                raise torch.OutOfMemoryError("full")
            return self.inner(images)

    ev = evaluation(Full(), keep="all", batch_size="auto", count=8)
    ev._sizer._size = 8
    ev.plan("random", [FidelityCell(xa.perturbation("gaussian_noise"), fraction) for fraction in (0.1, 0.2)])
    ev.attribution_fidelity("random", fraction=0.1)
    assert ev._sizer.size < 8  # it did run out
    kept = ev.take_evidence("random", "gaussian_noise", 0.1)
    assert sorted(e.image_id for e in kept) == list(range(8))


def test_of_all_images_only_pictures_are_kept(weights):
    ev = evaluation(Pixelwise(weights), keep="all")
    ev.develop = lambda evidence: f"picture of {evidence.image_id}".encode()
    score = ev.attribution_fidelity("random")
    kept = ev.take_evidence("random", "gaussian_noise", 0.05)
    assert [print_.image_id for print_ in kept] == [i for i, _ in score.worst(len(score))]
    assert [print_.webp for print_ in kept] == [f"picture of {print_.image_id}".encode() for print_ in kept]
    assert not any(isinstance(value, torch.Tensor) for print_ in kept for value in vars(print_).values())
