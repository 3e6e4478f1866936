"""Pairs from a kapture dataset with depth maps, and from models of COLMAP."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from kapture.io.records import get_depth_map_fullpath
from PIL import Image

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.depth_maps import read_depth_map
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.stages.train.posed import (
    ColmapModel,
    draw_mesh_depth,
    open_depth_views,
    open_model_views,
)
from r2d2_kapture.synthetic.rendering import PinholeCamera
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.lookups import DepthMap, inverse_of_depth
from r2d2_kapture.training.pairs import pixel_grid
from r2d2_kapture.training.posed_pairs import PinholeModel, depth_flow
from tests.scenes.rendered import (
    ROOM,
    add_depth_maps,
    correlations,
    depth_of,
    look_into_the_room,
    picture_of,
    points_of_the_room,
    reconstruction_of,
    render_depth,
    sees,
    write_photographs,
)

SIZE = (240, 180)
CAMERA = PinholeCamera(image_size=SIZE, focal_length=180)
COLMAP_CAMERA = colmap_camera(
    kapture.Camera("PINHOLE", [*SIZE, 180, 180, 119.5, 89.5]), 1, "center"
)
CONFIG = PairConfig(crop_size=64, min_side=96, max_side=180, night=0, noise=2)
POSES = {
    f"mapping/{number:04d}.jpg": look_into_the_room(x, -0.3 * x)
    for number, x in enumerate((-0.9, -0.3, 0.2, 0.8))
}
DRAWS = [(seed % 6, seed) for seed in range(16)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs of the room from four places."""
    return write_photographs(tmp_path_factory.mktemp("room"), POSES, CAMERA)


def load() -> PictureLoader:
    return PictureLoader(read_rgb, CONFIG.max_side, MemoryCache(0.1))


def with_depth(
    room: Path,
    root: Path,
    change: Callable[[kapture.Kapture], None] = lambda data: None,
) -> Path:
    """A copy with depth maps, changed before it is written, that names no origin."""
    left_out = shutil.ignore_patterns(ORIGIN_NAME)
    shutil.copytree(room, root, ignore=left_out, dirs_exist_ok=True)
    return add_depth_maps(root, POSES, CAMERA, change)


def test_a_camera_of_colmap_counts_from_the_centre_here() -> None:
    found = ColmapModel(camera=COLMAP_CAMERA)
    expected = PinholeModel(size=SIZE, intrinsics=CAMERA.intrinsics)
    points = pixel_grid(np.linspace(0, 239, 7), np.linspace(0, 179, 5))
    np.testing.assert_allclose(found.rays(points), expected.rays(points), atol=1e-12)
    np.testing.assert_allclose(found.pixels(found.rays(points)), points, atol=1e-9)
    assert found.size == SIZE


def test_lens_distortion_is_undone_and_done() -> None:
    camera = pycolmap.Camera(
        model="OPENCV",
        width=240,
        height=180,
        params=[180, 180, 120, 90, -0.1, 0.02, 1e-3, -1e-3],
    )
    model = ColmapModel(camera=camera)
    points = pixel_grid(np.linspace(0, 239, 7), np.linspace(0, 179, 5))
    rays = model.rays(points)
    np.testing.assert_allclose(model.pixels(rays), points, atol=1e-4)
    plain = (points - (119.5, 89.5)) / 180
    assert np.abs(rays - plain).max() > 0.01


def test_cameras_that_do_not_say_their_origin_are_a_warning(room, tmp_path) -> None:
    def refine(data: kapture.Kapture) -> None:
        for sensor in data.sensors.values():
            sensor.sensor_params[-1] = str(float(sensor.sensor_params[-1]) + 2)

    root = with_depth(room, tmp_path, refine)
    (text,) = open_depth_views(root, CONFIG, load()).warnings
    assert "give --camera-origin corner" in text
    assert open_depth_views(root, CONFIG, load(), "corner").warnings == ()


def test_depth_maps_give_pairs_that_show_the_same_thing(room, tmp_path) -> None:
    opened = open_depth_views(with_depth(room, tmp_path), CONFIG, load())
    assert opened.skipped == ()
    assert opened.warnings == ()
    found = correlations(opened.sources[0].source, DRAWS, crop_size=64)
    assert len(found) >= 8
    assert np.median(found) > 0.85


def test_depth_files_hold_metres_and_0_where_unknown(room, tmp_path) -> None:
    root = with_depth(room, tmp_path)
    name, pose = next(iter(POSES.items()))
    path = Path(get_depth_map_fullpath(str(root), f"{name}.depth"))
    expected = inverse_of_depth(render_depth(ROOM, pose, CAMERA))
    found = inverse_of_depth(read_depth_map(path, SIZE))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(DatasetError, match="43200 depths, expected 10 x 10"):
        read_depth_map(path, (10, 10))
    with pytest.raises(DatasetError, match="missing"):
        read_depth_map(tmp_path / "missing", SIZE)


def test_images_without_pose_depth_or_pixels_are_left_out(room, tmp_path) -> None:
    def change(data: kapture.Kapture) -> None:
        del data.trajectories[0]
        del data.records_depth[1]

    root = with_depth(room, tmp_path, change)
    opened = open_depth_views(root, CONFIG, load())
    reasons = {item.name: item.reason for item in opened.skipped}
    assert reasons == {
        "mapping/0000.jpg": "no pose",
        "mapping/0001.jpg": "no depth map",
    }
    (root / "sensors/records_data/mapping/0002.jpg").unlink()
    with pytest.raises(DatasetError, match="found no two of 1 posed images"):
        open_depth_views(root, CONFIG, load())


def test_images_without_neighbour_are_left_out_and_reported(room, tmp_path) -> None:
    def turn(data: kapture.Kapture) -> None:
        about = kapture.PoseTransform(r=[0, 0, 1, 0], t=[0, 0, 0])
        pose = data.trajectories[0, "camera"]
        turned = kapture.PoseTransform.compose([about, pose])
        data.trajectories[0, "camera"] = turned

    opened = open_depth_views(with_depth(room, tmp_path, turn), CONFIG, load())
    (alone,) = opened.skipped
    assert alone.name == "mapping/0000.jpg"
    assert alone.reason == "no nearby camera has a similar direction"
    assert opened.report_warnings()[-1].startswith(
        "1 pictures, pairs or scenes are left out: 'mapping/0000.jpg'"
    )


def other_intrinsics(data: kapture.Kapture) -> None:
    data.sensors["depth"] = kapture.Camera(
        kapture.CameraType.PINHOLE, [*SIZE, 150, 150, 119.5, 89.5], sensor_type="depth"
    )


def other_pose(data: kapture.Kapture) -> None:
    for timestamp in list(data.trajectories):
        pose = data.trajectories[timestamp, "camera"]
        shifted = kapture.PoseTransform(r=pose.r_raw, t=[*pose.t_raw[:2], 0.5])
        data.trajectories[timestamp, "depth"] = shifted


@pytest.mark.parametrize("change", [other_intrinsics, other_pose])
def test_depth_that_is_not_registered_to_an_image_is_not_used(
    room, tmp_path, change
) -> None:
    with pytest.raises(DatasetError, match="found no two of 0 posed images"):
        open_depth_views(with_depth(room, tmp_path, change), CONFIG, load())


def test_registered_depth_on_a_rig_is_used(room, tmp_path) -> None:
    def change(data: kapture.Kapture) -> None:
        data.rigs = kapture.Rigs()
        data.rigs["rig", "camera"] = kapture.PoseTransform(r=[1, 0, 0, 0], t=[0, 0, 0])
        data.rigs["rig", "depth"] = kapture.PoseTransform(r=[1, 0, 0, 0], t=[0, 0, 0])
        for timestamp in list(data.trajectories):
            pose = data.trajectories[timestamp].pop("camera")
            data.trajectories[timestamp, "rig"] = pose

    opened = open_depth_views(with_depth(room, tmp_path, change), CONFIG, load())
    assert opened.skipped == () and len(opened.sources[0].source) > 0


def test_names_that_leave_the_dataset_are_refused(room, tmp_path) -> None:
    def change(data: kapture.Kapture) -> None:
        data.records_depth[0, "depth"] = "../../secret"

    with pytest.raises(DatasetError, match="records_depth.txt"):
        open_depth_views(with_depth(room, tmp_path, change), CONFIG, load())


def test_a_dataset_without_depth_is_an_error(room) -> None:
    with pytest.raises(DatasetError, match="found no two of 0 posed images"):
        open_depth_views(room, CONFIG, load())


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Points of the room, as if triangulated."""
    return points_of_the_room(POSES, CAMERA, 2800)


def seen_by(name: str, points: np.ndarray) -> np.ndarray:
    return np.flatnonzero(sees(POSES[name], points, CAMERA))


@pytest.fixture(scope="module")
def model(points: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COLMAP model of exact points."""
    tracks = {name: seen_by(name, points) for name in POSES}
    folder = tmp_path_factory.mktemp("model")
    reconstruction_of(POSES, points, COLMAP_CAMERA, tracks).write(str(folder))
    return folder


def test_the_mesh_of_a_model_gives_nearly_the_exact_flow(points: np.ndarray) -> None:
    exact = [picture_of(name, POSES[name], CAMERA) for name in list(POSES)[1:3]]
    expected = depth_flow(
        (exact[0], exact[1]), (depth_of(exact[0]), depth_of(exact[1])), 0.03
    )
    meshed = []
    for picture in exact:
        pose = picture.cam_from_world
        seen = points[seen_by(picture.name, points)] @ pose[:3, :3].T + pose[:3, 3]
        drawn = draw_mesh_depth(ColmapModel(camera=COLMAP_CAMERA), seen)
        meshed.append(DepthMap(drawn, SIZE))
    flow = depth_flow((exact[0], exact[1]), (meshed[0], meshed[1]), 0.05)
    pixels = pixel_grid(np.arange(0, 240, 3), np.arange(0, 180, 3))
    found, truth = flow(pixels), expected(pixels)
    both = np.isfinite(found[:, 0]) & np.isfinite(truth[:, 0])
    assert both.mean() > 0.3
    errors = np.linalg.norm(found - truth, axis=1)[both]
    assert np.median(errors) < 0.1 and np.quantile(errors, 0.95) < 1.0
    # what the exact depth knows to be hidden, the mesh does not make visible
    assert np.isfinite(found[np.isnan(truth[:, 0]), 0]).mean() < 0.2


def test_a_colmap_model_gives_pairs(room: Path, model: Path) -> None:
    images = room / "sensors/records_data"
    opened = open_model_views(model, CONFIG, load(), images)
    assert opened.skipped == ()
    found = correlations(opened.sources[0].source, DRAWS, crop_size=64)
    assert len(found) >= 6
    assert np.median(found) > 0.8


def test_a_colmap_model_needs_the_folder_of_its_images(model: Path) -> None:
    with pytest.raises(DatasetError, match="--sfm-images"):
        open_model_views(model, CONFIG, load())


def test_images_that_do_not_fit_their_camera_are_left_out(
    room, model, tmp_path
) -> None:
    source = room / "sensors/records_data/mapping"
    (tmp_path / "mapping").mkdir()
    for number in (1, 2):
        name = f"{number:04d}.jpg"
        (tmp_path / "mapping" / name).symlink_to(source / name)
    Image.new("RGB", (200, 180)).save(tmp_path / "mapping/0003.jpg")
    opened = open_model_views(model, CONFIG, load(), tmp_path)
    reasons = {item.name: item.reason for item in opened.skipped}
    assert set(reasons) == {"mapping/0000.jpg", "mapping/0003.jpg"}
    assert "found 200 x 180 pixels, expected" in reasons["mapping/0003.jpg"]
    assert len(opened.sources[0].source) == 1


def test_a_kapture_model_gives_the_same_pairs(room, model, tmp_path) -> None:
    data = kcsv.kapture_from_dir(str(room))
    reconstruction = pycolmap.Reconstruction(str(model))
    ids = sorted(reconstruction.points3D)
    points = np.array([reconstruction.points3D[i].xyz for i in ids])
    data.points3d = kapture.Points3d(np.column_stack([points, np.zeros_like(points)]))
    data.observations = kapture.Observations()
    for row, point_id in enumerate(ids):
        for element in reconstruction.points3D[point_id].track.elements:
            name = reconstruction.image(element.image_id).name
            data.observations.add(row, "r2d2", name, int(element.point2D_idx))
    (tmp_path / "sensors").mkdir()
    (tmp_path / "sensors/records_data").symlink_to(room / "sensors/records_data")
    kcsv.kapture_to_dir(str(tmp_path), data)
    images = room / "sensors/records_data"
    expected = open_model_views(model, CONFIG, load(), images).sources[0].source
    (item,) = open_model_views(tmp_path, CONFIG, load()).sources
    assert len(item.source) == len(expected)
    for seed in range(4):
        one, other = (
            source.pair(0, np.random.default_rng(seed), 0.0)
            for source in (item.source, expected)
        )
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            points = pixel_grid(np.arange(5, 90, 7), np.arange(5, 90, 7))
            found, wanted = one.flow(points), other.flow(points)
            both = np.isfinite(found[:, 0]) & np.isfinite(wanted[:, 0])
            np.testing.assert_allclose(found[both], wanted[both], atol=1e-2)
            # text of 10 decimals decides a few comparisons otherwise
            assert np.mean(np.isfinite(found[:, 0]) != np.isfinite(wanted[:, 0])) < 0.03
