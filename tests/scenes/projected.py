"""Points before a camera whose pose is known, and their projections as a view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial.transform import Rotation

from r2d2_kapture.stages.localize.cameras import FocalKnowledge, QueryImage
from r2d2_kapture.stages.localize.correspondences import Correspondences
from r2d2_kapture.stages.localize.pose_estimation import View

Array = npt.NDArray[np.float64]
CAM_FROM_WORLD = pycolmap.Rigid3d(
    pycolmap.Rotation3d(Rotation.from_rotvec([0.1, 0.2, -0.3]).as_quat()),
    np.array([3.0, -1.0, 2.0]),
)


def camera() -> pycolmap.Camera:
    return pycolmap.Camera(
        camera_id=1,
        model="SIMPLE_PINHOLE",
        width=1000,
        height=800,
        params=[900.0, 500.0, 400.0],
    )


def view(
    xy: Array,
    points: Array,
    cam_from_rig: pycolmap.Rigid3d | None = None,
    focal_length: FocalKnowledge = "fixed",
) -> View:
    image = QueryImage(
        name="a.jpg",
        path=Path("a.jpg"),
        sensor_id="camera",
        camera=camera(),
        focal_length=focal_length,
        refine_distortion=False,
        cam_from_rig=cam_from_rig or pycolmap.Rigid3d(),
    )
    each = np.arange(len(xy))
    correspondences = Correspondences(keypoints=each, points=each)
    return View(image=image, xy=xy, points=points, correspondences=correspondences)


def points_before_camera(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)) + [0, 0, 5]
