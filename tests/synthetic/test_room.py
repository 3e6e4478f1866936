"""The renderer against analytic truth: where points fall, how deep, of which colour."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    rectangle_from_pixel,
    render,
)
from r2d2_kapture.synthetic.room import textured_room
from r2d2_kapture.synthetic.textures import noise, painting
from tests.scenes.rendered import render_depth

CAMERA = PinholeCamera(image_size=(160, 120), focal_length=120.0)


def smooth_wall(width=4.0, color=(1.0, 1.0, 1.0)):
    """A wall of soft blobs, 3 m high in the plane y = 2, seen from smaller y."""
    channels = [
        noise(np.random.default_rng(c), (400, 300), coarsest=80, roughness=0.0)
        for c in range(3)
    ]
    texture = np.clip(0.5 + 0.15 * np.stack(channels, axis=-1), 0, 1)
    return Rectangle(
        origin=np.array([-width / 2, 2.0, 3.0]),
        edge_u=np.array([width, 0.0, 0.0]),
        edge_v=np.array([0.0, 0.0, -3.0]),
        texture=(texture * np.array(color)).astype(np.float32),
    )


def project(points, cam_from_world):
    """Pixels (N, 2), centre origin, and depths (N,) of world points (N, 3)."""
    in_camera = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    pixels = in_camera @ CAMERA.intrinsics.T
    return pixels[:, :2] / pixels[:, 2:], in_camera[:, 2]


def at_pixels(image, pixels):
    """Bilinear values of an image at (N, 2) pixels, centre origin."""
    x0, y0 = np.floor(pixels).astype(int).T
    fx, fy = (pixels - np.floor(pixels)).T[..., None]
    upper = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    lower = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return upper * (1 - fy) + lower * fy


def test_principal_point_counts_from_the_first_pixel_centre():
    assert CAMERA.principal_point == (79.5, 59.5)


def test_look_at_puts_the_target_in_the_middle_and_up_is_up():
    position, target = np.array([1.0, -2.0, 1.5]), np.array([0.2, 2.0, 1.0])
    cam_from_world = look_at(position, target)
    rotation = cam_from_world[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    (middle, above), _ = project(
        np.array([target, target + [0, 0, 0.5]]), cam_from_world
    )
    np.testing.assert_allclose(middle, CAMERA.principal_point)
    assert above[1] < middle[1] - 5
    assert above[0] == pytest.approx(middle[0])


def test_roll_turns_the_image_about_its_middle():
    position, target = np.array([1.0, -2.0, 1.5]), np.array([0.2, 2.0, 1.0])
    point = target[None] + [0.3, 0.1, 0.5]
    upright, _ = project(point, look_at(position, target))
    rolled, _ = project(point, look_at(position, target, roll=0.2))
    a, b = (pixels[0] - CAMERA.principal_point for pixels in (upright, rolled))
    assert np.linalg.norm(a) == pytest.approx(np.linalg.norm(b))
    assert np.arccos(a @ b / (a @ a)) == pytest.approx(0.2)


def test_depth_of_a_wall_is_analytic():
    wall = smooth_wall(width=20.0)
    frontal = look_at(np.array([0.0, -0.5, 1.5]), np.array([0.0, 2.0, 1.5]))
    depth = render_depth(Scene(rectangles=(wall,)), frontal, CAMERA)
    assert depth.dtype == np.float32 and depth.shape == (120, 160)
    np.testing.assert_allclose(depth, 2.5, rtol=1e-5)

    slanted = look_at(np.array([0.3, -0.5, 1.2]), np.array([1.1, 2.0, 1.6]), roll=0.1)
    depth = render_depth(Scene(rectangles=(wall,)), slanted, CAMERA)
    y, x = np.mgrid[10:110:9, 10:150:7].reshape(2, -1)
    rays = np.linalg.inv(CAMERA.intrinsics) @ np.stack([x, y, np.ones_like(x)])
    world_from_cam = np.linalg.inv(slanted)
    points = (rays * depth[y, x]).T @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    np.testing.assert_allclose(points[:, 1], 2.0, atol=1e-5)


def test_depth_is_infinite_and_image_black_where_nothing_is():
    away = look_at(np.array([0.0, -0.5, 1.5]), np.array([0.0, -3.0, 1.5]))
    scene = Scene(rectangles=(smooth_wall(),))
    assert np.isinf(render_depth(scene, away, CAMERA)).all()
    assert not render(scene, away, CAMERA).any()


def test_a_rectangle_is_seen_from_its_front_only():
    behind = look_at(np.array([0.0, 5.0, 1.5]), np.array([0.0, 2.0, 1.5]))
    assert rectangle_from_pixel(smooth_wall(), behind, CAMERA) is None


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_surface_hides_the_farther_one(order):
    wall, panel = smooth_wall(), smooth_wall(width=1.0, color=(0.0, 0.0, 1.0))
    panel = Rectangle(
        origin=panel.origin - [0.0, 1.0, 0.0],
        edge_u=panel.edge_u,
        edge_v=panel.edge_v,
        texture=panel.texture,
    )
    scene = Scene(rectangles=(wall, panel)[::order])
    frontal = look_at(np.array([0.0, -0.5, 1.5]), np.array([0.0, 2.0, 1.5]))
    image, depth = render(scene, frontal, CAMERA), render_depth(scene, frontal, CAMERA)
    assert depth[60, 80] == pytest.approx(1.5)
    assert depth[60, 5] == pytest.approx(2.5)
    assert image[60, 80, 0] == 0 and image[60, 80, 2] > 0
    assert image[60, 5, 0] > 0


def test_wall_points_show_their_texture_colour_in_every_view():
    wall = smooth_wall()
    rng = np.random.default_rng(0)
    st = rng.uniform(0.3, 0.7, size=(300, 2))
    points = wall.origin + st[:, :1] * wall.edge_u + st[:, 1:] * wall.edge_v
    height, width = wall.texture.shape[:2]
    truth = 255 * at_pixels(wall.texture, st * [width, height] - 0.5)
    for position in ([0.0, -0.5, 1.5], [-1.2, -0.3, 1.1], [0.9, 0.0, 2.0]):
        cam_from_world = look_at(np.array(position), np.array([0.0, 2.0, 1.5]), 0.05)
        pixels, _ = project(points, cam_from_world)
        image = render(Scene(rectangles=(wall,)), cam_from_world, CAMERA)
        difference = np.abs(at_pixels(image.astype(float), pixels) - truth)
        assert np.median(difference) < 1
        assert difference.max() < 6


def test_half_a_pixel_would_be_noticed():
    wall = smooth_wall()
    frontal = look_at(np.array([0.0, -0.5, 1.5]), np.array([0.0, 2.0, 1.5]))
    image = render(Scene(rectangles=(wall,)), frontal, CAMERA).astype(float)
    y, x = np.mgrid[20:100:3, 20:140:3].reshape(2, -1)
    homography = rectangle_from_pixel(wall, frontal, CAMERA)

    def error(shift):
        pixels = np.stack([x + shift, y + shift, np.ones_like(x)])
        s, t, inverse_depth = homography @ pixels
        height, width = wall.texture.shape[:2]
        texels = np.stack([s, t], axis=1) / inverse_depth[:, None] * [width, height]
        return np.abs(image[y, x] - 255 * at_pixels(wall.texture, texels - 0.5)).mean()

    assert error(0.0) < 0.5 * min(error(0.5), error(-0.5))


def test_homography_between_two_views_keeps_colours_where_unoccluded(room):
    gallery = room.rectangles[0]
    camera = PinholeCamera(image_size=(320, 240), focal_length=240.0)
    target = np.array([0.0, 1.6, 1.4])
    first = look_at(np.array([-0.3, -2.2, 1.5]), target)
    second = look_at(np.array([0.3, -2.1, 1.6]), target)
    h1, h2 = (rectangle_from_pixel(gallery, pose, camera) for pose in (first, second))
    y, x = np.mgrid[0:240, 0:320].reshape(2, -1)
    mapped = np.linalg.inv(h2) @ h1 @ np.stack([x, y, np.ones_like(x)])
    mapped = (mapped[:2] / mapped[2]).T
    depths = [render_depth(room, pose, camera) for pose in (first, second)]
    planes = [
        1 / (h[2] @ np.stack([u, v, np.ones_like(u)]))
        for h, u, v in ((h1, x, y), (h2, *mapped.T))
    ]
    inside = ((mapped >= 1) & (mapped < [318, 238])).all(axis=1)
    inside &= np.abs(depths[0][y, x] - planes[0]) < 1e-3
    near = np.rint(mapped[inside]).astype(int)
    visible = np.abs(depths[1][near[:, 1], near[:, 0]] - planes[1][inside]) < 0.05
    assert visible.sum() > 10000
    images = [render(room, pose, camera).astype(float) for pose in (first, second)]
    a = images[0][y[inside][visible], x[inside][visible]]
    b = at_pixels(images[1], mapped[inside][visible])
    assert np.median(np.abs(a - b)) < 12
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_room_is_closed_and_rich_from_every_side(room):
    for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False):
        eye = np.array([0.0, -0.5, 1.5])
        towards = eye + [np.cos(angle), np.sin(angle), 0.1]
        pose = look_at(eye, towards, roll=0.03)
        depth = render_depth(room, pose, CAMERA)
        assert np.isfinite(depth).all()
        assert 0.2 < depth.min() and depth.max() < 10
        image = render(room, pose, CAMERA).astype(float)
        assert image.std() > 25
        steps = np.abs(np.diff(image.mean(axis=2), axis=1))
        assert (steps > 8).mean() > 0.15


def test_rendering_is_deterministic_and_seeds_differ(room):
    pose = look_at(np.array([0.5, -2.0, 1.4]), np.array([0.0, 1.6, 1.2]))
    image = render(room, pose, CAMERA)
    assert image.dtype == np.uint8 and image.shape == (120, 160, 3)
    np.testing.assert_array_equal(image, render(room, pose, CAMERA))
    other = render(textured_room(1), pose, CAMERA)
    assert np.abs(image.astype(int) - other).mean() > 20


def test_exposure_is_a_gain(room):
    pose = look_at(np.array([0.5, -2.0, 1.4]), np.array([0.0, 1.6, 1.2]))
    full = render(room, pose, CAMERA).astype(int)
    half = render(room, pose, CAMERA, exposure=0.5)
    np.testing.assert_allclose(half, full / 2, atol=1)


def test_no_two_walls_are_alike(room):
    crops = [wall.texture[:400, :400] for wall in room.rectangles[:6]]
    for number, crop in enumerate(crops):
        for other in crops[number + 1 :]:
            assert np.abs(crop - other).mean() > 0.05


def test_textures_are_float_rgb_of_the_size_asked_for():
    texture = painting(np.random.default_rng(3), (90, 70))
    assert texture.dtype == np.float32 and texture.shape == (70, 90, 3)
    assert 0 <= texture.min() and texture.max() <= 1
