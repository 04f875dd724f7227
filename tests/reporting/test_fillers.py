"""A warning where the sign of AF depends on the perturbation, and only where the intervals are sure of it."""

import pytest

from xai_assert.reporting.fillers import MARK, lines, turned, turns
from xai_assert.reporting.markdown import step_summary


def cell(perturbation, low, high, **more):
    af = {"value": (low + high) / 2, "interval95": [low, high], "reference": "prediction", "aggregate": "image"}
    af |= {"asr": 0.5, "relevant_error": [1.0], "irrelevant_error": [1.0], "n": 1}
    about = {"model": "net", "method": "saliency", "perturbation": perturbation, "fraction": 0.05, "seed": 0}
    about |= {"data": "rooms", "marks": [], "gates": [], "verdict": "report", "error": None, "scores": {"af": af}}
    return about | more


NOISE, BLACK, MEAN = cell("gaussian_noise", 0.3, 0.6), cell("black", -0.4, -0.2), cell("mean", -0.1, 0.2)


def test_two_intervals_on_different_sides_of_0():
    (turn,) = turns([NOISE, MEAN, BLACK])
    assert (turn.above, turn.below) == ((NOISE,), (BLACK,))
    assert str(turn) == "net saliency at 5%: AF above 0 under gaussian_noise (+0.45); below 0 under black (-0.30)"


@pytest.mark.parametrize(
    "other",
    [
        MEAN,  # the interval holds 0
        cell("black", 0.1, 0.2),  # the same side
        cell("black", -0.4, 0.0),  # 0 is not excluded
        cell("black", -0.4, -0.2, method="edges"),
        cell("black", -0.4, -0.2, model="other"),
        cell("black", -0.4, -0.2, fraction=0.1),
        cell("black", -0.4, -0.2, seed=1),
        cell("black", -0.4, -0.2, data="streets"),
        cell("black", -0.4, -0.2, of_run=True),
        cell("black", -0.4, -0.2, scores={"fe": BLACK["scores"]["af"]}),
        cell("black", -0.4, -0.2, scores={}),
        cell("black", -0.4, -0.2, scores={"af": BLACK["scores"]["af"] | {"interval95": None}}),
        cell("black", -0.4, -0.2, scores={"af": BLACK["scores"]["af"] | {"reference": "ground_truth"}}),
    ],
)
def test_everything_else_is_no_turn(other):
    assert turns([NOISE, other]) == []


def test_each_method_and_fraction_by_itself():
    more = [cell("gaussian_noise", -0.2, -0.1, fraction=0.1), cell("black", 0.1, 0.2, fraction=0.1)]
    edges = [cell(p, 0.1, 0.2, method="edges") for p in ("gaussian_noise", "black")]
    assert [str(turn).partition(":")[0] for turn in turns([NOISE, BLACK, *more, *edges])] == [
        "net saliency at 5%",
        "net saliency at 10%",
    ]


def test_all_perturbations_are_named_also_by_their_strength():
    (turn,) = turns([NOISE, BLACK, cell("gaussian_noise(sigma=0.1)", -0.9, -0.5), cell("blur", 0.1, 0.3)])
    above, below = "gaussian_noise (+0.45), blur (+0.20)", "black (-0.30), gaussian_noise(sigma=0.1) (-0.70)"
    assert str(turn).endswith(f"AF above 0 under {above}; below 0 under {below}")


def test_the_mark_is_for_those_that_are_sure():
    assert turned(turns([NOISE, MEAN, BLACK])) == {id(NOISE), id(BLACK)}


def test_of_many_the_first_are_said():
    many = [cell(p, *ends, model=f"net-{k}") for k in range(13) for p, ends in (("a", (0.1, 0.2)), ("b", (-0.2, -0.1)))]
    said = lines(turns(many))
    assert len(said) == 11
    assert said[0].startswith("the sign of AF depends on the perturbation: net-0 saliency at 5%: ")
    assert said[-1] == "and so for 3 more: see results.json"
    assert len(lines(turns(many[:20]))) == 10
    assert lines([]) == []


def test_the_step_summary_says_it_and_marks_the_cells():
    text = step_summary([NOISE, MEAN, BLACK], ["cells: 3 reported"])
    said = [line for line in text.splitlines() if line.startswith("- the sign of AF depends on the perturbation: net")]
    assert len(said) == 1
    marked = [line.split(" | ")[2] for line in text.splitlines() if line.startswith("|") and MARK in line]
    assert marked == ["gaussian&#95;noise 5%", "black 5%"]


def test_and_nothing_where_nothing_turns():
    assert MARK not in step_summary([NOISE, MEAN], [])
    assert "depends on the perturbation" not in step_summary([NOISE, MEAN], [])
