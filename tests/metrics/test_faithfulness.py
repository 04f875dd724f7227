"""FE: the correlation, and how the pixels are cut into groups."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import Capturing, Pixelwise, draw

import xai_assert as xa
from xai_assert.metrics.faithfulness import pearson


def test_pearson_agrees_with_numpy():
    x, y = draw(6, 16, seed=1).double(), draw(6, 16, seed=2).double()
    value, constant = pearson(x, y)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert value.tolist() == pytest.approx(expected, abs=1e-14)  # a few roundings of float64
    assert not constant.any()


def test_pearson_on_paper():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double()
    assert pearson(x, 5 - 2 * x)[0].item() == pytest.approx(-1, abs=1e-15)
    # deviations (-1.5, -.5, .5, 1.5) and (-1, 1, 1, -1): they are orthogonal
    assert pearson(x, torch.tensor([[0.0, 2.0, 2.0, 0.0]]).double())[0].item() == pytest.approx(0, abs=1e-15)
    # (-1.5, -.5, .5, 1.5) . (-.5, -.5, -.5, 1.5) = 3, over sqrt(5 * 3)
    assert pearson(x, torch.tensor([[0.0, 0.0, 0.0, 2.0]]).double())[0].item() == pytest.approx(3 / 15**0.5)


@given(st.floats(-200, 200), st.floats(-200, 200), st.sampled_from([-1, 1]))
@settings(max_examples=50, deadline=None)
def test_pearson_knows_no_scale(p, q, sign):
    x, y = draw(1, 16, seed=1).double(), draw(1, 16, seed=2).double()
    value = pearson(10.0**p * x, sign * 10.0**q * y)[0]
    assert value.item() == pytest.approx(sign * pearson(x, y)[0].item(), abs=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e-30, 1e30])
def test_pearson_without_variance_is_zero_and_says_so(level):
    x = torch.stack([torch.full((5,), level), torch.arange(5.0)]).double()
    y = torch.arange(10.0).reshape(2, 5).double()
    for value, constant in (pearson(x, y), pearson(y, x)):
        assert value.tolist() == [0, pytest.approx(1)]
        assert constant.tolist() == [True, False]


def test_pearson_sees_no_variance_in_rounding():
    x = torch.tensor([[0.1 + 0.2, 0.3, 0.3, 0.3]], dtype=torch.float64)  # 0.1 + 0.2 is 0.30000000000000004
    assert x[0, 0] != x[0, 1]
    assert pearson(x, torch.arange(4.0)[None].double()) == (0, True)
    assert pearson(torch.arange(4.0)[None].double(), x) == (0, True)


@pytest.mark.parametrize("mode", ["single", "cumulative"])
@pytest.mark.parametrize(("size", "groups"), [((4, 4), 16), ((5, 7), 16), ((6, 6), 5), ((3, 3), 2)])
def test_groups_cover_every_pixel_once_and_differ_by_at_most_one(mode, size, groups):
    model = Capturing(Pixelwise(draw(3, *size)))
    images = draw(2, 3, *size, seed=1)
    score = xa.faithfulness_estimate(model, "edges", images, groups=groups, mode=mode, task="depth", batch_size=2)
    clean, *perturbed = model.seen  # a method without passes of its own: the clean forward, then the groups
    assert torch.equal(clean, images)
    assert len(perturbed) == groups == score.groups
    changed = torch.stack([(p != images).any(1).flatten(1) for p in perturbed])  # (groups, B, pixels)
    if mode == "cumulative":
        assert changed[-1].all()
        changed = torch.cat([changed[:1], changed[1:] & ~changed[:-1]])
        assert (torch.stack([(p != images).any(1).flatten(1).sum(1) for p in perturbed]).diff(dim=0) > 0).all()
    assert (changed.sum(0) == 1).all()
    sizes = changed.sum(2)
    assert sizes.max() - sizes.min() <= 1


def test_groups_go_from_the_most_relevant_on():
    model = Capturing(Pixelwise(draw(3, 4, 4)))
    images, relevance = draw(1, 3, 4, 4, seed=1), draw(1, 4, 4, seed=2).exp()
    method = xa.method(lambda model, images, target: relevance)
    xa.faithfulness_estimate(model, method, images, groups=4, task="depth", batch_size=1)
    perturbed = model.seen[1:]
    means = [relevance[0][(p != images).any(1)[0]].mean() for p in perturbed]
    assert means == sorted(means, reverse=True)
    first = (perturbed[0] != images).any(1).flatten().nonzero().flatten()
    assert set(first.tolist()) == set(relevance.flatten().topk(4).indices.tolist())


def test_error_without_variance_is_counted():
    class Unmoved(Pixelwise):
        def forward(self, images):
            return super().forward(images) * 0 + 1

    images = draw(3, 3, 4, 4)
    for mode in ("single", "cumulative"):
        score = xa.faithfulness_estimate(Unmoved(draw(3, 4, 4)), "edges", images, mode=mode, groups=4, task="depth")
        assert score.values.tolist() == [0, 0, 0]
        assert score.degenerate == 3
        assert score.constant.all()


def test_rounding_is_no_variance():
    class Whispering(Pixelwise):
        """Errors of 1e-8 of the output, proportional to the relevance: real in float64, but under the floor."""

        def forward(self, images):
            return 1 + 1e-8 * super().forward(images)

    model, images = Whispering(draw(3, 4, 4)).double(), draw(2, 3, 4, 4).double()
    score = xa.faithfulness_estimate(model, "edges", images, groups=4, task="depth")
    assert score.degenerate == 2


def test_to_dict_is_json():
    score = xa.faithfulness_estimate(Pixelwise(draw(3, 4, 4)), "edges", draw(2, 3, 4, 4), groups=4, task="depth")
    found = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert (found["metric"], found["groups"], found["mode"], found["degenerate"]) == ("fe", 4, "single", 0)
    assert score.metric == "fe"


def test_the_two_modes_are_two_cells():
    ev = xa.Evaluation(Pixelwise(draw(3, 4, 4)), draw(2, 3, 4, 4), task="depth")
    single, cumulative = (ev.faithfulness_estimate("edges", groups=4, mode=mode) for mode in ("single", "cumulative"))
    assert (single.metric, cumulative.metric) == ("fe", "fe_cumulative")
    assert not (single.values == cumulative.values).any()
