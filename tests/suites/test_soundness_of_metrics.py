"""The gate for the gates itself: planted wrong metrics are found, and right ones are left alone."""

import importlib.util
from dataclasses import dataclass

import pytest
import torch

import xai_assert as xa
from xai_assert import planted_models, registry, resources
from xai_assert.errors import NotApplicableError
from xai_assert.metrics import Cell, Metric, Score
from xai_assert.planted_models import CHANCE, faults, order, planted
from xai_assert.scores.named import register_cell

FILE = resources.suites() / "test_metrics_are_sound.py"
spec = importlib.util.spec_from_file_location("soundness_suite", FILE)
suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(suite)

# Those of ours that cannot order all explanations; the reason is the caveat of each.
EXCUSED = {
    "completeness", "complexity", "fe", "fe_cumulative", "infidelity", "infidelity_raw", "input_shift",
    "max_sensitivity", "randomization_sensitivity", "rank_agreement", "road", "sparseness",
}  # fmt: skip


@pytest.fixture(scope="module")
def additive():
    return planted("additive")


@dataclass(frozen=True, eq=False)
class OfTheMap(Cell):
    """Something of the heatmap alone, blind to the model."""

    what: str

    @property
    def key(self):
        return ("of the map", self.what)

    def measure(self, batch, perturb):
        flat = batch.heatmap.flatten(1)
        if self.what == "constant":
            return {"value": torch.full((len(flat),), 0.7)}
        if self.what == "sparseness":
            return {"value": flat.amax(1) / flat.mean(1)}
        if self.what == "brightness":  # where the map points to: what anybody would look at
            return {"value": (flat * batch.images.mean(1).flatten(1)).sum(1) / flat.sum(1)}
        return {"value": flat.sum(1)}


def plant(what, *, higher_is_better=True, caveat=""):
    values = lambda measured: measured["value"]  # noqa: E731
    metric = Metric(f"planted_{what}", "none", values, higher_is_better=higher_is_better, caveat=caveat)
    register_cell(metric, lambda perturbation, fraction: OfTheMap(what))
    return metric.name


def plant_af(name, change):
    @xa.register_metric(name)
    def changed(evaluation, method, perturbation, fraction):
        found = evaluation.attribution_fidelity(method, perturbation=perturbation, fraction=fraction)
        return Score(change(found.values), found.image_ids, name)

    return name


@pytest.mark.parametrize("what", ["constant", "sparseness", "brightness", "size"])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_metric_that_is_blind_to_the_model_is_found(additive, what, higher_is_better):
    with registry.isolated():
        name = plant(what, higher_is_better=higher_is_better)
        with pytest.raises(AssertionError, match=f"{name} does not order the explanations of planted-additive"):
            suite.check(additive, name)
        assert order(additive.scores(name)) == "none"


def test_a_metric_with_its_sign_flipped_is_found(additive):
    with registry.isolated(), pytest.raises(AssertionError, match=r"true \(-1\) is not above random"):
        suite.check(additive, plant_af("flipped", torch.neg))


def test_a_metric_that_takes_no_side_is_found(additive):
    """|AF| is high for the inverted map too: only one of the three ends is wrong."""
    with registry.isolated(), pytest.raises(AssertionError, match=r"random \(0\.\d+\) is not above inverted \(1\)"):
        suite.check(additive, plant_af("magnitude", torch.abs))


def test_a_right_metric_is_left_alone(additive):
    with registry.isolated():
        suite.check(additive, plant_af("scaled", lambda values: 3 * values + 1))
        assert order(additive.scores("scaled")) == "all"


def test_a_caveat_excuses(additive):
    with registry.isolated():
        suite.check(additive, plant("sparseness", caveat="of the map's form alone"))


def test_a_metric_that_is_not_for_the_model_is_skipped():
    with registry.isolated():

        @xa.register_metric("elsewhere")
        def elsewhere(evaluation, method, perturbation, fraction):
            raise NotApplicableError("needs labels")

        with pytest.raises(pytest.skip.Exception, match="elsewhere is not for this model: needs labels"):
            suite.test_metric_orders_explanations_or_says_that_it_cannot("additive", "elsewhere")


@pytest.mark.parametrize("metric", suite.METRICS)
def test_of_ours_only_those_with_a_known_reason_are_excused(metric):
    model = suite.planted("object")
    assert metric in EXCUSED or order(model.scores(metric)) == "all"


def test_all_metrics_of_explanations_are_judged_and_those_of_runs_are_not():
    assert {"af", "asr", "fe", "infidelity"} <= set(suite.METRICS)
    assert not {"passes", "finite", "forward_ratio"} & set(suite.METRICS)


def scores_of(**values):
    return {
        name: Score(torch.as_tensor(given, dtype=torch.float64), tuple(range(4)), "m") for name, given in values.items()
    }


def test_a_difference_within_chance_is_no_fault_and_beyond_it_is():
    ends = {"true": [0.9] * 4, "random": [0.0] * 4, "inverted": [-1.0] * 4}
    # true is lower than blurred by .1 with paired differences of +-d: their standard error is d / sqrt(3)
    for spread, expected in ((0.08, False), (0.05, True)):  # .1 against 2.5 errors of .046 and of .029
        blurred = [1.0 + d for d in (spread, -spread, spread, -spread)]
        found = faults(scores_of(**ends, **{"blurred 2": blurred}))
        assert CHANCE * spread / 3**0.5 > 0.1 or expected
        assert bool(found) is expected


def test_ends_in_order_but_a_step_out_of_it():
    scores = scores_of(
        **{
            "true": [1.0] * 4,
            "noised 0.5": [0.2] * 4,
            "noised 1": [0.6] * 4,
            "random": [0.0] * 4,
            "inverted": [-1.0] * 4,
        }
    )
    assert order(scores) == "ends"
    assert faults(scores) == ["noised 1 (0.6) is above noised 0.5 (0.2)"]


def test_a_wrong_explanation_that_scores_as_the_truth_is_a_fault():
    scores = scores_of(true=[1.0] * 4, random=[0.0] * 4, inverted=[-1.0] * 4, wrong=[1.0] * 4)
    assert faults(scores) == ["true (1) is not above wrong (1)"]
    assert order(scores) == "none"


def test_the_table_has_a_line_for_every_metric(monkeypatch):
    monkeypatch.setattr(registry.metrics, "names", lambda: ["af", "passes"])
    lines = planted_models.table("additive").splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| `af` | 1 |")
    assert lines[2].endswith("| all |")
