"""Images with known cameras and poses: gt.json files and kapture datasets."""

from __future__ import annotations

import itertools
import json
import math
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
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.camera_sizes import CameraImage
from r2d2_kapture.io.kapture.dataset import (
    DatasetOrPath,
    check_relative_name,
    open_dataset,
)
from r2d2_kapture.io.kapture.pixel_origins import (
    FoundOrigin,
    find_camera_origin,
    judge_cameras,
)
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.types import some_names

Array = npt.NDArray[np.float64]

FIELDS = frozenset({"name", "K", "dist", "R", "t", "size"})
"""Of an image of a JSON file."""

ROTATION_TOLERANCE = 1e-3
"""How far R R^T may be from the identity."""

OFF_CENTRE = 0.2
"""Distance of a principal point from the middle, relative to half the size, from which
its camera may be of another size."""

SAME_RATIO = 0.05
"""How far two ratios of sizes may differ that are one."""

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
        with_size: whether the source gives the size of the camera; else it is that of
            the file.
    """

    name: str
    path: Path
    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d
    with_size: bool = True

    @property
    def center(self) -> Array:
        """(3,) position of the camera in the world."""
        return np.asarray(self.cam_from_world.inverse().translation, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedImages:
    """Images with known cameras and poses.

    Attributes:
        images: in order.
        root: folder that their names are relative to.
        warnings: what is uncertain, not read, or left out.
    """

    images: tuple[PosedImage, ...]
    root: Path
    warnings: tuple[str, ...] = ()


def read_ground_truth(path: Path, camera_origin: CameraOrigin = "auto") -> PosedImages:
    """Read a JSON file of ``images``, each with name, K, dist, R and t.

    x_cam = R x_world + t with OpenCV axes; dist holds OpenCV's k1 k2 p1 p2 [k3], or
    nothing, or is null or absent; size, if there, holds the (W, H) in pixels that K is
    for. Names are relative to the folder of the file.

    Args:
        path: of the file.
        camera_origin: where principal points are counted from.

    Raises:
        DatasetError: unreadable, an image comes twice, or a field is missing, of a
            wrong shape, not finite, or no camera or rotation.
        ImageError: the size of an image cannot be read.
    """
    entries = _read_entries(path)
    sizes = _sizes(path, entries)
    found = _find_origin(path, entries, sizes, camera_origin)
    unread = {name: e.name for e in reversed(entries) for name in e.unread}
    return PosedImages(
        images=tuple(
            PosedImage(
                name=entry.name,
                path=path.parent / entry.name,
                camera=_opencv_camera(entry, size, found.origin),
                cam_from_world=entry.cam_from_world,
                with_size=entry.size is not None,
            )
            for entry, size in zip(entries, sizes)
        ),
        root=path.parent,
        warnings=(
            *found.warnings,
            *(
                f"{path}: image '{unread[name]}': field '{name[:40]}' is not read; "
                f"expected {', '.join(sorted(FIELDS))}"
                for name in sorted(unread)
            ),
        ),
    )


def read_posed_dataset(
    root: DatasetOrPath, camera_origin: CameraOrigin = "auto"
) -> PosedImages:
    """Read the images of a kapture dataset that have poses, through rigs too.

    Args:
        root: of the dataset, or the open dataset.
        camera_origin: where principal points are counted from, see
            pixel_origins.find_camera_origin.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    dataset = open_dataset(root)
    found = find_camera_origin(dataset, camera_origin)
    cameras = image_cameras(dataset.data, found.origin)
    images = tuple(
        PosedImage(
            name=name,
            path=dataset.image_path(name),
            camera=cameras[name],
            cam_from_world=pose,
        )
        for name, pose in read_camera_poses(dataset).cam_from_world.items()
    )
    posed = {image.name for image in images}
    without = [name for name in sorted(dataset.image_names) if name not in posed]
    left_out = (
        f"{len(without)} images of {dataset.root} have no pose and are left out: "
        f"{some_names(without)}"
    )
    return PosedImages(
        images=images,
        root=dataset.root / "sensors" / "records_data",
        warnings=(*found.warnings, *([left_out] if without else [])),
    )


def camera_images(images: Sequence[PosedImage]) -> dict[str, CameraImage]:
    """The files of images and the sizes of their cameras, as far as these are known.

    Where a source gives none, a principal point that is the middle of the image after
    it was turned or resized gives the size away.
    """
    return {
        image.name: CameraImage(
            path=image.path,
            size=_size_of_camera(image.camera, image.with_size),
            camera=(
                "its camera"
                if image.with_size
                else "its camera, whose middle is the "
                'principal point of K (give its "size" if it is not),'
            ),
        )
        for image in images
    }


def _size_of_camera(camera: pycolmap.Camera, with_size: bool) -> tuple[int, int]:
    """(W, H) of a camera, or what its principal point says against it."""
    size = (camera.width, camera.height)
    # in COLMAP's origin the middle is at half the size
    implied = (2 * camera.principal_point_x, 2 * camera.principal_point_y)
    far = max(abs(a / b - 1) for a, b in zip(implied, size)) > OFF_CENTRE
    if with_size or not far:
        return size
    for width, height in (size, size[::-1]):
        ratios = implied[0] / width, implied[1] / height
        if max(ratios) <= (1 + SAME_RATIO) * min(ratios):
            ratio = math.sqrt(ratios[0] * ratios[1])
            ratio = 1.0 if abs(ratio - 1) <= SAME_RATIO else ratio
            return round(ratio * width), round(ratio * height)
    return size


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entry:
    """An image of a JSON file, its values checked; names of its other fields."""

    name: str
    K: Array
    dist: Array
    cam_from_world: pycolmap.Rigid3d
    size: tuple[int, int] | None
    unread: tuple[str, ...]


def _read_entries(path: Path) -> list[_Entry]:
    try:
        images = list(json.loads(path.read_text(encoding="utf-8"))["images"])
        by_name = {check_relative_name(str(i["name"]), path): i for i in images}
    except KeyError as error:
        raise DatasetError(
            f"{path}: found no {error}, expected images of name, K, dist, R, t"
        ) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: expected JSON with images of name, K, dist, R, t: {error}"
        ) from error
    if len(by_name) < len(images):
        names = [str(image["name"]) for image in images]
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{path}: image '{twice}': occurs twice, expected once")
    entries = []
    for name, image in by_name.items():
        try:
            entries.append(_entry(name, image))
        except ValueError as error:
            raise DatasetError(f"{path}: image '{name}': {error}") from error
    return entries


def _entry(name: str, values: Mapping[str, Any]) -> _Entry:
    K = _numbers(values, "K", (3, 3))
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    if fx <= 0 or fy <= 0 or (K != [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]).any():
        raise ValueError(
            f"K: found {K.tolist()}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] "
            "with fx and fy above 0"
        )
    size = _numbers(values, "size", (2,)) if values.get("size") is not None else None
    if size is not None and (size < 1).any():
        raise ValueError(f"size: found {size.tolist()}, expected width and height")
    has_dist = values.get("dist") is not None
    R, t = _numbers(values, "R", (3, 3)), _numbers(values, "t", (3,))
    rotates = np.allclose(R @ R.T, np.eye(3), rtol=0, atol=ROTATION_TOLERANCE)
    if not rotates or np.linalg.det(R) < 0:
        raise ValueError(f"R: found {R.tolist()}, expected a rotation")
    return _Entry(
        name=name,
        K=K,
        dist=_numbers(values, "dist", (0,), (4,), (5,)) if has_dist else np.empty(0),
        cam_from_world=pycolmap.Rigid3d(pycolmap.Rotation3d(R), t),
        size=None if size is None else (int(size[0]), int(size[1])),
        unread=tuple(sorted(map(str, values.keys() - FIELDS))),
    )


def _numbers(values: Mapping[str, Any], name: str, *shapes: tuple[int, ...]) -> Array:
    """A field as an array of one of the shapes, finite."""
    if name not in values:
        raise ValueError(f"found no {name}")
    expected = " or ".join("x".join(map(str, shape)) for shape in shapes)
    try:
        array = np.array(values[name], dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.array(np.nan)
    if array.shape not in shapes or not np.isfinite(array).all():
        raise ValueError(
            f"{name}: found {str(values[name]):.120}, expected {expected} finite "
            "numbers"
        )
    return array


def _sizes(path: Path, entries: Sequence[_Entry]) -> list[tuple[int, int]]:
    """(W, H) in pixels that each camera is for: the file's where none is given."""
    return [
        image_size(path.parent / entry.name) if entry.size is None else entry.size
        for entry in entries
    ]


def _find_origin(
    path: Path,
    entries: Sequence[_Entry],
    sizes: Sequence[tuple[int, int]],
    camera_origin: CameraOrigin,
) -> FoundOrigin:
    if camera_origin != "auto":
        return FoundOrigin(origin=camera_origin, basis="flag")
    suggested = [
        principal_point_origin((float(entry.K[0, 2]), float(entry.K[1, 2])), size)
        for entry, size in zip(entries, sizes)
    ]
    return judge_cameras(
        {origin for origin in suggested if origin is not None},
        imported=False,
        source=path,
        focal_lengths=[float(entry.K[0, 0]) for entry in entries],
    )


def _opencv_camera(
    entry: _Entry, size: tuple[int, int], origin: PixelOrigin
) -> pycolmap.Camera:
    K, dist = entry.K, entry.dist.tolist()
    shift = principal_point_shift(origin)
    params = [K[0, 0], K[1, 1], K[0, 2] + shift, K[1, 2] + shift, *dist]
    model = {0: "PINHOLE", 4: "OPENCV", 5: "FULL_OPENCV"}[len(dist)]
    if model == "FULL_OPENCV":
        params += [0.0, 0.0, 0.0]
    return pycolmap.Camera(model=model, width=size[0], height=size[1], params=params)
