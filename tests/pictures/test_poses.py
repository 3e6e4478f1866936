"""Pictures of poses show what they should, seen from where they say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import OutputError
from r2d2_kapture.pictures.poses import (
    COLORS,
    INK,
    MAP_CAMERAS,
    MAP_POINTS,
    PlanMap,
    draw_cumulative_errors,
    draw_plan,
    magnification,
)
from tests.scenes.poses import moved, random_poses, rigid3d

UPRIGHT = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
"""world_from_cam of a camera that looks along y in a world where z points up."""


def ring(count=12, heights=0.0, radius=(3.0, 2.0)):
    """Upright cameras on an ellipse that look outwards, z up."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return {
        f"{number}.jpg": rigid3d(
            Rotation.from_euler("z", angle) * UPRIGHT,
            [-radius[0] * np.sin(angle), radius[1] * np.cos(angle), heights * number],
        )
        for number, angle in enumerate(angles)
    }


def read(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(float) / 255


def share_of(picture, color):
    """Share of the pixels that are nearly of a colour."""
    return (np.abs(picture - np.array(to_rgb(color))).max(axis=2) < 0.1).mean()


@pytest.mark.parametrize(
    "errors, expected",
    [
        ([], 1),
        ([0.0, 0.0], 1),
        ([1.0], 1),  # 10 % of the extent is easily seen
        ([0.6], 1),
        ([0.061], 5),
        ([0.006], 100),
        ([0.0059, 1e-9], 100),
        ([5e-5], 10000),
    ],
)
def test_small_errors_grow_by_a_round_number(errors, expected):
    assert magnification(np.array(errors), 10.0) == pytest.approx(expected)


# pictures


def errors_of(count, missing=0, seed=0):
    rng = np.random.default_rng(seed)
    errors = rng.lognormal(-3, 1, (2, count))
    errors[:, :missing] = np.inf
    return errors[0], errors[1]


def test_curves_have_a_colour_each(tmp_path):
    path = tmp_path / "new folder" / "errors.png"
    curves = {"ours": errors_of(50), "theirs $x_1$": errors_of(50, 20, seed=1)}
    draw_cumulative_errors(curves, path, thresholds=((0.25, 2.0), (0.5, 5.0)))
    picture = read(path)
    assert picture.shape == (460, 1100, 3)
    for color in COLORS[:2]:
        assert share_of(picture, color) > 1e-3
    assert share_of(picture, COLORS[2]) == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["errors.png"]


def top_of(picture, color):
    """The uppermost row, 0 to 1, of a colour below the legend."""
    rows = (np.abs(picture - np.array(to_rgb(color))).max(axis=2) < 0.1).any(axis=1)
    return np.flatnonzero(rows[30:])[0] / len(rows)


def test_missing_images_keep_a_curve_down(tmp_path):
    for missing in (0, 25):
        path = tmp_path / f"{missing}.png"
        draw_cumulative_errors({"x": errors_of(50, missing)}, path)
    whole, half = read(tmp_path / "0.png"), read(tmp_path / "25.png")
    assert top_of(half, COLORS[0]) > top_of(whole, COLORS[0]) + 0.3


@pytest.mark.parametrize("value", [0.0, np.inf, 1e-12, 1e12])
def test_curves_of_extreme_errors(tmp_path, value):
    errors = np.full(3, value)
    path = tmp_path / "errors.png"
    draw_cumulative_errors({"x": (errors, errors)}, path, thresholds=((0.25, 2.0),))
    assert read(path).shape == (460, 1100, 3)


def test_a_plan_shows_each_estimate(tmp_path):
    true = ring()
    estimates = {
        "ours": {name: moved(pose, (0.01, 0, 0)) for name, pose in true.items()},
        "theirs": {name: moved(pose, (0.3, 0.2, 0)) for name, pose in true.items()},
    }
    draw_plan(true, estimates, tmp_path / "plan.png")
    picture = read(tmp_path / "plan.png")
    for color in (*COLORS[:2], INK):
        assert share_of(picture, color) > 5e-4
    assert share_of(picture, COLORS[2]) == 0


def test_a_plan_shows_the_map_and_not_what_is_far(tmp_path):
    true = ring()
    estimates = {
        "ours": {name: moved(pose, (0.1, 0, 0)) for name, pose in true.items()}
    }
    points = np.random.default_rng(0).uniform(-4, 4, (2000, 3))
    poses = np.array([pose.matrix() for pose in ring(20, radius=(2, 1)).values()])
    near = PlanMap(points=points, cam_from_world=poses)
    far = PlanMap(points=points * np.where(points < 3.9, 1, 1e4), cam_from_world=poses)
    for name, mapped in (("none", None), ("near", near), ("far", far)):
        draw_plan(true, estimates, tmp_path / f"{name}.png", mapped=mapped)
    none, near, far = (read(tmp_path / f"{n}.png") for n in ("none", "near", "far"))
    for color in (MAP_CAMERAS, MAP_POINTS):
        assert share_of(near, color) > share_of(none, color) + 1e-3
    assert share_of(far, MAP_POINTS) == pytest.approx(
        share_of(near, MAP_POINTS), rel=0.2
    )
    assert share_of(far, COLORS[0]) == pytest.approx(share_of(near, COLORS[0]), rel=0.2)


def test_a_plan_without_estimates_still_shows_the_truth(tmp_path):
    draw_plan(ring(), {"nothing": {}}, tmp_path / "empty.png")
    draw_plan(ring(), {"all": ring()}, tmp_path / "full.png")
    empty, full = read(tmp_path / "empty.png"), read(tmp_path / "full.png")
    assert share_of(empty, INK) > 5e-4
    assert share_of(full, COLORS[0]) > 5 * share_of(empty, COLORS[0])  # legend only


@pytest.mark.parametrize("count", [1, 2, 200])
def test_plans_of_any_number_of_cameras(tmp_path, count):
    true = random_poses([str(number) for number in range(count)])
    found = {n: moved(p, (0, 0.1, 0)) for n, p in true.items() if n != "1"}
    found["unknown"] = next(iter(true.values()))
    draw_plan(true, {f"{i}": found for i in range(4)}, tmp_path / "plan.png")
    height, width, _ = read(tmp_path / "plan.png").shape
    assert width == 1100 and height < 2200


def test_the_same_poses_give_the_same_picture(tmp_path):
    true = ring(heights=0.2)
    estimates = {"x": {n: moved(p, (0.1, 0.1, 0), 3) for n, p in true.items()}}
    for name in ("a.png", "b.png"):
        draw_plan(true, estimates, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        draw_plan(ring(), {"x": {}}, tmp_path / "file" / "plan.png")


def test_drawing_needs_no_window_system():
    assert "matplotlib.pyplot" not in sys.modules
