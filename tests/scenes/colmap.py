"""What pycolmap makes of a scene: databases, models, and what others put into them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pycolmap

from tests.scenes.world import Scene


def verify(path: Path) -> None:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    pycolmap.logging.minloglevel = 2
    pycolmap.geometric_verification(
        str(path),
        pycolmap.GeometricVerifierOptions(num_threads=1),
        two_view_geometry_options=options,
    )


def known_pose_model(
    path: Path, pose_of: Callable[[str], kapture.PoseTransform]
) -> pycolmap.Reconstruction:
    """The cameras, rigs, frames and images of a database, with true poses."""
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(path)) as database:
        images = {image.image_id: image for image in database.read_all_images()}
        for camera in database.read_all_cameras():
            model.add_camera(camera)
        for rig in database.read_all_rigs():
            model.add_rig(rig)
        for frame in database.read_all_frames():
            model.add_frame(frame)
            image = images[min(data.id for data in frame.data_ids)]
            true = pose_of(image.name)
            w, x, y, z = true.r_raw
            cam_from_world = pycolmap.Rigid3d(
                pycolmap.Rotation3d(np.array([x, y, z, w])), np.array(true.t_raw)
            )
            model.frame(frame.frame_id).set_cam_from_world(
                image.camera_id, cam_from_world
            )
    for image in images.values():
        model.add_image(image)
    for frame_id in list(model.frames):
        model.register_frame(frame_id)
    return model


def triangulate(
    path: Path, model: pycolmap.Reconstruction, out: Path
) -> pycolmap.Reconstruction:
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=1, random_seed=0, ba_refine_sensor_from_rig=False
    )
    options.triangulation.ignore_two_view_tracks = False
    out.mkdir()
    return pycolmap.triangulate_points(
        model, str(path), str(path.parent), str(out), options=options
    )


def cameras_by_name(path: Path, scene: Scene) -> dict[str, pycolmap.Camera]:
    with pycolmap.Database.open(str(path)) as database:
        return dict(
            zip(sorted(scene.dataset.sensors), database.read_all_cameras(), strict=True)
        )


class Foreign:
    """A database by others: a rig of two cameras, known to them, and a stranger."""

    def __init__(self, path: Path, scene: Scene) -> None:
        self.path, self.scene = path, scene
        scene.write(path, pairs=[], read_keypoints=lambda name: np.zeros((0, 2)))
        with closing(pycolmap.Database.open(str(path))) as database:
            self.stranger = database.write_image(
                pycolmap.Image(name="stranger.jpg", camera_id=1)
            )
            frame = pycolmap.Frame(rig_id=1)
            sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 1)
            frame.add_data_id(pycolmap.data_t(sensor, self.stranger))
            database.write_frame(frame)
            database.write_keypoints(self.stranger, np.ones((5, 4), np.float32))

    def add_features(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Features of an image, and matches with the stranger."""
        keypoints = np.full((7, 6), 3, np.float32)
        with closing(pycolmap.Database.open(str(self.path))) as database:
            image_id = database.read_image_with_name(name).image_id
            database.update_keypoints(image_id, keypoints)
            sift = pycolmap.FeatureDescriptors(
                pycolmap.FeatureExtractorType.SIFT, np.zeros((7, 128), np.uint8)
            )
            database.write_descriptors(image_id, sift)
            rows = np.array([[0, 1], [6, 4]], np.uint32)
            database.write_matches(image_id, self.stranger, rows)
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = rows
            database.write_two_view_geometry(image_id, self.stranger, geometry)
        return keypoints
