"""Pictures and clouds of a map show its points and cameras, and not what lies far."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import OutputError
from r2d2_kapture.pictures.maps import (
    CAMERA_RGB,
    MapCloud,
    draw_map,
    frustum_length,
    write_map_ply,
)

GREEN = (0, 200, 0)
BLUE = (0, 0, 200)


def ring(count: int = 8) -> np.ndarray:
    """Poses of cameras around the origin that look at it, z up."""
    yaws = np.linspace(0, 360, count, endpoint=False)
    level = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    world_from_cam = Rotation.from_euler("z", yaws[:, None], degrees=True) * level
    centers = -3 * world_from_cam.as_matrix()[:, :, 2]
    rotations = world_from_cam.inv().as_matrix()
    moved = -np.einsum("nij,nj->ni", rotations, centers)
    return np.concatenate([rotations, moved[..., None]], axis=2)


@pytest.fixture
def cloud() -> MapCloud:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    colors = np.tile(np.uint8(GREEN), (500, 1))
    return MapCloud(points=points, colors=colors, cam_from_world=ring())


def pixels_of(path: Path, color: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    found: npt.NDArray[np.bool_] = np.abs(pixels - color).max(axis=2) < 20
    return found


def share_of(path: Path, color: tuple[int, int, int]) -> float:
    return float(pixels_of(path, color).mean())


def test_points_and_cameras_are_drawn(cloud: MapCloud, tmp_path: Path) -> None:
    draw_map(cloud, tmp_path / "a.png", unit="m")
    draw_map(cloud, tmp_path / "b.png", unit="m")
    assert share_of(tmp_path / "a.png", GREEN) > 5e-3
    assert share_of(tmp_path / "a.png", CAMERA_RGB) > 1e-3
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("turn", [0, 70, 180])
def test_north_is_above_and_east_to_the_right_where_they_are_known(
    turn: int, tmp_path: Path
) -> None:
    """Of a drone's map that lies anywhere; the ground is below the drone."""
    axes = Rotation.from_euler("zyx", [turn, turn / 2, turn], degrees=True).as_matrix()
    block = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (3, 3, 0.1)
    ground = np.concatenate([block + (6, 9, -30), block - (6, 9, 30)])
    down = np.diag([1.0, -1.0, -1.0]) @ axes
    centers = np.array([[x, -2.0 * x, 0] for x in range(-4, 5)]) @ axes
    poses = [np.column_stack([down, -down @ center]) for center in centers]
    cloud = MapCloud(
        points=ground @ axes,
        colors=np.repeat(np.array([GREEN, BLUE], np.uint8), 200, axis=0),
        cam_from_world=np.array(poses),
    )
    draw_map(cloud, tmp_path / "map.png", unit="m", axes=axes)
    (north, east), (south, west) = (
        np.nonzero(pixels_of(tmp_path / "map.png", color)) for color in (GREEN, BLUE)
    )
    red = np.nonzero(pixels_of(tmp_path / "map.png", CAMERA_RGB))
    assert north.min() < south.min() and east.min() > west.min()
    assert red[0].max() < north.max()  # in the side view, which is below


def test_far_points_do_not_shrink_the_picture(cloud: MapCloud, tmp_path: Path) -> None:
    points = cloud.points.copy()
    points[:3] *= 1e5
    draw_map(cloud, tmp_path / "a.png", unit="m")
    far = dataclasses.replace(cloud, points=points)
    draw_map(far, tmp_path / "far.png", unit="m")
    near = share_of(tmp_path / "a.png", GREEN)
    assert share_of(tmp_path / "far.png", GREEN) == pytest.approx(near, rel=0.1)


def test_a_long_map_is_drawn_in_silence(
    cloud: MapCloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Matplotlib logs a warning where limits do not have the shape of the panel."""
    for axis in range(3):
        points = cloud.points * np.where(np.arange(3) == axis, 40, 1)
        draw_map(dataclasses.replace(cloud, points=points), tmp_path / "a.png", unit="")
    assert caplog.messages == []


@pytest.mark.parametrize("cameras", [1, 2, 300])
def test_maps_of_any_size(cloud: MapCloud, tmp_path: Path, cameras: int) -> None:
    few = dataclasses.replace(cloud, cam_from_world=ring(cameras))
    draw_map(few, tmp_path / "few.png", unit="m")
    empty = dataclasses.replace(few, points=np.zeros((0, 3)), colors=cloud.colors[:0])
    draw_map(empty, tmp_path / "empty.png", unit="m")
    assert share_of(tmp_path / "empty.png", CAMERA_RGB) > 1e-4
    assert share_of(tmp_path / "empty.png", GREEN) == 0


def test_a_ply_holds_the_points_first_and_red_cameras(
    cloud: MapCloud, tmp_path: Path
) -> None:
    write_map_ply(cloud, tmp_path / "map.ply")
    model = pycolmap.Reconstruction()
    model.import_PLY(str(tmp_path / "map.ply"))
    found = [model.point3D(number) for number in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in found])
    colors = np.array([point.color for point in found])
    np.testing.assert_allclose(xyz[:500], cloud.points, atol=1e-6)
    assert (colors[:500] == GREEN).all() and (colors[500:] == CAMERA_RGB).all()
    # all of a camera is near its centre, 3 from the origin, where the points are not
    length = frustum_length(np.array([[3.0, 0, 0]]), 10.0)
    distances = np.linalg.norm(xyz[500:], axis=1)
    assert len(distances) % 8 == 0 and len(distances) > 0
    assert (np.abs(distances - 3) < 1.5 * length).all()


def test_colours_of_a_model(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(num_points3D=6)
    model = pycolmap.synthesize_dataset(options)
    first, second, third, *_ = sorted(model.points3D)
    model.point3D(first).color = np.array([0, 0, 0], np.uint8)
    model.point3D(second).color = np.array([1, 2, 3], np.uint8)
    model.point3D(third).xyz = np.array([np.nan, 0, 0])
    cloud = MapCloud.of_model(model)
    assert (
        cloud.colors[0].min() > 50
    ), "black points have no colour, and show all the same"
    assert cloud.colors[1].tolist() == [1, 2, 3]
    assert len(cloud.points) == len(model.points3D) - 1
    assert len(cloud.cam_from_world) == model.num_reg_images()


def test_a_picture_that_cannot_be_written(cloud: MapCloud, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        draw_map(cloud, tmp_path / "file" / "map.png", unit="m")
