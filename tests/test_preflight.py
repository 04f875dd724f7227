"""The preflight finds what is planted, names it, and finds nothing in a model that is in order."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from known_models import (
    Attentive,
    Blind,
    Corner,
    Counting,
    ReturnsNaN,
    ReturnsTuple,
    Squares,
    WrongBatch,
    curved,
    draw,
)
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert import cost, preflight
from xai_assert.datasets import generated
from xai_assert.model_checks import input_scale
from xai_assert.preflight import Finding, duration, lines
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card

RAW = {"mean": [0.0] * 3, "std": [1.0] * 3}
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
PICTURES = torch.stack([s.image for s in generated(Card(name="raw", input_size=(24, 32)), count=6)])  # RGB in 0..1


def normalised(pictures, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return (pictures - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)


def stretched(beyond):
    """Pictures of high contrast, of which much lies just so far beyond black and white."""
    return (0.5 + 2 * (PICTURES - 0.5)).clamp(-beyond, 1 + beyond)


IMAGES = normalised(PICTURES)


def subject(module, **card):
    return xa.describe(module, name="net", task="depth", unit="m", **IMAGENET | card)


def findings(module, images=IMAGES, methods=("saliency",), perturbations=("gaussian_noise",), **card):
    found = preflight.preflight(subject(module, **card), images, methods, perturbations)
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding for finding in found}


class Wrapped(nn.Module):
    """`change` of a small network's output."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = curved(), change

    def forward(self, images):
        return self.change(self.inner(images))


class TestInOrder:
    METHODS = ("saliency", "integrated_gradients(steps=5)", "attention_rollout", "random", "edges")
    PERTURBATIONS = ("black", "mean", "gaussian_noise", "fgsm")

    def test_every_check_is_passed(self):
        found = findings(Attentive().eval(), methods=self.METHODS, perturbations=self.PERTURBATIONS)
        assert {finding.outcome for finding in found.values()} == {"ok"}
        assert list(found) == [
            "mode",
            "input size",
            "input scale",
            "output",
            "deterministic",
            "independent of batch",
            "prediction varies",
            "differentiable",
            *(f"method {method}" for method in self.METHODS),
            *(f"perturbation {perturbation}" for perturbation in self.PERTURBATIONS),
            "cost",
        ]
        assert found["output"].words.startswith("(4, 1, 3, 4) torch.float32, finite, from ")
        assert found["deterministic"].words == "the same images twice give the same bits"
        assert found["method integrated_gradients(steps=5)"].words.startswith("0 forward, 5 gradient passes an image, ")

    def test_the_model_is_left_as_it_was(self):
        model = Attentive().train()
        images = IMAGES.clone()
        with untouched(model, images):
            findings(model, images, self.METHODS, self.PERTURBATIONS)
        with untouched(model, images):
            findings(ReturnsNaN(), images)

    def test_few_images_are_looked_at(self):
        model = Counting(curved())
        findings(model, methods=["edges"])
        assert model.largest == 4

    def test_a_single_image(self):
        found = findings(curved().eval(), IMAGES[:1])
        assert (found["independent of batch"].outcome, found["prediction varies"].outcome) == ("skip", "ok")

    def test_the_table_is_aligned(self):
        table = lines([Finding("mode", "ok", "this"), Finding("input scale", "fail", "that")])
        assert table == ["ok    mode         this", "fail  input scale  that"]


class TestModels:
    """Models that misbehave; each is found by its own check, and by the words that name the cause."""

    def only(self, module, check, outcome, words, **options):
        found = findings(module.eval(), **options)
        assert (found[check].outcome, words in found[check].words) == (outcome, True), found[check]
        others = {name for name, finding in found.items() if finding.outcome in ("warn", "fail") and name != check}
        return others

    def test_dropout_that_stays_on(self):
        model = Wrapped(lambda depth: F.dropout(depth, 0.2, training=True))
        others = self.only(model, "deterministic", "fail", "dropout or noise that evaluation mode does not switch off?")
        assert others == {"independent of batch"}  # it differs from itself as well

    def test_dropout_that_evaluation_mode_switches_off(self):
        found = findings(Wrapped(nn.Dropout(0.2)).train())
        assert found["mode"].outcome == "warn"
        assert "gates measure in evaluation mode: call .eval() on the model" in found["mode"].words
        assert {finding.outcome for name, finding in found.items() if name != "mode"} == {"ok"}

    @pytest.mark.parametrize(
        "norm",
        [
            lambda depth: F.batch_norm(depth, None, None, training=True),
            nn.BatchNorm2d(1, track_running_stats=False),
            lambda depth: depth - depth.mean() / 2,
        ],
        ids=["training", "no-running-statistics", "mean-of-the-batch"],
    )
    def test_an_image_that_sees_its_neighbours(self, norm):
        others = self.only(
            Wrapped(norm), "independent of batch", "fail", "BatchNorm in training mode or without running"
        )
        assert not others

    def test_rounding_between_neighbours_is_let_through(self):
        found = findings(Wrapped(lambda depth: depth * (1 + 5e-4 * (len(depth) > 1))).eval())
        assert found["independent of batch"].outcome == "ok"
        found = findings(Wrapped(lambda depth: depth * (1 + 2e-3 * (len(depth) > 1))).eval())
        assert found["independent of batch"].outcome == "fail"

    def test_nan(self):
        found = findings(ReturnsNaN().eval())
        assert found["output"].outcome == "fail"
        assert "net returned NaN or infinity for images 0, 1, 2, 3" in found["output"].words
        assert found["everything else"].outcome == "skip"

    @pytest.mark.parametrize(
        ("module", "words"),
        [
            (WrongBatch(), "ModelOutputError: net returned (8, 1, 24, 32) for 4 images"),
            (ReturnsTuple(), "ModelOutputError: net returned a tuple, not a tensor; give xa.describe an output="),
            (nn.Conv2d(3, 2, 1), "ModelOutputError: a depth model must return (B, 1, H, W) or (B, H, W), not (4, 2,"),
            (nn.Conv2d(3, 1, 64), "ModelOutputError: the model net failed on images (4, 3, 24, 32) of torch.float32: "),
        ],
    )
    def test_an_output_that_cannot_be_read(self, module, words):
        found = findings(module.eval())
        assert (found["output"].outcome, found["output"].words.startswith(words)) == ("fail", True)

    def test_a_blind_model(self):
        found = findings(Blind().eval())
        assert "constant over the pixels of 4 of 4 images" in found["prediction varies"].words
        assert "does not depend on" in found["differentiable"].words
        assert {found[name].outcome for name in ("prediction varies", "differentiable")} == {"fail"}
        assert found["methods, cost"].outcome == "skip"

    def test_one_map_for_all_images(self):
        ramp = torch.arange(32.0)
        model = Wrapped(lambda depth: 1e-9 * depth + ramp)
        others = self.only(model, "prediction varies", "fail", "all 4 images get the same prediction: does the model")
        assert "perturbation gaussian_noise" in others

    def test_a_gradient_that_is_not_there(self):
        for change, words in (
            (torch.round, "exactly 0 at 100.0% of the pixels: a rounded or clamped output"),
            (
                lambda depth: (depth - depth.detach()).sqrt() + depth,
                "of the gradient is NaN or infinite: a square root",
            ),
        ):
            found = findings(Wrapped(change).eval())
            assert (found["differentiable"].outcome, words in found["differentiable"].words) == ("fail", True)

    def test_a_model_that_looks_at_a_corner(self):
        words = "exactly 0 at 75.0% of the pixels: the model never sees them"
        assert not self.only(Corner(), "differentiable", "warn", words)


class TestScale:
    """The same pictures, prepared rightly and wrongly."""

    @pytest.mark.parametrize(
        ("images", "card", "guess"),
        [
            (PICTURES, IMAGENET, "they are RGB in 0..1: subtract the card's mean and divide by its std"),
            (255 * PICTURES, IMAGENET, "they are RGB in 0..255: divide by 255, then normalise"),
            (255 * PICTURES, RAW, "they are RGB in 0..255: divide by 255, then normalise"),
            (normalised(255 * PICTURES), IMAGENET, "they were normalised without dividing by 255 first"),
            (normalised(IMAGES), IMAGENET, "they were normalised twice with the card's mean and std"),
            (IMAGES, RAW, "they were normalised with ImageNet's mean and std, which are not the card's"),
        ],
    )
    def test_wrong(self, images, card, guess):
        outcome, words = input_scale(subject(curved(), **card), images)
        assert (outcome, words.endswith(f"; it looks as if {guess}")) == ("fail", True), words

    @pytest.mark.parametrize(
        ("images", "card"),
        [
            (IMAGES, IMAGENET),
            (PICTURES, RAW),
            (normalised(PICTURES, [0.5] * 3, [0.5] * 3), {"mean": [0.5] * 3, "std": [0.5] * 3}),
            (normalised(stretched(0.04)), IMAGENET),  # what resampling may add
        ],
    )
    def test_right(self, images, card):
        outcome, words = input_scale(subject(curved(), **card), images)
        assert outcome == "ok", words

    def test_what_is_no_picture_at_all(self):
        outcome, words = input_scale(subject(curved(), **IMAGENET), 40 * draw(4, 3, 16, 16))
        assert (outcome, words.endswith("check the preprocessing against the card's mean and std")) == ("fail", True)

    def test_a_little_too_much_is_told(self):
        outcome, words = input_scale(subject(curved(), **IMAGENET), normalised(stretched(0.06)))
        assert (outcome, "% outside black..white of the card" in words) == ("warn", True)

    def test_fog_is_no_mistake(self):
        outcome, words = input_scale(subject(curved(), **IMAGENET), normalised(0.7 + 0.1 * (PICTURES - 0.5)))
        assert (outcome, "contrast 0.0" in words) == ("warn", True)

    def test_a_card_that_says_nothing(self):
        bare = xa.describe(curved(), name="net", task="depth")
        outcome, words = input_scale(bare, IMAGES)
        assert (outcome, words.endswith("nobody knows black and white: give mean= and std=")) == ("skip", True)

    def test_another_size_than_the_cards(self):
        found = findings(curved().eval(), input_size=(48, 64))["input size"]
        words = "images 24x32, where the card says 48x64: resize them, or correct the card"
        assert (found.outcome, found.words) == ("warn", words)


class TestMethods:
    def test_one_that_does_not_apply(self):
        found = findings(curved().eval(), methods=["attention_rollout", "edges"])
        assert found["method attention_rollout"].outcome == "skip"
        assert found["method attention_rollout"].words.startswith("does not apply: ")
        assert ", 1 method: " in found["cost"].words

    def test_a_constant_map(self):
        found = findings(curved().eval(), methods=[xa.method(flat)])["method flat"]
        assert (found.outcome, found.words.startswith("DegenerateHeatmapError: the heatmap of flat is constant")) == (
            "fail",
            True,
        )

    def test_one_that_declares_too_little(self):
        with xa.registry.isolated():
            xa.register_method("sly", passes=lambda: (0, 0))(looks)
            found = findings(curved().eval(), methods=["sly"])["method sly"]
        assert (found.outcome, found.words.endswith("; it declares 0 and 0")) == ("warn", True)
        assert found.words.startswith("1 forward, 0 gradient passes an image")

    def test_one_that_would_take_too_long_is_not_tried(self, monkeypatch):
        model = Counting(curved().eval())
        monkeypatch.setattr(cost, "clock", lambda: float(model.forwards))  # a second an image
        found = findings(model, methods=["integrated_gradients"])
        assert found["method integrated_gradients"].words == "not tried: one image would take about 3 minutes"
        assert model.forwards < 60

    def test_pictures_that_look_like_the_baseline(self):
        dark = normalised(PICTURES * (torch.arange(32) > 24))  # three quarters of it are black
        methods = ["integrated_gradients(steps=2)", "integrated_gradients(steps=2, baseline='white')"]
        found = findings(curved().eval(), images=dark, methods=methods)
        black, white = (found[f"method {method}"] for method in methods)
        assert (black.outcome, white.outcome) == ("warn", "ok")
        assert "as their baseline black in more than half of the pixels (78%" in black.words

    def test_other_warnings_of_a_method_are_given(self):
        def wary(model, images, target):
            warnings.warn("beware", UserWarning, stacklevel=1)
            return looks(model, images, target)

        with pytest.warns(UserWarning, match="beware"):
            assert findings(curved().eval(), methods=[xa.method(wary)])["method wary"].outcome == "ok"

    def test_a_perturbation_without_colours(self):
        bare = xa.describe(curved().eval(), name="net", task="depth")
        found = preflight.preflight(bare, IMAGES, ["saliency"], ["black", "gaussian_noise"])
        outcomes = {finding.check: finding for finding in found}
        assert outcomes["perturbation black"].outcome == "fail"
        assert "net has no mean and std, so nobody knows what black is" in outcomes["perturbation black"].words
        assert outcomes["perturbation gaussian_noise"].outcome == "ok"

    def test_a_perturbation_that_moves_nothing(self):
        found = findings(curved().eval(), perturbations=["gaussian_noise(sigma=1e-9)"])
        (finding,) = [f for name, f in found.items() if name.startswith("perturbation")]
        assert (finding.outcome, finding.words.endswith("; not at all on 4 of 4 images")) == ("warn", True)

    def test_one_that_depends_on_what_is_left_is_tried_on_half_of_the_pixels(self):
        """Of a whole picture it leaves a flat one. Half of a picture that is a ramp it guesses to within its noise."""
        ramp = (torch.arange(24.0)[:, None] + torch.arange(32.0)).expand(4, 3, 24, 32) / 28 - 1
        found = findings(curved().eval(), images=ramp, perturbations=["noisy_linear(noise=0)", "noisy_linear(noise=3)"])
        weak, strong = (found[f"perturbation noisy_linear(noise={noise})"] for noise in (0, 3))
        assert (weak.outcome, strong.outcome) == ("ok", "ok")
        moved = [float(f.words.removeprefix("half of the pixels moved by ").split()[0]) for f in (weak, strong)]
        assert moved[0] < 0.05  # the ramp rises by 1/28 a pixel; at its border the guess misses it
        assert moved[1] == pytest.approx(3 * (2 / torch.pi) ** 0.5, rel=0.05)  # mean of |a normal number|

    def test_an_attack_of_many_steps(self):
        found = findings(curved().eval(), perturbations=["pgd(epsilon=2.0, steps=20)"])
        assert found["perturbation pgd(epsilon=2.0, steps=20)"].outcome == "ok"


class TestCost:
    def test_on_paper(self, monkeypatch):
        model = Counting(Squares(draw(3, 24, 32)).eval())
        monkeypatch.setattr(cost, "clock", lambda: 60.0 * model.forwards)  # a minute an image, forward or gradient
        found = preflight.preflight(
            subject(model), IMAGES, ["edges"], ["gaussian_noise", "fgsm"], fractions=[0.05, 0.1]
        )
        # an image: clean, 2 x 2 fractions x 2 perturbations, 16 groups of FE (once for all fractions); fgsm's gradient
        assert found[-1].words == (
            "6 images, 1 method: 150 forward and 6 gradient passes, about 2.6 hours at 60000.0 and 60000.0 ms"
        )

    def test_what_a_method_of_the_users_costs_is_measured(self):
        found = findings(curved().eval(), methods=[xa.method(looks)], perturbations=["black"])
        assert "6 images, 1 method: 24 forward and 0 gradient passes" in found["cost"].words

    def test_words_for_times(self):
        times = [duration(seconds) for seconds in (0.0123, 4.4, 99, 150, 7200)]
        assert times == ["12 ms", "4 s", "99 s", "2 minutes", "2.0 hours"]


def flat(model, images, target):
    return torch.ones_like(images)


def looks(model, images, target):
    return images * model(images)
