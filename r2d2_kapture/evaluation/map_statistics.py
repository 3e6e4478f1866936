"""What a map is worth by itself: tracks, reprojection errors, and its weak images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.sparse import csr_array

from r2d2_kapture.types import IndexArray

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ImageStatistics:
    """An image of a map in numbers.

    Attributes:
        name: of the image.
        camera_id: COLMAP's.
        keypoints: that the map holds of it.
        observations: those of them that see a point.
        mean_error: of these, in pixels; None where it sees no point.
    """

    name: str
    camera_id: int
    keypoints: int
    observations: int
    mean_error: float | None


@dataclass(frozen=True, kw_only=True)
class CameraStatistics:
    """A camera of a map.

    Attributes:
        camera_id: COLMAP's.
        model: COLMAP's name of it.
        size: (W, H) in pixels.
        params: intrinsics, in COLMAP's pixel origin.
        params_info: what each of them is, such as ``f, cx, cy, k``.
        images: with a pose that it took.
    """

    camera_id: int
    model: str
    size: tuple[int, int]
    params: tuple[float, ...]
    params_info: str
    images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MapStatistics:
    """A map in numbers.

    Attributes:
        images: with a pose, in order of names.
        cameras: of these images, by id.
        track_lengths: (P,) observations of each point.
        errors: (O,) reprojection error of each observation in pixels; those of points
            that no camera can see, such as behind it, are left out.
        mean_error: in pixels, over points, of the mean of each, as COLMAP has it; None
            where there are no points.
        covisible: (N, N) points that two of the images both see, in their order; of an
            image with itself, the points that it sees.
    """

    images: tuple[ImageStatistics, ...]
    cameras: tuple[CameraStatistics, ...]
    track_lengths: IndexArray
    errors: Array
    mean_error: float | None
    covisible: csr_array


def map_statistics(model: pycolmap.Reconstruction) -> MapStatistics:
    """Count and measure what a COLMAP model holds."""
    points = model.points3D
    row_of = {point_id: row for row, point_id in enumerate(points)}
    xyz = np.array([point.xyz for point in points.values()]).reshape(-1, 3)
    images = sorted(map(model.image, model.reg_image_ids()), key=lambda one: one.name)
    statistics, errors, seen = [], [], []
    for image in images:
        observed = image.get_observation_points2D()
        rows = np.array([row_of[point.point3D_id] for point in observed], np.int64)
        xy = np.array([point.xy for point in observed]).reshape(-1, 2)
        found = _reprojection_errors(image, xyz[rows], xy)
        errors.append(found)
        seen.append(np.unique(rows))
        statistics.append(
            ImageStatistics(
                name=image.name,
                camera_id=image.camera_id,
                keypoints=image.num_points2D(),
                observations=len(rows),
                mean_error=float(found.mean()) if len(found) else None,
            )
        )
    return MapStatistics(
        images=tuple(statistics),
        cameras=_cameras(model, statistics),
        track_lengths=np.array(
            [point.track.length() for point in points.values()], np.int64
        ),
        errors=np.concatenate(errors) if errors else np.zeros(0),
        mean_error=model.compute_mean_reprojection_error() if points else None,
        covisible=_covisible(seen, len(points)),
    )


def _reprojection_errors(image: pycolmap.Image, xyz: Array, xy: Array) -> Array:
    if not len(xyz):
        return np.zeros(0)
    projected = image.camera.img_from_cam(image.cam_from_world() * xyz)
    errors = np.linalg.norm(projected - xy, axis=1)
    finite: Array = errors[np.isfinite(errors)]
    return finite


def _cameras(
    model: pycolmap.Reconstruction, images: Iterable[ImageStatistics]
) -> tuple[CameraStatistics, ...]:
    images_of = Counter(image.camera_id for image in images)
    return tuple(
        CameraStatistics(
            camera_id=camera_id,
            model=camera.model_name,
            size=(camera.width, camera.height),
            params=tuple(camera.params.tolist()),
            params_info=camera.params_info,
            images=count,
        )
        for camera_id, count in sorted(images_of.items())
        for camera in [model.camera(camera_id)]
    )


def _covisible(seen: list[IndexArray], points: int) -> csr_array:
    ends = np.cumsum([0, *map(len, seen)])
    columns = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    sees = csr_array(
        (np.ones(len(columns), np.int32), columns, ends), shape=(len(seen), points)
    )
    return csr_array(sees @ sees.T)
