"""Images with known cameras and poses: gt.json files and kapture datasets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import (
    CameraOrigin,
    PixelOrigin,
    principal_point_origin,
    principal_point_shift,
)
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap_cameras import (
    camera_sensors,
    colmap_camera,
    resolve_camera_origin,
)
from r2d2_kapture.io.images import image_size
from r2d2_kapture.io.kapture import check_relative_name, open_dataset
from r2d2_kapture.io.trajectories import image_records, read_camera_poses

Array = npt.NDArray[np.float64]

ROTATION_TOLERANCE = 1e-3
"""How far R R^T may be from the identity."""

SAME_PLACE = 1e-6
"""Distance of two camera centres, relative to that of the farthest two, up to which
they have no epipolar geometry."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedImage:
    """An image whose camera and pose are known.

    Attributes:
        name: relative to the folder of images, with forward slashes.
        path: of the file.
        camera: in COLMAP's pixel origin, distortion included.
        cam_from_world: OpenCV axes; x_cam = R x_world + t.
    """

    name: str
    path: Path
    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d

    @property
    def center(self) -> Array:
        """(3,) position of the camera in the world."""
        return np.asarray(self.cam_from_world.inverse().translation, dtype=np.float64)


def read_ground_truth(
    path: Path, camera_origin: CameraOrigin = "auto"
) -> list[PosedImage]:
    """Read a JSON file of ``images``, each with name, K, dist, R and t.

    x_cam = R x_world + t with OpenCV axes; dist holds OpenCV's k1 k2 p1 p2 [k3], or
    nothing. Names are relative to the folder of the file.

    Args:
        path: of the file.
        camera_origin: where principal points are counted from; ``auto`` is ``corner``
            if any lies at exactly (W / 2, H / 2), else ``center``.

    Raises:
        DatasetError: unreadable, or a field is missing or of a wrong shape.
        ImageError: the size of an image cannot be read.
    """
    try:
        entries = list(json.loads(path.read_text(encoding="utf-8"))["images"])
        names = [check_relative_name(str(entry["name"]), path) for entry in entries]
        matrices = [np.array(entry["K"], dtype=np.float64) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{path}: expected JSON with images of name, K, dist, R, t: {error}"
        ) from error
    sizes = [image_size(path.parent / name) for name in names]
    origin = _resolve_origin(matrices, sizes, camera_origin)
    images = []
    for name, entry, K, size in zip(names, entries, matrices, sizes):
        try:
            images.append(
                PosedImage(
                    name=name,
                    path=path.parent / name,
                    camera=_opencv_camera(K, entry.get("dist", []), size, origin),
                    cam_from_world=_rigid3d(entry),
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(f"{path}: image '{name}': {error}") from error
    return images


def read_posed_dataset(
    root: Path, camera_origin: CameraOrigin = "auto"
) -> list[PosedImage]:
    """Read the images of a kapture dataset that have poses, through rigs too.

    Args:
        root: of the dataset.
        camera_origin: where principal points are counted from, see
            colmap_cameras.resolve_camera_origin.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    dataset = open_dataset(root)
    origin = resolve_camera_origin(dataset.data, camera_origin)
    sensors = camera_sensors(dataset.data)
    cameras = {
        sensor_id: colmap_camera(sensor, number, origin)
        for number, (sensor_id, sensor) in enumerate(sensors.items(), start=1)
    }
    records = image_records(dataset)
    return [
        PosedImage(
            name=name,
            path=dataset.image_path(name),
            camera=cameras[records[name][1]],
            cam_from_world=pose,
        )
        for name, pose in read_camera_poses(dataset).cam_from_world.items()
        if records[name][1] in cameras
    ]


def pairs_with_baseline(
    images: Sequence[PosedImage],
) -> list[tuple[PosedImage, PosedImage]]:
    """Every pair of images whose cameras are not at one place, in order."""
    centers = np.array([image.center for image in images]).reshape(-1, 3)
    extent = float(np.linalg.norm(np.ptp(centers, axis=0))) if len(images) else 0.0
    return [
        (first, second)
        for first, second in itertools.combinations(images, 2)
        if np.linalg.norm(first.center - second.center) > SAME_PLACE * extent
    ]


def _resolve_origin(
    matrices: Sequence[Array],
    sizes: Sequence[tuple[int, int]],
    camera_origin: CameraOrigin,
) -> PixelOrigin:
    if camera_origin != "auto":
        return camera_origin
    found = {
        principal_point_origin((float(K[0, 2]), float(K[1, 2])), size)
        for K, size in zip(matrices, sizes)
        if K.shape == (3, 3)
    }
    return "corner" if "corner" in found else "center"


def _opencv_camera(
    K: Array, dist: Sequence[float], size: tuple[int, int], origin: PixelOrigin
) -> pycolmap.Camera:
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 1] != 0:
        raise ValueError(f"K: found {K.tolist()}, expected 3x3 without skew")
    if len(dist) not in (0, 4, 5):
        raise ValueError(f"dist: found {len(dist)} numbers, expected 0, 4 or 5")
    shift = principal_point_shift(origin)
    params = [K[0, 0], K[1, 1], K[0, 2] + shift, K[1, 2] + shift, *map(float, dist)]
    model = {0: "PINHOLE", 4: "OPENCV", 5: "FULL_OPENCV"}[len(dist)]
    if model == "FULL_OPENCV":
        params += [0.0, 0.0, 0.0]
    return pycolmap.Camera(model=model, width=size[0], height=size[1], params=params)


def _rigid3d(entry: Mapping[str, Any]) -> pycolmap.Rigid3d:
    R, t = (np.array(entry[name], dtype=np.float64) for name in ("R", "t"))
    rotates = R.shape == (3, 3) and np.allclose(
        R @ R.T, np.eye(3), rtol=0, atol=ROTATION_TOLERANCE
    )
    if not rotates or np.linalg.det(R) < 0 or t.shape != (3,):
        raise ValueError(
            f"R {R.tolist()}, t {t.tolist()}: expected a rotation and 3 numbers"
        )
    return pycolmap.Rigid3d(pycolmap.Rotation3d(R), t)
