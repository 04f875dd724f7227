"""An error in a cell ends that cell alone; an interrupted evaluation loses nothing."""

import gc
import traceback
import weakref

import pytest
import torch
from known_models import (
    Counting,
    Failing,
    Samples,
    SquareRoot,
    Squares,
    draw,
)

import xai_assert as xa
from xai_assert.batching import Passes
from xai_assert.metrics import FaithfulnessCell, FidelityCell

PERTURBATIONS = ["black", "mean", "gaussian_noise", "fgsm"]
STATISTICS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IDS = [f"{i:02}.png" for i in range(10)]


class TestFailures:
    """An exception ends the cells that stand on it, and no other."""

    IMAGES = draw(6, 3, 8, 8)

    def test_a_perturbation_that_fails_ends_its_own_cells(self):
        model = Counting(Squares(draw(3, 8, 8)))
        ev = xa.Evaluation(model, self.IMAGES, task="depth", batch_size=4)  # no mean, no std: nobody knows black
        ev.plan("saliency", [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        good = {name: ev.attribution_fidelity("saliency", perturbation=name) for name in ("gaussian_noise", "fgsm")}
        spent = model.forwards
        for name in ("black", "mean", "black"):
            with pytest.raises(TypeError, match="Counting has no mean and std, so nobody knows what black is"):
                ev.attribution_fidelity("saliency", perturbation=name)
        assert model.forwards == spent == 6 * (2 * 2 + 2)  # both ends twice; the map, fgsm
        options = {"perturbation": "fgsm", "task": "depth", "batch_size": 4}
        alone = xa.attribution_fidelity(model.inner, "saliency", self.IMAGES, **options)
        assert torch.equal(good["fgsm"].values, alone.values)

    def test_a_cell_that_fails_ends_alone(self):
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, task="depth")
        noise = xa.perturbation("gaussian_noise")
        ev.plan("saliency", [FidelityCell(noise, 0.001), FaithfulnessCell(noise, 65)])
        assert len(ev.attribution_fidelity("saliency")) == 6
        with pytest.raises(ValueError, match=r"fraction 0\.001 of 8x8 pixels selects none"):
            ev.attribution_fidelity("saliency", fraction=0.001)
        with pytest.raises(ValueError, match="groups=65 is more than the 8x8 pixels of an image"):
            ev.faithfulness_estimate("saliency", groups=65)

    def test_a_failing_attribution_is_raised_for_every_planned_cell(self):
        model = Counting(Squares(draw(3, 8, 8)))

        def broken(model, images, target):
            raise KeyError("weights of mine")

        method = xa.method(broken)
        ev = xa.Evaluation(model, self.IMAGES, batch_size=4, **STATISTICS)
        ev.plan(method, [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        for name in PERTURBATIONS:
            with pytest.raises(KeyError, match="weights of mine") as caught:
                ev.attribution_fidelity(method, perturbation=name)
            assert "in broken" in "".join(traceback.format_tb(caught.tb))  # each of them shows where it came from
        assert model.forwards == 4  # one clean batch
        assert ev.passes_of(method) == Passes(4, 0)
        assert ev.attribution_fidelity("saliency").mean > 0.3  # other methods are not touched

    def test_a_kept_failure_keeps_no_tensors(self):
        made = []

        def broken(model, images, target):
            large = images.clone()
            made.append(weakref.ref(large))
            raise RuntimeError("after the tensor was made")

        method = xa.method(broken)
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, **STATISTICS)
        ev.plan(method, [FidelityCell(xa.perturbation(name)) for name in PERTURBATIONS])
        with pytest.raises(RuntimeError, match="after the tensor was made"):
            ev.attribution_fidelity(method)
        gc.collect()
        assert made[0]() is None  # though the exception waits for the other cells

    def test_a_failure_on_perturbed_images_names_them(self):
        images = 0.5 + draw(4, 3, 8, 8).sigmoid()
        images[[0, 1, 3]] += 100  # noise makes negative values in the third image alone
        ev = xa.Evaluation(SquareRoot(), images, image_ids=list("abcd"), batch_size=2, task="depth")
        noise = "gaussian_noise(sigma=2.0)"
        ev.plan("saliency", [FidelityCell(xa.perturbation(noise))])
        with pytest.raises(
            xa.ModelOutputError,
            match=r"SquareRoot returned NaN or infinity for images c perturbed by gaussian_noise\(sigma=2.0\)$",
        ):
            ev.attribution_fidelity("saliency", perturbation=noise, fraction=0.5)
        with pytest.raises(xa.ModelOutputError, match=r"for images c perturbed by gaussian_noise"):
            ev.faithfulness_estimate("saliency", perturbation=noise)
        assert len(ev.attribution_fidelity("saliency", perturbation="gaussian_noise(sigma=1e-3)")) == 4

    def test_an_interrupt_leaves_earlier_results(self):
        model = Failing(Squares(draw(3, 8, 8)), call=15, error=KeyboardInterrupt())
        ev = xa.Evaluation(model, self.IMAGES, batch_size=2, **STATISTICS)
        first = ev.attribution_fidelity("saliency")  # 3 batches of 3 calls
        assert model.calls == 9
        with pytest.raises(KeyboardInterrupt):
            ev.attribution_fidelity("saliency", perturbation="black")
        assert model.calls == 15
        assert torch.equal(ev.attribution_fidelity("saliency").values, first.values)
        assert ev.passes_of("saliency") == Passes(6 * 2 + 6, 6 + 4)  # 2 batches more, but for I of the second
        model.call = 1000  # the user presses it once: what was interrupted can be asked for again
        assert len(ev.attribution_fidelity("saliency", perturbation="black")) == 6
        fresh = xa.Evaluation(model, self.IMAGES, batch_size=2, **STATISTICS)
        values = fresh.attribution_fidelity("saliency", perturbation="black").values
        assert torch.equal(ev.attribution_fidelity("saliency", perturbation="black").values, values)

    def test_ids_that_repeat(self):
        data = Samples(6, lambda i: xa.Sample(self.IMAGES[i], f"image{i % 5}"))
        with pytest.raises(ValueError, match="two images of the data set have the same id, so they would share random"):
            xa.attribution_fidelity(Squares(draw(3, 8, 8)), "saliency", data, task="depth")

    def test_a_warning_made_an_error_ends_its_cell_alone(self):
        flat = torch.arange(64).reshape(8, 8).div(32, rounding_mode="floor")  # two levels: lots decide at 5 %
        method = xa.method(lambda model, images, target: flat.expand(len(images), 8, 8).float())
        ev = xa.Evaluation(Squares(draw(3, 8, 8)), self.IMAGES, task="depth")
        ev.plan(method, [FidelityCell(xa.perturbation("gaussian_noise"), 0.5)])
        with pytest.raises(xa.TiedHeatmapWarning, match=r"ties decide more than half of .* 4 of 4 images"):
            ev.attribution_fidelity(method)
        assert len(ev.attribution_fidelity(method, fraction=0.5)) == 6
