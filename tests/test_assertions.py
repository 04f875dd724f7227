"""assert_*: what they raise, and every line of the text."""

import pytest
import torch
from known_models import Blind, Pixelwise

import xai_assert as xa
from xai_assert.batching import Passes, counted

IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def subject():
    weights = torch.linspace(0.1, 2, 64).reshape(8, 8).expand(3, 8, 8)
    return xa.describe(Pixelwise(weights), name="pixelwise", task="depth", mean=[0.5] * 3, std=[0.25] * 3, unit="m")


def inverse(model, images, target):
    """Planted: calls relevant what matters least."""
    return -xa.heatmap(model, images, "saliency")


def lines_of(error):
    return str(error.value).splitlines()


def test_a_true_map_passes_and_returns_its_score(subject):
    score = xa.assert_attribution_fidelity(subject, "saliency", IMAGES, min_af=0.5, confidence=0.95, beats="random")
    assert score.value > 0.5


def test_a_planted_wrong_map_fails_with_all_that_is_needed(subject):
    wrong = xa.method(inverse, signed="as_is")
    with pytest.raises(AssertionError) as caught:
        xa.assert_attribution_fidelity(subject, wrong, IMAGES, min_af=0.5, image_ids=[f"img{i}" for i in range(12)])
    assert type(caught.value) is AssertionError  # a subclass would hide the first line in pytest's summary
    lines = lines_of(caught)
    assert len(lines) <= 9
    value, worst = caught.value.score.value, caught.value.score.worst(3)
    assert lines[0] == (
        "AF of pixelwise / inverse under gaussian_noise at 5% is "
        f"{value:.3f} on 12 images, below min_af=0.500 (by {0.5 - value:.3f})"
    )
    listed = ", ".join(f"{i} {v:.3f}" for i, v in worst)
    assert lines[1] == f"  images below the bound: 12 of 12 (100%); worst: {listed}"
    assert lines[2].startswith("  mean error in m after perturbing R: ")
    assert lines[3].startswith("  control on the same images: random ")
    assert lines[4].startswith("  likely: inverted? ")
    assert lines[5].startswith("  seed 0; errors against the prediction; weights as given (")
    assert lines[6] == (
        "  reproduce: xa.attribution_fidelity(subject, inverse, images, perturbation='gaussian_noise', "
        "fraction=0.05, reference='prediction', aggregate='image', asr='relevant', seed=0)"
    )
    assert list(caught.value.worst) == [i for i, _ in worst]
    for image_id, image in caught.value.worst.items():
        assert torch.equal(image, IMAGES[int(str(image_id)[3:])])
        assert image.device.type == "cpu"


def test_the_line_that_reproduces_it_does(subject):
    with pytest.raises(AssertionError) as caught:
        xa.assert_attribution_fidelity(subject, "random", IMAGES, min_af=0.9, fraction=0.1, seed=3)
    line = lines_of(caught)[-1].removeprefix("  reproduce: ")
    again = eval(line, {"xa": xa, "subject": subject, "images": IMAGES})
    assert torch.equal(again.values, caught.value.score.values)


def test_the_control_costs_nothing_until_something_fails(subject):
    passes = Passes()
    with counted(subject.module, passes):
        xa.assert_attribution_fidelity(subject, "saliency", IMAGES, min_af=0.5)
    assert (passes.forward, passes.gradient) == (2 * 12, 12)  # R and I; the map, which gives the clean prediction


def test_a_control_that_cannot_be_measured_does_not_hide_the_failure(subject):
    class Tired(torch.nn.Module):
        calls = 0

        def forward(self, images):
            type(self).calls += 1
            if type(self).calls > 4:
                raise RuntimeError("no more")
            return images.mean(1).exp()

    with pytest.raises(AssertionError) as caught:
        xa.assert_attribution_fidelity(Tired(), "saliency", IMAGES, min_af=0.99, task="depth", batch_size=12)
    assert "below min_af=0.990" in lines_of(caught)[0]
    assert "control: could not be measured (" in str(caught.value)


def test_images_that_do_not_respond_are_a_failure_whatever_the_bound():
    blind = xa.describe(Blind(), name="blind", task="depth", mean=[0.5] * 3, std=[0.25] * 3)
    with pytest.raises(AssertionError) as caught:
        xa.assert_attribution_fidelity(blind, "random", IMAGES, min_af=-1)
    words = "unresponsive: nothing that was perturbed moves the prediction on 12 of 12 images; raise the strength"
    assert words in lines_of(caught)[0]


def test_faithfulness(subject):
    xa.assert_faithfulness_estimate(subject, "saliency", IMAGES, min_fe=0.8)
    with pytest.raises(AssertionError) as caught:
        xa.assert_faithfulness_estimate(subject, xa.method(inverse, signed="as_is"), IMAGES, min_fe=0.8)
    lines = lines_of(caught)
    assert lines[0].startswith("FE of pixelwise / inverse under gaussian_noise is -")
    assert "below min_fe=0.800 (by " in lines[0]
    assert "groups=16, mode='single', seed=0)" in lines[-1]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (xa.assert_attribution_fidelity, "min_af=, max_af="),
        (xa.assert_faithfulness_estimate, "min_fe=, max_fe="),
    ],
)
def test_an_assertion_without_a_bound_is_a_type_error(subject, function, names):
    with pytest.raises(TypeError, match=f"an assertion needs a bound: give {names}"):
        function(subject, "saliency", IMAGES)


def test_any_score_passes_the_same_door():
    mine = xa.Score(torch.tensor([0.1, 0.5]), ("a", "b"), "agreement", "%")
    assert xa.assert_score(mine, min=0.3) is mine
    with pytest.raises(AssertionError) as caught:
        xa.assert_score(mine, min=0.4)
    assert lines_of(caught) == [
        "agreement is 0.300 % on 2 images, below min=0.400 (by 0.100)",
        "  images below the bound: 1 of 2 (50%); worst: a 0.100, b 0.500",
        "  reproduce: xa.assert_score(score, ...) with the Score of 'agreement'",
    ]
    with pytest.raises(TypeError, match="an assertion needs a bound"):
        xa.assert_score(mine)
    with pytest.raises(TypeError, match=r"score must be an xa\.Score, not float; wrap your numbers in one"):
        xa.assert_score(0.5, min=0.1)


def test_lower_is_better_says_above():
    mine = xa.Score(torch.tensor([3.0, 5.0]), ("a", "b"), "distance", higher_is_better=False)
    with pytest.raises(AssertionError) as caught:
        xa.assert_score(mine, max=3.5)
    assert "is 4.000 on 2 images, above max=3.500 (by 0.500)" in lines_of(caught)[0]
    assert lines_of(caught)[1] == "  images above the bound: 1 of 2 (50%); worst: b 5.000, a 3.000"


def test_an_evaluation_stands_in_place_of_subject_and_images(subject):
    ev = xa.Evaluation(subject, IMAGES)
    assert xa.assert_attribution_fidelity(ev, "saliency", min_af=0.5).value > 0.5


DEAD = {  # a perfect score, or one on the bound, of a model that ignores its input
    "insertion_auc": lambda ev: xa.assert_insertion_auc(ev, "edges", max_auc=0.1),
    "deletion_auc": lambda ev: xa.assert_deletion_auc(ev, "edges", min_auc=0.0),
    "srg": lambda ev: xa.assert_srg(ev, "edges", min_srg=0.0),
    "road": lambda ev: xa.assert_road(ev, "edges", min_road=0.0),
    "sufficiency": lambda ev: xa.assert_sufficiency(ev, "edges", min_sufficiency=0.0),
    "faithfulness": lambda ev: xa.assert_faithfulness_estimate(ev, "edges", min_fe=0.0),
    "infidelity": lambda ev: xa.assert_infidelity(ev, "edges", max_infidelity=1.0),
}


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_model_passes_no_gate(name):
    with pytest.raises(AssertionError, match=r"unresponsive: nothing that was perturbed moves the .* on 12 of 12"):
        DEAD[name](xa.Evaluation(Blind(), IMAGES, task="depth"))


def test_the_worst_images_are_those_with_the_highest_score_where_lower_is_better(subject):
    with pytest.raises(AssertionError) as caught:
        xa.assert_insertion_auc(subject, "random", IMAGES, beats="saliency")
    worst, value = caught.value.score.worst(1)[0]
    assert lines_of(caught)[1].startswith(f"  worst images: {worst} {value:.3f}")


def test_a_score_without_perturbation_is_under_none(subject):
    with pytest.raises(AssertionError, match="sparseness of pixelwise / edges is "):
        xa.assert_sparseness(subject, "edges", IMAGES, min_sparseness=0.99)
