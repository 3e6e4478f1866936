"""Pairs from a kapture dataset with depth maps, and from structure-from-motion models.

A scene of three textured squares tells every depth and pose exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from kapture.io.records import depth_map_to_file, get_depth_map_fullpath
from PIL import Image

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.stages.train.photographs import OpenedSources
from r2d2_kapture.stages.train.posed import (
    ColmapModel,
    DepthFile,
    MeshDepth,
    open_depth_views,
    open_model_views,
)
from r2d2_kapture.synthetic.dataset import Shot, write_shots
from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    render_depth,
)
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.lookups import DepthMap, inverse_of_depth
from r2d2_kapture.training.pairs import crop_pair, pixel_grid
from r2d2_kapture.training.posed_pairs import PinholeModel, PosedPicture, depth_flow

SIZE = (240, 180)
CAMERA = PinholeCamera(image_size=SIZE, focal_length=0.75 * SIZE[0])
CONFIG = PairConfig(crop_size=64, min_side=96, max_side=180, night=0, noise=2)


@dataclass(frozen=True)
class Room:
    """The mapping images of the room; poses by name and exact depth maps."""

    root: Path
    poses: dict[str, np.ndarray]
    depths: dict[str, np.ndarray]


def square(origin, edge_u, edge_v, seed: int) -> Rectangle:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.1, 0.9, (24, 24, 3))
    return Rectangle(
        origin=np.array(origin, dtype=float),
        edge_u=np.array(edge_u, dtype=float),
        edge_v=np.array(edge_v, dtype=float),
        texture=np.kron(coarse, np.ones((8, 8, 1))).astype(np.float32),
    )


SCENE = Scene(
    rectangles=(
        square((-4, 4, 4), (8, 0, 0), (0, 0, -8), 0),
        square((-3, 3.5, 0), (6, 0, 0), (0, -3, 0), 1),
        square((0, 2.6, 1.6), (0.8, 0.2, 0), (0, 0, -0.8), 2),
    )
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A wall, a floor and a square in front of them, seen from four places."""
    root = tmp_path_factory.mktemp("room")
    target = np.array([0.2, 3.0, 1.0])
    poses = {
        f"mapping/{number:04d}.jpg": look_at(np.array([x, -0.3 * x, 1.3]), target)
        for number, x in enumerate((-0.9, -0.3, 0.2, 0.8))
    }
    shots = [
        Shot(name=name, cam_from_world=pose, exposure=1.0)
        for name, pose in poses.items()
    ]
    write_shots(root, SCENE, CAMERA, shots, first_timestamp=0)
    depths = {name: render_depth(SCENE, pose, CAMERA) for name, pose in poses.items()}
    return Room(root, poses, depths)


def load() -> PictureLoader:
    return PictureLoader(read_rgb, CONFIG.max_side, MemoryCache(0.1))


def with_depth(
    room: Room,
    root: Path,
    change: Callable[[kapture.Kapture], None] = lambda data: None,
) -> Path:
    """A copy of the dataset with a depth sensor, changed before it is written."""
    data = kcsv.kapture_from_dir(str(room.root))
    camera = data.sensors["camera"]
    data.sensors["depth"] = kapture.Camera(
        camera.camera_type, camera.camera_params, name="depth", sensor_type="depth"
    )
    data.records_depth = kapture.RecordsDepth()
    for timestamp, _, name in kapture.flatten(data.records_camera):
        depth_name = f"{name}.depth"
        data.records_depth[timestamp, "depth"] = depth_name
        path = Path(get_depth_map_fullpath(str(root), depth_name))
        path.parent.mkdir(parents=True, exist_ok=True)
        depth = np.where(np.isfinite(room.depths[name]), room.depths[name], 0)
        depth_map_to_file(str(path), depth.astype(np.float32))
        (path.parent / Path(name).name).symlink_to(
            room.root / "sensors/records_data" / name
        )
    change(data)
    kcsv.kapture_to_dir(str(root), data)
    return root


def grey_correlations(opened: OpenedSources, count: int) -> list[float]:
    """Between the crops of pairs, where the flow says they show the same thing."""
    (item,) = opened.sources
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        raw = item.source.pair(seed % len(item.source), rng, 0.0)
        pair = None if raw is None else crop_pair(raw, 64, rng, min_overlap=0.3)
        if pair is None:
            continue
        known = np.isfinite(pair.aflow[..., 0])
        x, y = np.rint(pair.aflow[known]).astype(int).T
        first = pair.image1[known].mean(axis=-1)
        second = pair.image2[y, x].mean(axis=-1)
        found.append(float(np.corrcoef(first, second)[0, 1]))
    return found


def test_a_camera_of_colmap_counts_from_the_centre_here() -> None:
    sensor = kapture.Camera(kapture.CameraType.PINHOLE, [*SIZE, 180, 180, 119.5, 89.5])
    found = ColmapModel(camera=colmap_camera(sensor, 1, "center"))
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
    found = grey_correlations(opened, 16)
    assert len(found) >= 8
    assert np.median(found) > 0.85


def test_depth_files_hold_metres_and_0_where_unknown(room, tmp_path) -> None:
    root = with_depth(room, tmp_path)
    name = next(iter(room.poses))
    path = Path(get_depth_map_fullpath(str(root), f"{name}.depth"))
    expected = inverse_of_depth(room.depths[name])
    np.testing.assert_array_equal(DepthFile(path=path, size=SIZE)(), expected)
    with pytest.raises(DatasetError, match="43200 depths, expected 10 x 10"):
        DepthFile(path=path, size=(10, 10))()
    with pytest.raises(DatasetError, match="missing"):
        DepthFile(path=tmp_path / "missing", size=SIZE)()


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
        open_depth_views(room.root, CONFIG, load())


def exact_picture(room: Room, name: str) -> PosedPicture:
    depth = room.depths[name]
    return PosedPicture(
        name=name,
        path=room.root / "sensors/records_data" / name,
        camera=PinholeModel(size=SIZE, intrinsics=CAMERA.intrinsics),
        cam_from_world=room.poses[name],
        read_inverse_depth=lambda: inverse_of_depth(depth),
    )


def depth_of(picture: PosedPicture) -> DepthMap:
    return DepthMap(picture.read_inverse_depth(), picture.camera.size)


def scattered_world_points(room: Room, count: int) -> np.ndarray:
    """Points of the scene that the images see, as if triangulated."""
    rng = np.random.default_rng(0)
    model = PinholeModel(size=SIZE, intrinsics=CAMERA.intrinsics)
    points = []
    for name, pose in room.poses.items():
        x, y = rng.integers(SIZE[0], size=count), rng.integers(SIZE[1], size=count)
        rays = model.rays(np.stack([x, y], axis=1).astype(float))
        depth = room.depths[name][y, x, None]
        camera = np.column_stack([rays, np.ones(count)]) * depth
        camera = camera[np.isfinite(depth[:, 0])]
        points.append((camera - pose[:3, 3]) @ pose[:3, :3])
    return np.concatenate(points)


def seen_by(room: Room, name: str, world: np.ndarray) -> np.ndarray:
    """Rows of the points that an image sees, by its exact depth."""
    pose = room.poses[name]
    camera = world @ pose[:3, :3].T + pose[:3, 3]
    picture = exact_picture(room, name)
    pixels = picture.camera.pixels(camera[:, :2] / camera[:, 2:])
    inverse_depth = depth_of(picture)(pixels)
    return np.flatnonzero(
        (camera[:, 2] > 0) & (np.abs(camera[:, 2] * inverse_depth - 1) < 1e-3)
    )


@pytest.fixture(scope="module")
def model(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COLMAP model of exact points."""
    world = scattered_world_points(room, 700)
    dataset = open_dataset(room.root)
    camera = colmap_camera(dataset.data.sensors["camera"], 1, "center")
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    tracks: dict[int, list[tuple[int, int]]] = {}
    poses = {n: p for _, _, n, p in _posed_records(dataset.data)}
    for image_id, (name, pose) in enumerate(poses.items(), 1):
        rows = seen_by(room, name, world)
        # where exactly points are observed is not used
        points2D = [pycolmap.Point2D(np.zeros(2)) for _ in rows]
        image = pycolmap.Image(
            name=name, camera_id=1, image_id=image_id, points2D=points2D
        )
        reconstruction.add_image_with_trivial_frame(image, rigid3d_from_kapture(pose))
        for number, row in enumerate(rows.tolist()):
            tracks.setdefault(row, []).append((image_id, number))
    for row, elements in tracks.items():
        track = pycolmap.Track([pycolmap.TrackElement(*e) for e in elements])
        reconstruction.add_point3D(world[row], track, np.zeros(3, np.uint8))
    folder = tmp_path_factory.mktemp("model")
    reconstruction.write(str(folder))
    return folder


def _posed_records(data: kapture.Kapture):
    for timestamp, sensor, name in kapture.flatten(data.records_camera):
        yield timestamp, sensor, name, data.trajectories[timestamp, sensor]


def test_the_mesh_of_a_model_gives_nearly_the_exact_flow(room: Room) -> None:
    world = scattered_world_points(room, 700)
    names = list(room.poses)[1:3]
    exact = [exact_picture(room, name) for name in names]
    expected = depth_flow(
        (exact[0], exact[1]), (depth_of(exact[0]), depth_of(exact[1])), 0.03
    )
    meshed = []
    for picture in exact:
        pose = picture.cam_from_world
        points = world[seen_by(room, picture.name, world)] @ pose[:3, :3].T
        sensor = kapture.Camera(
            kapture.CameraType.PINHOLE, [*SIZE, 180, 180, 119.5, 89.5]
        )
        camera = ColmapModel(camera=colmap_camera(sensor, 1, "center"))
        draw = MeshDepth(camera=camera, points=points + pose[:3, 3])
        meshed.append(DepthMap(draw(), SIZE))
    flow = depth_flow((exact[0], exact[1]), (meshed[0], meshed[1]), 0.05)
    pixels = pixel_grid(np.arange(0, 240, 3), np.arange(0, 180, 3))
    found, truth = flow(pixels), expected(pixels)
    both = np.isfinite(found[:, 0]) & np.isfinite(truth[:, 0])
    assert both.mean() > 0.3
    errors = np.linalg.norm(found - truth, axis=1)[both]
    assert np.median(errors) < 0.1 and np.quantile(errors, 0.95) < 1.0
    # what the exact depth knows to be hidden, the mesh does not make visible
    assert np.isfinite(found[np.isnan(truth[:, 0]), 0]).mean() < 0.2


def test_a_colmap_model_gives_pairs(room: Room, model: Path) -> None:
    images = room.root / "sensors/records_data"
    opened = open_model_views(model, CONFIG, load(), images)
    assert opened.skipped == ()
    found = grey_correlations(opened, 16)
    assert len(found) >= 6
    assert np.median(found) > 0.8


def test_a_colmap_model_needs_the_folder_of_its_images(model: Path) -> None:
    with pytest.raises(DatasetError, match="--sfm-images"):
        open_model_views(model, CONFIG, load())


def test_images_that_do_not_fit_their_camera_are_left_out(
    room, model, tmp_path
) -> None:
    source = room.root / "sensors/records_data/mapping"
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
    data = kcsv.kapture_from_dir(str(room.root))
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
    (tmp_path / "sensors/records_data").symlink_to(room.root / "sensors/records_data")
    kcsv.kapture_to_dir(str(tmp_path), data)
    images = room.root / "sensors/records_data"
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
