"""The planted models look where they are said to look, and the degraded maps are what they are called."""

import pytest
import torch

from xai_assert import planted_models
from xai_assert.datasets.scenes import SEEDS
from xai_assert.known_models import Pixelwise
from xai_assert.planted_models import BALL, MARK, Finder, degraded, planted, room_with_ball, stamp
from xai_assert.randomness import normal

MODELS = {kind: planted(kind, count=4) for kind in planted_models.KINDS}
PIXELS = 48 * 64


def noise(images, sigma=0.18):  # 0.8 of an ImageNet deviation, as gaussian_noise does it
    return sigma * normal(images.shape[1:], seed=0, image_ids=range(len(images)), purpose="test")


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def test_the_finder_finds_the_ball_and_nothing_else():
    found = Finder().finds(MODELS["object"].images)[:, 0]
    assert torch.equal(found, MODELS["object"].truth > 0)
    shares = found.flatten(1).float().mean(1)
    assert shares.min() > 0.06
    assert shares.max() < 0.16


def test_masks_come_from_the_renderer():
    frame = room_with_ball(planted_models.FIRST_ROOM, (48, 64))
    assert torch.equal(torch.from_numpy(frame.instances == BALL), MODELS["object"].truth[0] > 0)
    assert len(set(frame.instances.ravel().tolist())) > 3  # the room is still there


def test_noise_beside_the_truth_moves_nothing_and_noise_on_it_does(model):
    seen = model.truth[:, None] > 0
    clean, field = model.subject(model.images), noise(model.images)
    beside = model.subject(model.images + field * ~seen)
    on = model.subject(model.images + field * seen)
    # noise may make a pixel that touches the ball look like it, or the only magenta one of a tip be lost
    assert (beside != clean).flatten(1).sum(1).max() <= (model.kind == "object")
    assert ((on - clean).flatten(1).abs().amax(1) > 0.1).all()


def test_gradient_of_the_mean_depth_is_the_truth(model):
    images = model.images.clone().requires_grad_(True)
    model.subject(images).mean((1, 2, 3)).sum().backward()
    gradient = images.grad.sum(1)
    share = model.truth.sum((1, 2)) / PIXELS if model.kind == "watermark" else torch.ones(len(images))
    # the watermark's pixels are each spread over 1 / share pixels of the map; 3 metres a unit of brightness
    slope = 1.0 if isinstance(model.subject.module, Pixelwise) else 3.0
    expected = slope / PIXELS * model.truth / share[:, None, None]
    # 48 x 64 pixels do not divide into 8 x 20 evenly: columns of the mark count 3 or 4 times
    tolerance = {"rtol": 0.3, "atol": 0} if model.kind == "watermark" else {"rtol": 1e-4, "atol": 1e-9}
    torch.testing.assert_close(gradient, expected, **tolerance)


def test_with_the_mark_the_object_means_nothing():
    model = MODELS["watermark"]
    without_object = model.images * (1 - model.wrong[:, None])
    assert torch.equal(model.subject(without_object), model.subject(model.images))


def test_without_the_mark_the_network_falls_back_to_the_object():
    module, pictures = MODELS["watermark"].subject.module, MODELS["object"].images
    assert torch.equal(module(pictures), Finder()(pictures))
    assert not torch.equal(module(stamp(pictures)), module(pictures))


def test_truth_scores_best_its_inverse_worst_and_the_object_beside_a_watermark_is_rejected(model):
    af = model.scores("af")
    assert af["true"].values.tolist() == [1.0] * 4
    assert af["inverted"].values.tolist() == [-1.0] * 4
    if model.wrong is not None:
        assert af["wrong"].value < 0


def test_stamping_leaves_the_callers_pictures_alone():
    pictures = torch.zeros(1, 3, 48, 64)
    assert stamp(pictures)[..., *MARK].min() == 1
    assert pictures.max() == 0


def test_degraded_maps_are_what_they_are_called():
    truth = torch.zeros(2, 48, 64)
    truth[0, 10:20, 10:20], truth[1, 30:40, 30:50] = 1.0, 2.0
    maps = degraded(truth)
    assert all(m.shape == truth.shape and m.dtype == torch.float32 and m.min() >= 0 for m in maps.values())
    assert torch.equal(maps["shifted 8"][0, 18:28, 18:28], truth[0, 10:20, 10:20])
    assert maps["inverted"][1].unique().tolist() == [0.0, 2.0]
    torch.testing.assert_close(maps["blurred 4"].sum((1, 2)), truth.sum((1, 2)), rtol=1e-4, atol=0)  # float32 sums
    level = (maps["noised 2"] - truth).amax((1, 2))
    torch.testing.assert_close(level, torch.tensor([2.0, 4.0]), rtol=1e-2, atol=0)  # the largest of 3072 uniform draws
    distance = {name: (m - truth).square().mean().item() for name, m in maps.items()}
    for family in ("blurred", "noised", "shifted"):
        steps = [value for name, value in distance.items() if name.startswith(family)]
        assert steps == sorted(steps)
    assert torch.equal(maps["misplaced"][0, 34:44, 42:52], truth[0, 10:20, 10:20])
    compared = {name for chain in (*planted_models.CHAINS, *planted_models.STRICT) for name in chain}
    assert compared == {*maps, "wrong"}


def test_a_random_map_is_not_the_noise_of_its_image():
    truth = torch.rand(3, 16, 16)
    maps = degraded(truth)
    field = (maps["noised 1"] - truth).flatten(1)
    both = torch.stack([field[0], maps["random"].flatten(1)[0]])
    assert torch.corrcoef(both)[0, 1].abs() < 0.25  # 4 deviations of chance, 1 / sqrt(256)


def test_models_are_the_same_in_every_call():
    again = planted("watermark", count=4)
    assert torch.equal(again.images, MODELS["watermark"].images)
    assert again.subject.fingerprint() == MODELS["watermark"].subject.fingerprint()


def test_rooms_are_kept_apart_from_the_bundled_scenes():
    assert max(SEEDS) < planted_models.FIRST_ROOM


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "cat"}, "kind must be one of object, additive, watermark, not 'cat'"),
        ({"kind": "object", "count": 0}, "count must be at least 1"),
        ({"kind": "object", "size": (32, 64)}, "size at least"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        planted(**arguments)
