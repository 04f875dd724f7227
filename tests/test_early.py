"""Early decisions of an assertion: how many images are visited, in which order, and what the score then holds."""

import pytest
import torch
from known_models import Counting, Pixelwise

import xai_assert as xa
from xai_assert.batching import ImageSource
from xai_assert.early import ShuffledSource
from xai_assert.verdicts import Bound, judge

IMAGES = torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.linspace(0.1, 2, 64).reshape(8, 8).expand(3, 8, 8)


def subject():
    return xa.describe(Pixelwise(WEIGHTS), name="pixelwise", task="depth", mean=[0.5] * 3, std=[0.25] * 3, unit="m")


def early(method="saliency", min_af=0.3, what=None, batch_size=4, **more):
    images = None if isinstance(what, xa.Evaluation) else IMAGES
    options = {} if images is None else {"batch_size": batch_size}
    return xa.assert_attribution_fidelity(
        what or subject(), method, images, min_af=min_af, confidence=0.95, early=True, **options, **more
    )


def test_a_clear_pass_ends_early_and_costs_accordingly():
    model = Counting(Pixelwise(WEIGHTS))
    whole = xa.describe(model, name="counted", task="depth", mean=[0.5] * 3, std=[0.25] * 3)
    score = early(what=whole)
    assert 5 < len(score) < 50
    # per image one clean forward, two perturbed and one for the gradient; batches of 4 that are finished
    assert model.forwards <= 5 * (len(score) + 4)
    assert score.provenance["images"] == 80


def test_several_cells_of_one_evaluation_may_end_early():
    ev = xa.Evaluation(subject(), IMAGES, batch_size=4)
    first, second = early(what=ev), early(what=ev, fraction=0.1)
    assert len(first) < 80
    assert len(second) < 80
    assert torch.equal(early(what=ev).values, first.values)
    assert torch.equal(second.values, early(fraction=0.1).values)


@pytest.mark.parametrize(("share", "wrong"), [(0.4, "fail"), (0.6, "pass")])
def test_how_many_images_respond_is_decided_with_the_same_certainty(share, wrong):
    """Of 300 images 40 % (60 %) do not respond: whatever the order, hardly any run may say the contrary early."""
    values = torch.zeros(300, dtype=torch.float64)
    values[: int(300 * (1 - share))] = 1.0
    bound = Bound(min=0.1, confidence=0.95, label="_af", early=True)
    outcomes = []
    for seed in range(100):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        score = xa.Score(
            values[order],
            tuple(range(300)),
            "mine",
            range=(-1.0, 1.0),
            details={"responsive": (values[order] > 0).double()},
        )
        outcomes.append(judge(score, bound).outcome)
    assert outcomes.count(wrong) <= 11  # 5 expected at most, with a standard deviation of 2.2: 3 of them beside
    assert set(outcomes) - {wrong, "undecided"}


def test_the_size_of_a_batch_changes_nothing():
    one, many = early(batch_size=1), early(batch_size=32)
    assert one.image_ids == many.image_ids
    assert torch.equal(one.values, many.values)


def test_the_order_is_random_and_that_of_the_seed():
    ids = early().image_ids
    assert list(ids) != sorted(ids)
    assert set(ids) < set(range(80))
    assert early(seed=1).image_ids[:5] != ids[:5]


def test_each_image_has_the_value_that_it_has_without():
    score = early()
    whole = xa.attribution_fidelity(subject(), "saliency", IMAGES)
    # other batches: float32 sums in another order
    torch.testing.assert_close(score.values, whole.values[list(score.image_ids)], rtol=1e-5, atol=1e-6)


def test_what_is_wrong_fails_early_with_the_number_of_images():
    inverse = xa.method(lambda model, images, target: -xa.heatmap(model, images, "saliency"), signed="as_is")
    with pytest.raises(AssertionError, match=r"below min_af=0.300, decided after \d+ of 80 images") as caught:
        early(inverse)
    assert len(caught.value.score) < 40
    assert "control on the same images: random" in str(caught.value)


def test_what_is_never_decided_has_seen_all_images():
    mean = xa.attribution_fidelity(subject(), "random", IMAGES).mean
    with pytest.raises(AssertionError, match=r"not decided against .* after all 80 images") as caught:
        early("random", min_af=mean)
    assert len(caught.value.score) == 80


def test_an_evaluation_measures_the_rest_when_it_is_asked_for():
    evaluation = xa.Evaluation(subject(), IMAGES, batch_size=4)
    part = early(what=evaluation)
    assert len(early(what=evaluation, min_af=0.2)) <= len(part)  # what is easier needs nothing more
    harder = early(what=evaluation, min_af=0.5)
    assert len(harder) > len(part)
    assert harder.image_ids[: len(part)] == part.image_ids
    assert len(evaluation.attribution_fidelity("saliency")) == 80


def test_an_evaluation_that_has_begun_in_order_refuses():
    evaluation = xa.Evaluation(subject(), IMAGES, batch_size=4)
    evaluation.attribution_fidelity("edges")
    with pytest.raises(ValueError, match="has measured some in theirs; make a new Evaluation"):
        early(what=evaluation)


def test_a_set_is_no_mean_of_images():
    with pytest.raises(ValueError, match="early needs aggregate='image'"):
        early(aggregate="set")


def test_a_shuffled_source_has_every_image_with_its_truth_once():
    images = torch.arange(7.0).reshape(7, 1, 1, 1).expand(7, 3, 2, 2)
    source = ShuffledSource(ImageSource(images, ground_truth=images[:, 0]), seed=3)
    batches = [source.batch(start, min(start + 3, 7)) for start in (0, 3, 6)]
    assert sorted(i for batch in batches for i in batch.ids) == list(range(7))
    for batch in batches:
        assert batch.images[:, 0, 0, 0].tolist() == batch.ground_truth[:, 0, 0].tolist() == list(batch.ids)
