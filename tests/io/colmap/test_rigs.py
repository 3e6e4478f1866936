"""Rigs and frames of kapture in a COLMAP database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from tests.scenes.colmap import known_pose_model, triangulate, verify
from tests.scenes.world import Scene, pose


def test_dataset_without_rigs_fits_trivial_rigs_of_pycolmap(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    scene.dataset.rigs = None
    summary = scene.write(path)
    assert (summary.rigs, summary.frames) == (3, 12)
    verify(path)
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(path)) as database:
        for camera in database.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for stored in database.read_all_images():
            image = pycolmap.Image(
                name=stored.name, camera_id=stored.camera_id, image_id=stored.image_id
            )
            true = rigid3d_from_kapture(scene.poses[stored.name])
            model.add_image_with_trivial_frame(image, true)
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() == 120


def test_frame_may_lack_the_reference_camera(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    lost = scene.dataset.records_camera[2].pop("left")
    scene.names.remove(lost)
    assert scene.write(path).frames == 8
    verify(path)
    model = known_pose_model(path, scene.poses.__getitem__)
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_reg_images() == 11
    assert model.num_points3D() == 120


def test_nested_rig_is_flattened(tmp_path: Path, scene: Scene) -> None:
    mounted = kapture.Rigs()
    mounted["car", "rig"] = pose(0.3, [1, 2, 3])
    mounted["car", "lidar"] = pose(0, [0, 0, 0])
    for sensor_id in ("left", "right"):
        mounted["rig", sensor_id] = scene.dataset.rigs["rig", sensor_id]
    scene.write(tmp_path / "flat.db")
    scene.dataset.rigs = mounted
    assert scene.write(tmp_path / "nested.db").rigs == 2
    rigs = []
    for name in ("flat.db", "nested.db"):
        with pycolmap.Database.open(str(tmp_path / name)) as database:
            rigs.append(database.read_rig(1))
    right = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 2)
    np.testing.assert_allclose(
        rigs[0].sensor_from_rig(right).matrix(),
        rigs[1].sensor_from_rig(right).matrix(),
        atol=1e-12,
    )


def test_rig_sensors_that_the_dataset_lacks_are_left_out(
    tmp_path: Path, scene: Scene
) -> None:
    scene.dataset.rigs["rig", "absent"] = pose(0, [9, 9, 9])
    scene.dataset.rigs["other", "absent"] = pose(0, [9, 9, 9])
    assert scene.write(tmp_path / "a.db").rigs == 2


NOWHERE = kapture.PoseTransform(r=None, t=None)
STILL = pose(0, [0, 0, 0])


@pytest.mark.parametrize(
    "mounted, message",
    [
        ({("second", "left"): STILL}, "'left': found in rigs"),
        ({("rig", "rig"): STILL}, "inside itself"),
        ({("rig", "walker"): NOWHERE}, "incomplete"),
        ({("pair", "left"): STILL, ("rig", "pair"): STILL}, "'left' twice"),
    ],
)
def test_rigs_that_colmap_cannot_hold_are_refused(
    tmp_path: Path, scene: Scene, mounted: dict[tuple[str, str], Any], message: str
) -> None:
    for place, device_pose in mounted.items():
        scene.dataset.rigs[place] = device_pose
    with pytest.raises(DatasetError, match=message):
        scene.write(tmp_path / "a.db")
    assert os.listdir(tmp_path) == []


def test_image_recorded_twice_or_of_an_unknown_camera_is_refused(
    tmp_path: Path, scene: Scene
) -> None:
    scene.dataset.records_camera[77, "walker"] = scene.names[0]
    with pytest.raises(DatasetError, match="expected one record"):
        scene.write(tmp_path / "a.db")
    del scene.dataset.records_camera[77]
    scene.dataset.records_camera[77, "nobody"] = "n.jpg"
    with pytest.raises(DatasetError, match="'nobody'"):
        scene.write(tmp_path / "a.db")


def test_rig_is_verified_and_triangulated(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    scene.write(path)
    verify(path)
    with pycolmap.Database.open(str(path)) as database:
        assert database.num_inlier_matches() > 0.95 * 66 * 120
        frames = database.read_all_frames()
    assert sorted(len(list(frame.data_ids)) for frame in frames) == [1] * 4 + [2] * 4
    model = known_pose_model(path, scene.poses.__getitem__)
    for image in model.images.values():  # poses that only the rigs give are true
        true = scene.poses[image.name]
        np.testing.assert_allclose(
            image.cam_from_world().translation, true.t_raw, atol=1e-9
        )
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() == 120
    assert model.compute_mean_reprojection_error() < 1e-3
    found = np.array([point.xyz for point in model.points3D.values()])
    distances = np.linalg.norm(found[:, None] - scene.points[None], axis=2)
    assert distances.min(axis=1).max() < 1e-3
