"""The room as kapture datasets: read back, poses, overlap, determinism."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.synthetic.dataset import (
    Shot,
    mapping_shots,
    query_shots,
    taken,
    write_room_dataset,
)
from r2d2_kapture.synthetic.rendering import PinholeCamera, render
from tests.scenes.contents import files_below
from tests.scenes.rendered import render_depth

SETTINGS = dict(mapping_images=6, query_images=2, image_size=(160, 120), seed=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_room_dataset(tmp_path_factory.mktemp("room"), **SETTINGS)


def read_shots(path: Path):
    """Name -> (4, 4) cam_from_world of a kapture dataset, and the dataset."""
    data = kcsv.kapture_from_dir(str(path))
    poses = {}
    for timestamp, sensor, name in kapture.flatten(data.records_camera):
        pose = data.trajectories[timestamp, sensor]
        w, x, y, z = pose.r_raw
        transform = np.eye(4)
        transform[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
        transform[:3, 3] = pose.t_raw
        poses[name] = transform
    return poses, data


def overlap(view, camera, other_cam_from_world):
    """Share of the pixels of a view whose point is in the field of another view."""
    cam_from_world, depth = view
    width, height = camera.image_size
    y, x = np.mgrid[0:height:2, 0:width:2].reshape(2, -1)
    rays = np.linalg.inv(camera.intrinsics) @ np.stack([x, y, np.ones_like(x)])
    points = np.vstack([rays * depth[y, x], np.ones(len(x))])
    in_other = other_cam_from_world @ np.linalg.inv(cam_from_world) @ points
    u, v, z = camera.intrinsics @ in_other[:3]
    seen = (z > 0) & (u / z > 0) & (u / z < width - 1)
    seen &= (v / z > 0) & (v / z < height - 1)
    return seen.mean()


def test_both_datasets_read_back_and_can_be_merged(dataset) -> None:
    assert (dataset.mapping_images, dataset.query_images) == (6, 2)
    for path, count in ((dataset.mapping, 6), (dataset.query, 2)):
        poses, data = read_shots(path)
        assert len(poses) == len(data.trajectories) == count
        (camera,) = data.sensors.values()
        assert camera.camera_type is kapture.CameraType.PINHOLE
        assert camera.camera_params == [160, 120, 120, 120, 79.5, 59.5]
        for name in poses:
            with Image.open(path / "sensors/records_data" / name) as image:
                assert image.size == (160, 120) and image.mode == "RGB"
    (mapping, m), (query, q) = map(read_shots, (dataset.mapping, dataset.query))
    assert not set(mapping) & set(query)
    assert not set(m.trajectories) & set(q.trajectories)


def test_poses_are_world_to_camera_and_exact(dataset):
    for path, shots in (
        (dataset.mapping, mapping_shots(0, 6)),
        (dataset.query, query_shots(0, 2)),
    ):
        poses, _ = read_shots(path)
        assert list(poses) == [shot.name for shot in shots]
        for shot in shots:
            np.testing.assert_allclose(
                poses[shot.name], shot.cam_from_world, atol=1e-12
            )


def test_images_show_the_room_from_their_poses(dataset, room):
    poses, _ = read_shots(dataset.query)
    camera = PinholeCamera(image_size=(160, 120), focal_length=120.0)
    for shot in query_shots(0, 2):
        stored = np.asarray(
            Image.open(dataset.query / "sensors/records_data" / shot.name)
        )
        expected = render(room, poses[shot.name], camera, exposure=shot.exposure)
        assert np.abs(stored.astype(int) - expected).mean() < 4


def test_blur_and_noise_have_the_deviations_that_were_asked_for():
    shot = Shot(name="a.jpg", cam_from_world=np.eye(4), exposure=1.0, noise=4.0)
    grey = np.full((60, 80, 3), 128, np.uint8)
    noisy = taken(grey, shot, seed=0)
    assert noisy.std() == pytest.approx(4.0, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert (taken(grey, shot, seed=1) != noisy).any()
    edge = np.where(np.arange(80) < 40, 0, 200).astype(np.uint8)
    edges = np.broadcast_to(edge[None, :, None], (60, 80, 3))
    blurred = taken(edges, dataclasses.replace(shot, blur=1.5, noise=0.0), seed=0)
    slope = np.diff(blurred[30, :, 0].astype(float)) / 200
    places = np.arange(79)
    assert slope @ places == pytest.approx(39, abs=0.05)
    assert slope @ (places - 39) ** 2 == pytest.approx(1.5**2, rel=0.1)


def test_every_camera_has_its_own_place_inside_the_room():
    shots = mapping_shots(0, 12) + query_shots(0, 4)
    centers = np.array([np.linalg.inv(shot.cam_from_world)[:3, 3] for shot in shots])
    assert (np.abs(centers) < [4, 3, 3]).all()
    distances = np.linalg.norm(centers[:, None] - centers, axis=2)
    assert distances[~np.eye(16, dtype=bool)].min() > 0.15


def test_neighbours_overlap(room):
    camera = PinholeCamera(image_size=(160, 120), focal_length=120.0)
    mapping = [shot.cam_from_world for shot in mapping_shots(0, 12)]
    queries = [shot.cam_from_world for shot in query_shots(0, 4)]
    views = [(pose, render_depth(room, pose, camera)) for pose in mapping + queries]
    neighbours = [overlap(view, camera, pose) for view, pose in zip(views, mapping[1:])]
    assert min(neighbours) > 0.75
    for query in views[len(mapping) :]:
        assert max(overlap(query, camera, pose) for pose in mapping) > 0.7


def test_same_seed_writes_the_same_bytes(dataset, tmp_path):
    write_room_dataset(tmp_path, **SETTINGS)
    assert files_below(tmp_path) == files_below(dataset.mapping.parent)


def test_another_seed_moves_cameras():
    for shots in (mapping_shots, query_shots):
        for a, b in zip(shots(0, 4), shots(1, 4)):
            assert not np.allclose(a.cam_from_world, b.cam_from_world)


@pytest.mark.parametrize(
    "setting", [{"mapping_images": 1}, {"query_images": 0}, {"image_size": (4, 4)}]
)
def test_settings_out_of_range_are_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        write_room_dataset(tmp_path, **setting)
    assert not list(tmp_path.iterdir())
