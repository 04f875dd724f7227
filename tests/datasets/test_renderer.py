"""The renderer against geometry worked out on paper, and rooms against what a room must be."""

import math

import numpy as np
import pytest

from xai_assert.datasets.renderer import FOCAL, Camera, Light, Scene, Solid, Texture, camera_rays, render, turn
from xai_assert.datasets.rooms import CLASSES, room, scene

GREY = Texture("plain", (0.5, 0.5, 0.5))
LAMP = Light((0.0, 2.0, 0.0), (3.0, 3.0, 3.0))
CAMERA = Camera((0.0, 0.0, 0.0))
SIZE = (48, 64)
ROUNDING = 2e-5  # relative: a dozen operations in float32, whose step is 1.2e-7, some at differences of squares


def seen(*solids, lights=(LAMP,), camera=CAMERA, size=SIZE):
    return render(Scene(solids, lights, camera), *size)


def pixel_rays(size=SIZE):
    """The ray of each pixel, (H, W, 3), worked out apart from the renderer, for a camera that looks along z."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    right, up = (columns - width / 2) / (FOCAL * width), (height / 2 - rows) / (FOCAL * width)
    return np.stack([right, up, np.ones(size)], -1)


def test_the_focal_length_is_that_of_63_degrees():
    left, right = camera_rays(CAMERA, 1, 2000)[:, [0, -1]].T
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert math.degrees(math.acos(cosine)) == pytest.approx(2 * math.degrees(math.atan(0.5 / 0.81)), abs=0.05)


def test_a_wall_across_the_view_is_equally_deep_everywhere():
    frame = seen(Solid("plane", (7.0, -3.0, 2.5), (0, 0, -1), GREY, label=1, instance=2))
    np.testing.assert_allclose(frame.depth, 2.5, rtol=ROUNDING)
    assert set(frame.labels.ravel()) == {1}
    assert set(frame.instances.ravel()) == {2}


def test_a_floor_below_the_camera():
    frame = seen(Solid("plane", (0, -1.5, 0), (0, 1, 0), GREY))
    below = pixel_rays()[..., 1] < 0
    np.testing.assert_allclose(frame.depth[below], -1.5 / pixel_rays()[..., 1][below], rtol=ROUNDING)
    assert not frame.depth[~below].any(), "above the horizon is nothing"


def test_a_pitched_camera_sees_a_wall_recede():
    pitch = math.radians(-20)
    frame = seen(Solid("plane", (0, 0, 3.0), (0, 0, -1), GREY), camera=Camera((0, 0, 0), pitch=pitch))
    up = pixel_rays()[..., 1]
    np.testing.assert_allclose(frame.depth, 3.0 / (math.cos(pitch) - up * math.sin(pitch)), rtol=ROUNDING)


@pytest.mark.parametrize("half", [(0.6, 0.6, 0.6), (0.9, 0.4, 0.5)], ids=["ball", "ellipsoid"])
def test_a_ball(half):
    centre = np.array([0.2, -0.1, 3.0])
    frame = seen(Solid("ball", tuple(centre), half, GREY))
    way, start = pixel_rays() / half, -centre / half
    a, b = (way**2).sum(-1), way @ start
    under = b * b - a * (start @ start - 1)
    expected = np.where(under >= 0, (-b - np.sqrt(np.maximum(under, 0))) / a, 0)
    np.testing.assert_array_equal(frame.depth > 0, under >= 0)
    # Next to the silhouette the root magnifies the rounding of what is under it: 1e-7 becomes 3e-4 of the radius.
    np.testing.assert_allclose(frame.depth, expected, atol=3e-4)


def test_a_box_and_a_cylinder_show_their_near_faces():
    for shape in ("box", "cylinder"):
        frame = seen(Solid(shape, (0, 0, 4.0), (0.5, 0.5, 1.0), GREY), camera=CAMERA)
        assert frame.depth[24, 32] == pytest.approx(3.0, rel=1e-3), "the middle pixel is half a pixel off the axis"
    standing = seen(Solid("cylinder", (0, -1.0, 3.0), (0.8, 0.5, 0.8), GREY), camera=Camera((0, 0, 0), pitch=-0.3))
    points = pixel_rays() @ turn(-0.3, (1, 2)).T * standing.depth[..., None]
    top = (standing.depth > 0) & (np.hypot(points[..., 0], points[..., 2] - 3.0) < 0.79)
    np.testing.assert_allclose(points[top][:, 1], -0.5, atol=1e-4)
    assert top.sum() > 50


def test_a_turned_box_is_the_box_seen_from_a_turned_camera():
    turned = seen(Solid("box", (0, 0, 3.0), (0.5, 0.4, 0.7), GREY, yaw=0.6))
    at = (-3.0 * math.sin(0.6), 0.0, 3.0 * (1 - math.cos(0.6)))
    walked = seen(Solid("box", (0, 0, 3.0), (0.5, 0.4, 0.7), GREY), camera=Camera((-at[0], 0, at[2]), yaw=-0.6))
    differ = np.abs(turned.depth - walked.depth) > 1e-4
    assert differ.sum() <= 4, "but for rays through an edge, which rounding lets pass or not"


def test_the_nearer_solid_covers_the_farther():
    near = Solid("ball", (0, 0, 2.0), (0.3, 0.3, 0.3), GREY, label=3)
    far = Solid("plane", (0, 0, 4.0), (0, 0, -1), GREY)
    for order in ([near, far], [far, near]):
        frame = seen(*order)
        assert frame.depth[24, 32] == pytest.approx(1.7, rel=1e-3)
        np.testing.assert_array_equal(frame.labels == 3, frame.depth < 3)


def test_a_solid_casts_a_shadow_where_geometry_says():
    floor = Solid("plane", (0, -1.0, 0), (0, 1, 0), GREY)
    ball = Solid("ball", (0, 0.0, 3.0), (0.25, 0.25, 0.25), GREY)
    light, camera = Light((0, 1.0, 3.0), (3, 3, 3)), Camera((0, 0.5, 0), pitch=-0.4)
    lit, shaded = (seen(floor, solid, lights=[light], camera=camera, size=(96, 128)) for solid in (_ghost(ball), ball))
    points = pixel_rays((96, 128)) @ turn(-0.4, (1, 2)).T * lit.depth[..., None] + (0, 0.5, 0)
    on_floor = np.abs(points[..., 1] + 1) < 1e-3
    from_foot = np.hypot(points[..., 0], points[..., 2] - 3.0)
    radius = 2 * 0.25 / math.sqrt(1 - 0.25**2)  # tangents from a light 1 m above the ball's middle and 2 m above ground
    darker = shaded.image.sum(-1).astype(int) < lit.image.sum(-1).astype(int) - 30
    assert darker[on_floor & (from_foot < radius - 0.03)].all()
    assert not darker[on_floor & (from_foot > radius + 0.03)].any()
    assert (darker & on_floor).sum() > 30


def _ghost(solid):
    return Solid(solid.shape, solid.centre, solid.half, solid.texture, casts=False)


def test_the_same_seed_gives_the_same_scene_and_another_another():
    first, again, other = scene(5, 48, 64), scene(5, 48, 64), scene(6, 48, 64)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.image != other.image).mean() > 0.5
    assert (first.depth != other.depth).mean() > 0.5


@pytest.mark.parametrize("seed", range(8))
def test_a_room_surrounds_the_camera(seed):
    frame = scene(seed, 60, 80)
    assert frame.depth.min() > 0.1
    assert frame.depth.max() < math.hypot(6.5, 8.5, 2.9), "no ray leaves the largest room"
    assert frame.labels.min() > 0
    assert frame.instances.min() > 0
    assert len(np.unique(frame.labels)) >= 4
    assert 20 < frame.image.mean() < 220
    assert frame.image.std() > 10


@pytest.mark.parametrize("seed", range(4))
def test_masks_and_depth_agree_where_things_end(seed):
    """A jump in depth is an edge between instances, or a thing before itself; a smooth plane is within one."""
    frame = scene(seed, 120, 160)
    jump = np.abs(np.diff(np.log(frame.depth), axis=1)) > 0.15
    border = np.diff(frame.instances.astype(int), axis=1) != 0
    assert jump.sum() > 20
    assert border[jump].mean() > 0.6, "things have legs and arms, so some jumps are within one"
    assert border[jump].mean() > 5 * border.mean(), "and chance would have it at the share of borders"


def test_every_instance_has_one_class():
    for seed in range(4):
        frame = scene(seed, 120, 160)
        for instance in np.unique(frame.instances):
            assert len(np.unique(frame.labels[frame.instances == instance])) == 1
        assert frame.labels.max() < len(CLASSES)


def test_shadows_exist_in_rooms():
    """Taking the shadows away makes parts of a room brighter and none darker, before exposure."""
    drawn = room(3)
    bare = drawn._replace(solids=[_bare(solid) for solid in drawn.solids])
    dark, light = render(drawn, 60, 80).image.astype(int), render(bare, 60, 80).image.astype(int)
    assert (np.abs(dark - light).sum(-1) > 30).mean() > 0.03


def _bare(solid):
    return Solid(**{**vars(solid), "casts": False})


def test_a_pattern_finer_than_a_pixel_fades_to_its_mean():
    fine = Texture("checker", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), period=0.001)
    frame = seen(Solid("plane", (0, 0, 3.0), (0, 0, -1), fine), lights=[])
    assert np.ptp(frame.image) == 0


def test_nothing_but_shape_makes_the_depth():
    """Colours and lamps change the picture and leave the depth alone."""
    drawn = room(2)
    lit = render(drawn, 48, 64)
    dark = render(drawn._replace(lights=[LAMP]), 48, 64)
    np.testing.assert_array_equal(lit.depth, dark.depth)
    assert (lit.image != dark.image).any()
