"""A sweep chooses the true map, says how sure it is, and keeps what it measured."""

import json

import numpy as np
import pytest
import torch
from known_models import Pixelwise, Squares, draw
from torch import nn
from untouched import untouched

import xai_assert as xa
from xai_assert import registry
from xai_assert.attributions import method
from xai_assert.known_models import KnownModel
from xai_assert.metrics import FidelityCell
from xai_assert.reporting.sweep_picture import draw as draw_picture
from xai_assert.sweep import choose, document, gradient_noise, measure, plan_sweep
from xai_assert.sweep.choice import Choice, best_odds, images_needed, rank_correlation
from xai_assert.sweep.gradient_noise import layers, of_images
from xai_assert.sweep.plan import FRACTIONS, SIGMA, SIGMAS
from xai_assert.sweep.run import depth
from xai_assert.sweep.words import depth_lines, how_sure, table

SIZE = (16, 16)  # half a per cent is a pixel
MODEL = KnownModel("pixelwise", seed=0)
IMAGES = draw(8, 3, *SIZE)
QUICK = plan_sweep(quick=True, parts=["sigma", "fraction"])


def truth(model, images, target):
    return MODEL.relevance(SIZE).expand(len(images), -1, -1)


def same(model, images, target):
    return truth(model, images, target)


def inverse(model, images, target):
    return 5 - truth(model, images, target)


def fails(model, images, target):
    raise ValueError("no attention in this network")


def swept(*methods, plan=QUICK, images=IMAGES, subject=None, **options):
    evaluation = xa.Evaluation(subject or MODEL.subject(SIZE), images)
    return measure(evaluation, [method(m) for m in (*methods, "random", "edges")], plan, {}, **options)


def lone(values, p=0.01):
    """A choice of so many methods, all beating random, with these odds."""
    return Choice(next(iter(values)), dict.fromkeys(values, p), values)


class TestTheChoice:
    def test_the_true_map_wins_with_certainty_at_every_point(self):
        record = swept(truth, inverse)
        assert record["choice"]["method"] == "truth"
        assert record["choice"]["odds"] == {"truth": 1.0, "inverse": 0.0}
        assert record["choice"]["held"] == {"sigma": [3, 3], "fraction": [2, 2]}
        assert "ship truth: AF +1.00" in record["sentence"]
        assert "1 of 2 methods beats random. Sure: it is the best in over 99 % of bootstraps" in record["sentence"]
        assert "and first under 3 of 3 other sigmas and 2 of 2 other fractions" in record["sentence"]

    def test_of_two_equal_methods_each_has_even_odds_and_that_is_said(self):
        record = swept(truth, same)
        assert record["choice"]["odds"] == {"truth": 0.5, "same": 0.5}
        assert (
            "About even odds: it is the best in 50 % of bootstraps over the images, same in 50 %" in record["sentence"]
        )

    def test_where_nothing_beats_random_none_is_shipped(self):
        record = swept(inverse)
        assert record["choice"]["method"] is None
        assert "ship none: no method beats random under gaussian_noise at 5 %" in record["sentence"]

    def test_a_random_map_under_another_name_is_not_shipped(self):
        def chance(model, images, target):
            return draw(len(images), *SIZE, seed=3).abs()

        assert swept(chance)["choice"]["method"] is None

    def test_a_method_that_does_not_apply_is_named_once_with_its_reason(self):
        record = swept(fails, truth)
        assert record["skipped"] == [{"method": "fails", "reason": "no attention in this network"}]
        assert record["sentence"].endswith("1 of 1 method beats random.")
        assert any("no attention" in line for line in table(record))

    def test_where_no_method_can_be_measured_none_is_shipped(self):
        assert "no method could be measured" in swept(fails)["sentence"]

    def test_a_control_is_never_chosen_but_said_to_do_better(self):
        values = {"edges": np.full(8, 0.9), "random": np.full(8, 0.8), "mine": np.full(8, 0.5)}
        choice = choose(values, [("sigma", values)])
        assert choice.method == "mine"
        assert choice.edges == (2, 2)
        assert set(choice.p) == {"mine"}

    def test_holm_counts_the_methods(self):
        eight = np.array([1.0] * 7 + [-1.0])  # p = 9 / 256, the sum of 8 signs being 6 or 8
        alone, five = choose({"a": eight}), choose(dict.fromkeys("abcde", eight))
        assert alone.p["a"] == pytest.approx(9 / 256)
        assert five.p["a"] == pytest.approx(5 * 9 / 256)
        assert (alone.method, five.method) == ("a", None)

    def test_odds_are_those_worked_out_on_paper(self):
        values = np.array([[1.0, 0.0], [0.4, 0.4]])  # means of bootstraps: 1, .5, 0 with 1/4, 1/2, 1/4
        assert best_odds(values) == pytest.approx([0.75, 0.25], abs=0.015)  # 3.5 standard errors of 9999 draws

    def test_words_follow_the_odds(self):
        assert how_sure(lone({"a": 0.97, "b": 0.03})).startswith(" Sure: it is the best in 97 %")
        assert how_sure(lone({"a": 0.8, "b": 0.2})).startswith(" Likely: ")
        assert how_sure(lone({"a": 0.55, "b": 0.45})).endswith(", b in 45 %.")
        assert how_sure(lone({"a": 1.0})) == ""

    def test_a_choice_that_holds_at_few_other_points_has_a_but(self):
        values = {"a": np.full(8, 0.5), "b": np.full(8, 0.2)}
        turned = {"a": values["b"], "b": values["a"]}
        found = choose(values, [("sigma", values), ("perturbation", turned)])
        assert how_sure(found).endswith("first under 1 of 1 other sigmas, but under only 0 of 1 other perturbations.")

    @pytest.mark.parametrize("count", [4, 5])
    def test_too_few_images_for_so_many_methods_are_refused_before_anything_is_measured(self, count):
        with pytest.raises(ValueError, match="images: a choice of 3 methods needs at least 6"):
            swept(truth, same, inverse, images=IMAGES[:count])
        assert 3 * 2.0 ** -images_needed(3) <= 0.05 < 3 * 2.0 ** (1 - images_needed(3))


class TestThePlan:
    def test_it_spans_the_strengths_and_fractions_that_the_paper_left_open(self):
        assert (SIGMAS[0], SIGMAS[-1], FRACTIONS[0], FRACTIONS[-1]) == (0.05, 3.0, 0.005, 0.3)

    def test_the_usual_strength_stands_under_its_plain_name(self):
        images = IMAGES[:1]
        plain, said = (
            xa.perturbation(name).on(images, card=MODEL.subject(SIZE).card, image_ids=[0], seed=0, gradient=None).field
            for name in ("gaussian_noise", f"gaussian_noise(sigma={SIGMA})")
        )
        assert torch.equal(plain, said)

    def test_the_reference_is_measured_once_for_all_parts(self):
        [reference] = [point for point in plan_sweep().points if point.is_reference]
        assert set(reference.parts) >= {"sigma", "fraction", "perturbation"}

    def test_every_registered_perturbation_is_in_it_or_left_out_with_a_reason(self):
        plan = plan_sweep(quick=True)
        within = {point.perturbation.name for point in plan.points if "perturbation" in point.parts}
        without = {entry["perturbation"] for entry in plan.left_out if "perturbation" in entry}
        assert within | without == set(registry.perturbations.names())
        assert not within & without

    def test_a_metric_with_a_perturbation_of_its_own_is_measured_once_beside_the_af_under_that(self):
        black = xa.perturbation("black")
        with registry.isolated():
            register = xa.register_metric("own", cells=lambda perturbation, fraction: [FidelityCell(black, fraction)])
            register(lambda evaluation, method, perturbation, fraction: None)
            points = plan_sweep(parts=["metric"], metrics=["own"]).points
        assert [(p.metric, str(p.beside)) for p in points if p.metric == "own"] == [("own", "black")]
        assert {str(p.perturbation) for p in points if p.metric == "af"} == {"black", "gaussian_noise"}

    def test_without_parts_the_reference_alone_is_left(self):
        [point] = plan_sweep(parts=["gradient_noise"]).points
        assert point.is_reference

    def test_unknown_parts_and_metrics_are_refused_with_the_nearest_name(self):
        with pytest.raises(ValueError, match="unknown part 'sigmas'; did you mean 'sigma'"):
            plan_sweep(parts=["sigmas"])
        with pytest.raises(ValueError, match="unknown metric 'fee'; did you mean 'fe'"):
            plan_sweep(metrics=["fee"])

    def test_predicted_passes_are_those_that_are_made(self):
        plan = plan_sweep(quick=True, parts=["sigma", "gradient_noise"])
        evaluation = xa.Evaluation(MODEL.subject(SIZE), IMAGES)
        methods = [method("random"), method("edges"), method("integrated_gradients(steps=4)")]
        predicted, seconds, unknown = plan.cost(evaluation, methods)
        measure(evaluation, methods, plan, {})
        assert unknown == []
        assert seconds > 0
        assert predicted.forward == evaluation.passes.forward
        assert predicted.gradient == evaluation.passes.gradient + 2 * len(IMAGES)  # the noise of the gradient


@pytest.fixture(scope="module")
def record():
    plan = plan_sweep(quick=True, metrics=["fe"])
    return swept(truth, inverse, "saliency", plan=plan, images=draw(10, 3, *SIZE))


class TestWhatIsMeasured:
    def test_every_cell_has_one_value_an_image_and_an_interval(self, record):
        assert record["cells"]
        for cell in record["cells"]:
            assert len(cell["values"]) == len(record["images"]) == 10
            assert cell["mean"] == pytest.approx(np.mean(cell["values"]))
            assert cell["interval95"][0] <= cell["mean"] + 1e-9

    def test_the_af_is_that_of_the_metric(self, record):
        score = xa.attribution_fidelity(MODEL.subject(SIZE), "edges", draw(10, 3, *SIZE), fraction=0.3)
        [cell] = [
            c
            for c in record["cells"]
            if (c["method"], c["metric"], c["perturbation"], c["fraction"]) == ("edges", "af", "gaussian_noise", 0.3)
        ]
        assert cell["values"] == pytest.approx(score.values.tolist(), abs=1e-6)

    def test_fe_orders_the_cells_as_af_does(self, record):
        [found] = record["correlations"]
        assert found["metric"] == "fe"
        assert found["cells"] == 10  # 5 methods under 2 perturbations
        assert found["spearman"] > 0.5
        assert found["interval95"][0] <= found["spearman"] <= found["interval95"][1]

    def test_circular_cells_have_no_vote(self, record):
        cells = {c["perturbation"] for c in record["cells"] if "perturbation" in c["parts"]}
        circular = {c["perturbation"] for c in record["cells"] if c.get("circular")}
        assert circular == {"fgsm"}
        assert record["choice"]["held"]["perturbation"][1] == len(cells - circular - {"gaussian_noise"})

    def test_it_is_plain_json_and_the_same_when_measured_again(self, record):
        found = document([record], complete=True, options={})
        assert json.loads(json.dumps(found, allow_nan=False))["models"] == [record]
        again = swept("edges", plan=plan_sweep(quick=True, parts=["sigma"]), images=draw(10, 3, *SIZE))
        fidelity = [c for c in record["cells"] if c["metric"] == "af"]
        values = {(c["method"], c["perturbation"], c["fraction"]): c["values"] for c in fidelity}
        for cell in again["cells"]:
            assert cell["values"] == values[cell["method"], cell["perturbation"], cell["fraction"]]

    def test_its_picture_is_1600_pixels_wide(self, record, tmp_path):
        from PIL import Image

        path = draw_picture([record], None, tmp_path / "sweep.png")
        with Image.open(path) as picture:
            assert picture.size == (1600, 1000)
        assert list(tmp_path.iterdir()) == [path]

    def test_the_callers_model_comes_out_as_it_went_in(self):
        subject = MODEL.subject(SIZE).train()
        with untouched(subject.module, IMAGES):
            swept("saliency", subject=subject, plan=plan_sweep(quick=True, parts=["gradient_noise"]))

    def test_a_metric_with_one_number_for_the_set_is_skipped(self):
        record = swept(truth, plan=plan_sweep(quick=True, parts=["metric"], metrics=["bias"]))
        assert any("one number for the whole set" in entry["reason"] for entry in record["skipped"])
        assert record["correlations"] == []

    def test_a_metric_for_which_lower_is_better_agrees_when_it_falls(self):
        with registry.isolated():

            @xa.register_metric("misfit", cells=registry.metrics.get("af").cells)
            def misfit(evaluation, method, perturbation, fraction):
                score = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
                return xa.Score(1 - score.values, score.image_ids, "misfit", higher_is_better=False)

            record = swept(truth, inverse, plan=plan_sweep(quick=True, parts=["metric"], metrics=["misfit"]))
        assert [entry["spearman"] for entry in record["correlations"]] == [1.0]


class TestAnInterruptedSweep:
    def test_what_was_measured_is_saved_after_each_method(self):
        def interrupts(model, images, target):
            raise KeyboardInterrupt

        record, saved = {}, []
        evaluation = xa.Evaluation(MODEL.subject(SIZE), IMAGES)
        with pytest.raises(KeyboardInterrupt):
            measure(
                evaluation,
                [method(truth), method(interrupts)],
                QUICK,
                record,
                lambda: saved.append(json.dumps(record)),
            )
        last = json.loads(saved[-1])
        assert {cell["method"] for cell in last["cells"]} == {"truth"}
        assert last["complete"] is False
        assert last["sentence"].startswith("pixelwise-0 (not all was measured): ship truth")


class TestRankCorrelation:
    def test_two_values_exchanged_of_four(self):
        first = np.array([[1.0], [2.0], [3.0], [4.0]]) + np.zeros((4, 6))
        second = first[[1, 0, 2, 3]]
        assert rank_correlation(first, second).value == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)

    def test_it_is_not_defined_of_few_cells_or_of_a_constant(self):
        rows = np.arange(4.0)[:, None] + np.zeros((4, 6))
        assert rank_correlation(rows[:3], rows[:3]) is None
        assert rank_correlation(rows, np.ones((4, 6))) is None


class TestGradientNoise:
    @staticmethod
    def target(output):
        return output.mean((1, 2, 3))

    def noise(self, module, level):
        subject = xa.describe(module, name="net", task="depth")
        images = torch.full((2, 3, 32, 32), level)
        return gradient_noise(subject, images, self.target, image_ids=["a", "b"])

    def test_a_linear_network_has_none(self):
        assert float(self.noise(Pixelwise(draw(3, 32, 32)), 0.1).max()) < 1e-12

    @pytest.mark.parametrize(("level", "share"), [(0.1, 0.2), (0.05, 0.5), (0.0, 1.0)])
    def test_of_a_sum_of_squares_it_is_the_noises_share_of_the_energy(self, level, share):
        # the gradient is 2 (x + d) / n, so its cosine is x^2 / (x^2 + sigma^2) with sigma = .05
        noise = self.noise(Squares(torch.ones(3, 32, 32)), level)
        assert noise.tolist() == pytest.approx(
            [share] * 2, abs=0.06
        )  # 3 standard errors of 3072 values: 3 / sqrt(3072)

    def test_where_no_gradient_is_left_there_is_no_noise(self):
        assert self.noise(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Threshold(1e6, 0.0)), 0.1).tolist() == [0.0, 0.0]

    def test_of_all_images_it_is_the_same_for_any_order_and_batch(self):
        subject = xa.describe(Squares(torch.ones(3, *SIZE)), name="net", task="depth")
        score = of_images(xa.Evaluation(subject, IMAGES))
        back = of_images(xa.Evaluation(subject, IMAGES.flip(0), image_ids=list(range(8))[::-1]))
        assert score.values.tolist() == pytest.approx(back.values.flip(0).tolist(), rel=1e-6)
        assert score.image_ids == tuple(range(8))

    def test_the_depth_is_that_of_the_layers_that_run(self):
        shared = nn.Conv2d(3, 3, 1)
        net = nn.Sequential(shared, nn.ReLU(), shared, nn.Conv2d(3, 1, 1))
        assert layers(xa.describe(net, name="net", task="depth"), IMAGES) == 3

    def test_a_strength_of_nothing_is_refused(self):
        subject = MODEL.subject(SIZE)
        with pytest.raises(ValueError, match="sigma must be above 0"):
            gradient_noise(subject, IMAGES, self.target, image_ids=range(8), sigma=0.0)

    def test_several_models_are_put_side_by_side(self):
        plan = plan_sweep(parts=["gradient_noise"])
        modules = {"linear": MODEL.subject(SIZE).module, "squares": Squares(torch.rand(3, *SIZE)), "deep": curved()}
        records = [
            swept(
                "saliency", plan=plan, subject=xa.describe(module, name=name, task="depth", mean=[0.5] * 3, std=[1] * 3)
            )
            for name, module in modules.items()
        ]
        found = depth(records)
        assert [row["model"] for row in found["models"]] == ["linear", "squares", "deep"]
        assert found["models"][0]["gradient_noise"]["mean"] == pytest.approx(0, abs=1e-12)
        assert found["spearman_noise_layers"] is not None
        assert len(depth_lines(found)) == 5
        assert depth(records[:1]) is None


def curved():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
    for number, parameter in enumerate(net.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=number))
    return net
