"""A scene of a benchmark: images to map and to localize, written as kapture datasets.

Readers make ``Shot``s of what the authors' files say; ``write_split`` writes them all
alike. Images stay where they are: ``records_data`` holds links.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import kapture
import numpy as np
import numpy.typing as npt
import pycolmap
from kapture.io.records import get_depth_map_fullpath, get_image_fullpath

from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.io.kapture.dataset import check_table_name
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.io.kapture.writing import write_tables
from r2d2_kapture.io.outputs.atomic import (
    output_error,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.types import FloatArray, counted, some_names

STATE_NAME = "benchmark.json"
DATASETS = Contents(what="datasets", files=())
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """An image of a benchmark.

    Attributes:
        name: in kapture's tables.
        path: of its file.
        sensor_id: of its camera.
        timestamp: of a camera, each once.
        cam_from_world: None where the authors keep it, or have none.
        depth: the authors' file of its depth map.
    """

    name: str
    path: Path
    sensor_id: str
    timestamp: int
    cam_from_world: pycolmap.Rigid3d | None = None
    depth: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images to map, or to localize.

    Attributes:
        shots: the images.
        sensors: their cameras.
        rigs: of the cameras.
        origin: where principal points count from; None leaves it to be inferred.
        read_depth: reads a depth map: (H, W) float32 metres along the z axis of the
            image's camera at its pixels, 0 where unknown.
    """

    shots: tuple[Shot, ...]
    sensors: Mapping[str, kapture.Camera]
    rigs: kapture.Rigs | None = None
    origin: PixelOrigin | None = None
    read_depth: Callable[[Path], FloatArray] | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is mapped and localized together.

    Attributes:
        mapping: images of the map, with poses.
        queries: images to localize, by name.
    """

    mapping: Split
    queries: Mapping[str, Split]


@dataclass(frozen=True, kw_only=True)
class WrittenSplit:
    """What became of a split.

    Attributes:
        images: how many the dataset has.
        new: how many an earlier run did not write.
        warnings: on images that are listed and not there.
    """

    images: int
    new: int
    warnings: tuple[str, ...] = field(default=())


def write_split(
    split: Split, root: Path, source: Path, *, depth: bool, replace: bool
) -> WrittenSplit:
    """Write a split as a kapture dataset of links; made again, it is the same.

    Args:
        split: what to write.
        root: of the dataset.
        source: folder of the scene, for messages and to tell scenes apart.
        depth: write depth maps too, where there are any.
        replace: replace the dataset of another folder.

    Raises:
        DatasetError: none of the images is there, a name that kapture cannot hold, or a
            depth map that cannot be read.
        OutputError: there is something else, or the file system refused.
    """
    known = read_json(root / STATE_NAME)
    if (root / "sensors").exists() and not known:
        raise DATASETS.refusal(root, "a dataset of others", forcible=False)
    if known and known.get("source") != str(source.resolve()) and not replace:
        raise DATASETS.refusal(root, f"the dataset of {known.get('source')}")
    shots = [shot for shot in split.shots if shot.path.is_file()]
    lacking = [shot.name for shot in split.shots if not shot.path.is_file()]
    if not shots:
        example = f", such as {split.shots[0].path}" if split.shots else ""
        raise DatasetError(
            f"{source}: found none of {counted(len(split.shots), 'listed image')}"
            f"{example}, expected their files; unpack the images of this scene"
        )
    # first, so that what a killed run leaves is known as ours
    write_json_atomic(root / STATE_NAME, {"source": str(source.resolve())})
    new = sum([_link(root, shot, source) for shot in shots])
    if depth and split.read_depth is not None:
        for shot in shots:
            _write_depth(root, shot, split.read_depth)
    write_tables(root, _dataset(split, shots, depth and split.read_depth is not None))
    if split.origin is not None:
        write_origin(root / "sensors", split.origin)
    warning = (
        f"{len(lacking)} of {len(split.shots)} listed images of {source} are not there "
        f"and are left out: {some_names(lacking)}"
    )
    return WrittenSplit(
        images=len(shots), new=new, warnings=(warning,) if lacking else ()
    )


def _link(root: Path, shot: Shot, source: Path) -> bool:
    """Link an image, unless it is; return whether it was not."""
    check_table_name(shot.name, source)
    link = Path(get_image_fullpath(str(root), shot.name))
    target = str(shot.path.resolve())
    try:
        if link.is_symlink():
            if os.readlink(link) == target:
                return False
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    except OSError as error:
        raise output_error(link, error) from error
    return True


def _write_depth(root: Path, shot: Shot, read: Callable[[Path], FloatArray]) -> None:
    """Write a depth map in the format of kapture, unless it is there and younger."""
    if shot.depth is None:
        return
    place = Path(get_depth_map_fullpath(str(root), depth_name(shot)))
    try:
        if place.stat().st_mtime_ns >= shot.depth.stat().st_mtime_ns:
            return
    except OSError:
        pass  # one of the two is missing: reading will say so
    write_bytes_atomic(place, read(shot.depth).astype("<f4").tobytes())


def depth_name(shot: Shot) -> str:
    """The name of a shot's depth map in kapture's tables."""
    return f"{shot.name}.depth"


def _dataset(split: Split, shots: Iterable[Shot], depth: bool) -> kapture.Kapture:
    data = kapture.Kapture(
        sensors=kapture.Sensors(),
        rigs=split.rigs,
        records_camera=kapture.RecordsCamera(),
        trajectories=kapture.Trajectories(),
        records_depth=kapture.RecordsDepth() if depth else None,
    )
    used = {shot.sensor_id for shot in shots}
    for sensor_id in sorted(used):
        data.sensors[sensor_id] = split.sensors[sensor_id]
    for shot in shots:
        data.records_camera[shot.timestamp, shot.sensor_id] = shot.name
        if shot.cam_from_world is not None:
            pose = kapture_from_rigid3d(shot.cam_from_world)
            data.trajectories[shot.timestamp, shot.sensor_id] = pose
        if depth and shot.depth is not None:
            depth_id = f"{shot.sensor_id}_depth"
            camera = split.sensors[shot.sensor_id]
            data.sensors[depth_id] = kapture.Camera(
                camera.camera_type, camera.camera_params, sensor_type="depth"
            )
            data.records_depth[shot.timestamp, depth_id] = depth_name(shot)
    return data


def required(path: Path, expected: str) -> Path:
    """A file or folder that a benchmark has.

    Raises:
        DatasetError: it is not there; says what was expected.
    """
    if not path.exists():
        raise DatasetError(f"{path}: found no such file or folder, expected {expected}")
    return path


def read_matrix(path: Path, expected: str = "a 4 x 4 matrix cam-to-world") -> Array:
    """Read (4, 4) numbers of a text file.

    Raises:
        DatasetError: missing, or something else.
    """
    required(path, expected)
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: found no numbers ({reason}), expected {expected}"
        ) from error
    if matrix.shape != (4, 4):
        raise DatasetError(f"{path}: found {matrix.shape} numbers, expected {expected}")
    return matrix


def rigid3d(matrix: Array, path: Path) -> pycolmap.Rigid3d:
    """The transform of a (4, 4) or (3, 4) matrix.

    Raises:
        DatasetError: numbers that are not finite, or no rotation; names ``path``.
    """
    rotation = matrix[:3, :3]
    near = np.isfinite(matrix).all() and np.allclose(
        rotation @ rotation.T, np.eye(3), atol=1e-2
    )
    if not near or np.linalg.det(rotation) < 0:
        raise DatasetError(
            f"{path}: found {matrix[:3].round(3).tolist()}, expected a rotation and a "
            "translation"
        )
    return pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), matrix[:3, 3])


def from_center(
    wxyz: Iterable[float], center: Iterable[float], place: str
) -> pycolmap.Rigid3d:
    """cam_from_world of a rotation of the world into the camera, and its centre.

    Raises:
        DatasetError: no rotation; names ``place``.
    """
    w, x, y, z = wxyz
    norm = np.linalg.norm([w, x, y, z])
    if not np.isclose(norm, 1, atol=1e-2):
        raise DatasetError(
            f"{place}: found a quaternion of length {norm:.6g}, expected 1"
        )
    rotation = pycolmap.Rotation3d(np.array([x, y, z, w]) / norm)
    return pycolmap.Rigid3d(rotation, -(rotation * np.array([*center])))
