"""Sparseness, complexity, localisation and rank agreement on cases worked out on paper."""

import math

import pytest
import torch
from known_models import Counting, Pixelwise, draw

import xai_assert as xa
from xai_assert.metrics.complexity import entropy
from xai_assert.metrics.sparseness import gini

IMAGES = draw(2, 3, 2, 2, seed=1)
IDS = ("a", "b")
MODEL = Pixelwise(draw(3, 2, 2))


def shows(rows, signed=None):
    """A method whose map is this one (H, W) for every image, or these (B, H, W)."""
    values = torch.tensor(rows, dtype=torch.float32)

    def planted(model, images, target):
        return values.expand(len(images), -1, -1).clone()

    return xa.method(planted, signed=signed)


def measure(metric, method, **options):
    return metric(MODEL, method, IMAGES, task="depth", image_ids=IDS, **options).values.tolist()


def test_gini_and_entropy_on_paper():
    rows = torch.tensor([[0.0, 0.0, 0.0, 5.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    # sum over i of (2 i - n - 1) x_i / (n sum x): (-3 - 2 + 3 + 12) / 40 = 1/4
    assert gini(rows).tolist() == pytest.approx([0.75, 0.0, 0.5, 0.25])
    shares = [0.1, 0.2, 0.3, 0.4]
    expected = [0.0, 1.0, math.log(2) / math.log(4), -sum(s * math.log(s) for s in shares) / math.log(4)]
    assert entropy(rows).tolist() == pytest.approx(expected)


def test_form_knows_neither_scale_nor_place():
    image = draw(1, 64).double().exp()
    shuffled = image[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    for metric in (gini, entropy):
        assert metric(1000 * shuffled).item() == pytest.approx(metric(image).item(), abs=1e-12)  # the order of the sum


def test_one_hot_pixel_is_sparser_and_simpler_than_a_cloud():
    hot, cloud = shows([[0, 0], [0, 1]]), shows([[3, 4], [4, 3]])
    assert measure(xa.sparseness, hot) == [0.75, 0.75]
    assert measure(xa.complexity, hot) == [0, 0]
    assert measure(xa.sparseness, cloud)[0] < 0.1 < 0.9 < measure(xa.complexity, cloud)[0]
    xa.assert_sparseness(MODEL, hot, IMAGES, task="depth", min_sparseness=0.5)
    xa.assert_complexity(MODEL, hot, IMAGES, task="depth", max_complexity=0.5)
    with pytest.raises(AssertionError, match="below min_sparseness"):
        xa.assert_sparseness(MODEL, cloud, IMAGES, task="depth", min_sparseness=0.5)
    with pytest.raises(AssertionError, match="above max_complexity"):
        xa.assert_complexity(MODEL, cloud, IMAGES, task="depth", max_complexity=0.5)


def test_negative_relevance_is_raised_until_the_least_is_nothing():
    assert measure(xa.sparseness, shows([[-2, -2], [-2, 3]], "as_is")) == [0.75, 0.75]
    assert measure(xa.complexity, shows([[-2, -2], [-2, 3]], "as_is")) == [0, 0]


MASKS = torch.tensor([[[True, True], [False, False]], [[True, False], [False, False]]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mass", [6 / 10, 4 / 10]),
        ("rank", [1 / 2, 1.0]),  # the two highest of the first, the highest of the second
        ("pointing", [1.0, 1.0]),
        ("share", [1 / 2, 1 / 4]),
    ],
)
def test_localisation_on_paper(kind, expected):
    method = shows([[4, 2], [3, 1]])
    if kind == "share":
        score = xa.localization(MODEL, method, IMAGES, masks=MASKS, task="depth")
        assert score.details["share"].tolist() == expected
    else:
        assert measure(xa.localization, method, masks=MASKS, kind=kind) == pytest.approx(expected)


def test_masks_may_go_by_id():
    method, by_id = shows([[4, 2], [3, 1]]), {"b": MASKS[1], "a": MASKS[0]}
    assert measure(xa.localization, method, masks=by_id) == measure(xa.localization, method, masks=MASKS)


def test_masks_follow_their_images_in_any_batch():
    images, masks = draw(5, 3, 4, 4), draw(5, 4, 4, seed=2) > 0
    found = [
        xa.localization(Pixelwise(draw(3, 4, 4)), "edges", images, masks=masks, task="depth", batch_size=size).values
        for size in (1, 2, 5)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_masks_that_were_written_on_are_other_masks():
    ev, masks = xa.Evaluation(MODEL, IMAGES, task="depth"), MASKS.clone()
    before = xa.localization(ev, "edges", masks=masks)
    masks[0] = ~masks[0]
    after = xa.localization(ev, "edges", masks=masks)
    assert after.values[0] == pytest.approx(1 - before.values[0].item())
    assert after.provenance["masks"] != before.provenance["masks"]


def test_masks_follow_their_images_when_these_are_visited_in_random_order():
    images, masks, model = draw(12, 3, 4, 4), draw(12, 4, 4, seed=2) > 0, Pixelwise(draw(3, 4, 4))
    found = xa.localization(model, "edges", images, masks=masks, task="depth")
    ev = xa.Evaluation(model, images, task="depth")
    ev.shuffle()
    shuffled = xa.localization(ev, "edges", masks=masks)
    assert shuffled.image_ids != found.image_ids
    by_id = dict(zip(found.image_ids, found.values.tolist(), strict=True))
    assert shuffled.values.tolist() == pytest.approx([by_id[i] for i in shuffled.image_ids])


def test_the_right_map_is_told_from_the_wrong_one():
    images, masks = draw(12, 3, 4, 4), torch.zeros(12, 4, 4, dtype=torch.bool)
    masks[:, :2] = True
    right, wrong = shows(masks[0].float().tolist()), shows((~masks[0]).float().tolist())
    model = Pixelwise(draw(3, 4, 4))
    options = {"masks": masks, "task": "depth", "min_localization": 0.9}
    for kind in ("mass", "rank", "pointing"):
        xa.assert_localization(model, right, images, kind=kind, beats="random", **options)
        with pytest.raises(AssertionError, match=r"below min_localization=0\.900"):
            xa.assert_localization(model, wrong, images, kind=kind, **options)


def test_a_random_map_gets_the_masks_share():
    images, masks = draw(64, 3, 6, 6), draw(64, 6, 6, seed=3) > 0.5
    for kind in ("mass", "rank", "pointing"):
        score = xa.localization(Pixelwise(draw(3, 6, 6)), "random", images, masks=masks, kind=kind, task="depth")
        away = score.values - score.details["share"]
        assert abs(away.mean()) < 4 * away.std() / 8  # 4 standard errors of 64 images


@pytest.mark.parametrize(
    ("masks", "error", "text"),
    [
        (torch.stack([MASKS[0], torch.zeros(2, 2, dtype=torch.bool)]), ValueError, "images b is empty"),
        (torch.stack([torch.ones(2, 2, dtype=torch.bool), MASKS[0]]), ValueError, "images a is full"),
        (MASKS[:1], ValueError, "masks has 1 masks for 2 images"),
        (torch.ones(2, 3, 3) > 0, ValueError, r"that of image a is \(3, 3\), the image \(2, 2\)"),
        ({"a": MASKS[0], "b": torch.ones(3, 3) > 0}, ValueError, r"that of image b is \(3, 3\), the image \(2, 2\)"),
        (torch.full((2, 2, 2), 0.3), ValueError, "that of image a holds other values than true and false"),
        (MASKS[0], ValueError, r"masks must be \(n, H, W\), not \(2, 2\)"),
        ({"a": MASKS[0]}, ValueError, "masks has none for the images b"),
        ([MASKS], TypeError, "masks must be a tensor"),
    ],
    ids=[
        "empty",
        "full",
        "too few",
        "another size",
        "one of another size",
        "soft",
        "one alone",
        "an id missing",
        "a list",
    ],
)
def test_bad_masks_are_refused(masks, error, text):
    with pytest.raises(error, match=text):
        measure(xa.localization, "edges", masks=masks)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of 'mass', 'rank', 'pointing', not 'area'"):
        measure(xa.localization, "edges", masks=MASKS, kind="area")


def test_agreement_on_paper():
    one, alike, other = shows([[1, 2], [3, 4]]), shows([[10, 20], [30, 99]]), shows([[2, 1], [3, 4]])
    assert measure(xa.rank_agreement, one, other=alike) == [1, 1]
    assert measure(xa.rank_agreement, one, other=shows([[4, 3], [2, 1]])) == [-1, -1]
    # 1 - 6 sum d^2 / (n (n^2 - 1)) = 1 - 6 * 2 / 60
    assert measure(xa.rank_agreement, one, other=other) == pytest.approx([0.8, 0.8])


def test_agreement_is_asserted():
    xa.assert_rank_agreement(
        MODEL, shows([[1, 2], [3, 4]]), IMAGES, other=shows([[1, 2], [3, 5]]), min_agreement=0.9, task="depth"
    )
    with pytest.raises(AssertionError, match=r"above max_agreement=0\.500"):
        xa.assert_rank_agreement(MODEL, "edges", IMAGES, max_agreement=0.5, task="depth")


def test_agreement_costs_the_other_method_once():
    model = Counting(Pixelwise(draw(3, 4, 4)))
    ev = xa.Evaluation(model, draw(3, 3, 4, 4), task="depth")
    xa.rank_agreement(ev, "edges", other="saliency")
    assert (model.forwards, model.backwards) == (3 + 3, 3)
    assert ev.passes_of("edges") == ev.expected_passes("edges")


def test_a_constant_other_map_is_refused():
    with pytest.raises(xa.DegenerateHeatmapError, match="planted is constant for 2 of 2 images"):
        measure(xa.rank_agreement, "edges", other=shows([[1, 1], [1, 1]]))
