"""COLMAP 4 databases of a kapture dataset, its keypoints and its matches.

What goes in, in ids that depend on names only:

cameras      one per camera sensor, in order of sensor id. COLMAP counts pixels from
             the corner of the first one, so a principal point that was counted from
             its centre moves with the keypoints (see coordinates.py).
rigs         one per kapture rig, re-based on its first camera, because COLMAP's rigs
             have a reference sensor and kapture's have none; each camera outside rigs
             is a rig of its own. The id is that of the reference camera.
frames       the images that a rig took at one timestamp. The id is that of the first
             image. Trivial rigs and frames thus get the ids that
             ``Reconstruction.add_camera_with_trivial_rig`` and
             ``add_image_with_trivial_frame`` give them.
images       in order of name.
keypoints    x and y, shifted by half a pixel from the centre origin to COLMAP's.
matches      of pairs in order of names.

No descriptors: COLMAP would cast them to bytes and take them for SIFT, while
verification, triangulation and mapping use keypoints and matches only.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import kapture
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import (
    PixelOrigin,
    colmap_from_kapture,
    principal_point_origin,
    principal_point_shift,
)
from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.io.atomic import atomic_path
from r2d2_kapture.types import FloatArray

CameraOrigin = Literal["auto", "center", "corner"]
MatchArray = npt.NDArray[np.floating[Any]]
ReadKeypoints = Callable[[str], FloatArray]
ReadMatches = Callable[[str, str], MatchArray | None]

UNKNOWN_CAMERA = "UNKNOWN_CAMERA"
UNKNOWN_FOCAL_FACTOR = 1.2
"""Focal length of an unknown camera in units of its longest side, as in COLMAP."""

SQLITE_FAILURES = ("SQLite error", "No registered database factory")
"""What pycolmap's RuntimeErrors say when a database cannot be written or opened."""


@dataclass(frozen=True, kw_only=True)
class DatabaseSummary:
    """What a database holds.

    Attributes:
        cameras, rigs, frames, images, keypoints, pairs, matches: how many of each;
            trivial rigs and frames count.
        camera_origin: the origin that principal points were taken to have.
    """

    cameras: int
    rigs: int
    frames: int
    images: int
    keypoints: int
    pairs: int
    matches: int
    camera_origin: PixelOrigin


@dataclass(frozen=True, kw_only=True)
class _ImageRecord:
    name: str
    timestamp: int
    sensor_id: str


def write_database(
    path: Path,
    dataset: kapture.Kapture,
    *,
    read_keypoints: ReadKeypoints,
    read_matches: ReadMatches,
    pairs: Iterable[tuple[str, str]],
    camera_origin: CameraOrigin = "auto",
    overwrite: bool = False,
) -> DatabaseSummary:
    """Write a database; the file appears when it is complete.

    Args:
        path: the file to make.
        dataset: a loaded kapture dataset; sensors, rigs and camera records are used.
        read_keypoints: gives the keypoints of an image, (N, 2) or more columns, x and
            y first, in pixels with (0, 0) at the centre of the first one.
        read_matches: gives the matches of a pair whose names it gets in ascending
            order, as kapture keeps them: (K, 2) or more columns, index in the first
            image, index in the second; None leaves the pair out.
        pairs: image names; (a, b) and (b, a) are one pair.
        camera_origin: where principal points are counted from. kapture's convention
            is the centre of the first pixel, cameras that came from COLMAP count from
            its corner. ``auto`` is ``corner`` if any principal point lies at exactly
            (W / 2, H / 2), else ``center``.
        overwrite: replace a file that exists.

    Raises:
        DatasetError: sensors, rigs or records that COLMAP cannot hold, or a pair of
            an unknown image.
        FeatureFormatError: keypoints or matches of a wrong shape, or matches of
            keypoints that do not exist.
        OutputError: the file exists, or the file system refused.
    """
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path}: found a file, expected none; delete it or ask to overwrite it"
        )
    # SQLite is slow and breaks on network file systems: build locally, then move
    with _temporary_folder(path) as folder:
        local = folder / "database.db"
        with _output_errors(path, folder), _quiet_pycolmap():
            # no DatabaseTransaction: on a full disk its commit aborts the process
            with closing(pycolmap.Database.open(str(local))) as database:
                summary = _fill_database(
                    database,
                    dataset,
                    read_keypoints=read_keypoints,
                    read_matches=read_matches,
                    pairs=pairs,
                    camera_origin=camera_origin,
                )
            _make_single_file(local)
        with atomic_path(path) as temporary:
            shutil.copyfile(local, temporary)
            for suffix in ("-wal", "-shm"):  # SQLite would replay an older file's log
                path.with_name(path.name + suffix).unlink(missing_ok=True)
    return summary


def resolve_camera_origin(
    dataset: kapture.Kapture, camera_origin: CameraOrigin
) -> PixelOrigin:
    """Decide where the principal points of a dataset are counted from.

    ``auto`` tests each camera by coordinates.principal_point_origin: ``corner`` if any
    says so, else ``center``, kapture's own convention.
    """
    if camera_origin != "auto":
        return camera_origin
    cameras = [
        colmap_camera(sensor, 0, "corner")  # as it stands, not shifted
        for sensor in _camera_sensors(dataset).values()
        if sensor.camera_type.name != UNKNOWN_CAMERA
    ]
    origins = {
        principal_point_origin(
            (camera.principal_point_x, camera.principal_point_y),
            (camera.width, camera.height),
        )
        for camera in cameras
    }
    return "corner" if "corner" in origins else "center"


def colmap_camera(
    sensor: kapture.Camera, camera_id: int, origin: PixelOrigin
) -> pycolmap.Camera:
    """Make COLMAP's camera of kapture's, its principal point in COLMAP's origin.

    A camera of unknown parameters becomes SIMPLE_RADIAL with a focal length of 1.2
    times its longest side, as in COLMAP, and is marked as a guess.

    Args:
        sensor: kapture's camera.
        camera_id: its id in the database or reconstruction.
        origin: where its principal point is counted from.
    """
    width, height, *params = sensor.camera_params
    model = sensor.camera_type.name
    if not (np.isfinite([width, height, *params]).all() and min(width, height) >= 1):
        raise DatasetError(
            f"camera {sensor.sensor_params}: expected a size of 1 pixel or more and "
            "finite parameters; correct sensors.txt"
        )
    if model == UNKNOWN_CAMERA:  # COLMAP's principal point is the middle, in its origin
        return pycolmap.Camera.create_from_model_name(
            camera_id,
            "SIMPLE_RADIAL",
            UNKNOWN_FOCAL_FACTOR * max(width, height),
            int(width),
            int(height),
        )
    camera = pycolmap.Camera(
        camera_id=camera_id,
        model=model,
        width=int(width),
        height=int(height),
        params=params,
        has_prior_focal_length=True,
    )
    camera.principal_point_x += principal_point_shift(origin)
    camera.principal_point_y += principal_point_shift(origin)
    return camera


def _fill_database(
    database: pycolmap.Database,
    dataset: kapture.Kapture,
    *,
    read_keypoints: ReadKeypoints,
    read_matches: ReadMatches,
    pairs: Iterable[tuple[str, str]],
    camera_origin: CameraOrigin,
) -> DatabaseSummary:
    origin = resolve_camera_origin(dataset, camera_origin)
    sensors = _camera_sensors(dataset)
    records = _image_records(dataset, sensors)
    camera_ids = {sensor_id: i for i, sensor_id in enumerate(sensors, start=1)}
    image_ids = {record.name: i for i, record in enumerate(records, start=1)}

    for sensor_id, sensor in sensors.items():
        camera = colmap_camera(sensor, camera_ids[sensor_id], origin)
        database.write_camera(camera, use_camera_id=True)
    for record in records:
        image = pycolmap.Image(
            name=record.name,
            camera_id=camera_ids[record.sensor_id],
            image_id=image_ids[record.name],
        )
        database.write_image(image, use_image_id=True)

    rigs = _rigs(dataset, camera_ids)
    for rig in rigs:
        database.write_rig(rig, use_rig_id=True)
    frames = _frames(records, rigs, camera_ids, image_ids)
    for frame in frames:
        database.write_frame(frame, use_frame_id=True)

    counts = {
        name: _write_keypoints(database, image_id, name, read_keypoints)
        for name, image_id in image_ids.items()
    }
    match_counts = [
        _write_matches(database, pair, image_ids, counts, matches)
        for pair in _unique_pairs(pairs, image_ids)
        if (matches := read_matches(*pair)) is not None
    ]
    return DatabaseSummary(
        cameras=len(sensors),
        rigs=len(rigs),
        frames=len(frames),
        images=len(records),
        keypoints=sum(counts.values()),
        pairs=len(match_counts),
        matches=sum(match_counts),
        camera_origin=origin,
    )


def _camera_sensors(dataset: kapture.Kapture) -> dict[str, kapture.Camera]:
    """The colour cameras in order of sensor id; depth maps are sensors of their own."""
    return {
        sensor_id: sensor
        for sensor_id, sensor in sorted(dataset.cameras.items())
        if sensor.sensor_type == "camera"
    }


def _image_records(
    dataset: kapture.Kapture, sensors: Mapping[str, kapture.Camera]
) -> list[_ImageRecord]:
    """The images in order of name, each taken once by a known camera."""
    records: dict[str, _ImageRecord] = {}
    for timestamp, sensor_id, name in kapture.flatten(dataset.records_camera or {}):
        if sensor_id not in sensors:
            raise DatasetError(
                f"image '{name}': camera '{sensor_id}' is not among the cameras of "
                "sensors.txt; add it there"
            )
        if name in records:
            first = records[name]
            raise DatasetError(
                f"image '{name}': recorded at {first.timestamp}, '{first.sensor_id}' "
                f"and at {timestamp}, '{sensor_id}', expected one record; "
                "correct records_camera.txt"
            )
        records[name] = _ImageRecord(
            name=name, timestamp=timestamp, sensor_id=sensor_id
        )
    return [records[name] for name in sorted(records)]


def _rigs(
    dataset: kapture.Kapture, camera_ids: Mapping[str, int]
) -> list[pycolmap.Rig]:
    """The rigs, such that each camera is in one of them."""
    poses = dataset.rigs or {}
    nested = {device for devices in poses.values() for device in devices}
    rig_of_camera: dict[str, str] = {}
    rigs = []
    for rig_id in sorted(poses):
        cameras = _cameras_from_rig(poses, rig_id, camera_ids, above=())
        if rig_id in nested or not cameras:
            continue
        for sensor_id in cameras:
            other = rig_of_camera.setdefault(sensor_id, rig_id)
            if other != rig_id:
                raise DatasetError(
                    f"camera '{sensor_id}': found in rigs '{other}' and '{rig_id}', "
                    "COLMAP allows one; name the camera apart or correct rigs.txt"
                )
        rigs.append(_rig(cameras, camera_ids))
    lone_cameras = (name for name in camera_ids if name not in rig_of_camera)
    rigs += [_rig({name: pycolmap.Rigid3d()}, camera_ids) for name in lone_cameras]
    return rigs


def _rig(
    cameras: Mapping[str, pycolmap.Rigid3d], camera_ids: Mapping[str, int]
) -> pycolmap.Rig:
    """A rig whose origin is its first camera, given each cam_from_rig of kapture."""
    reference, *others = sorted(cameras)
    rig = pycolmap.Rig(rig_id=camera_ids[reference])
    rig.add_ref_sensor(_colmap_sensor(camera_ids[reference]))
    rig_from_reference = cameras[reference].inverse()
    for sensor_id in others:
        rig.add_sensor(
            _colmap_sensor(camera_ids[sensor_id]),
            cameras[sensor_id] * rig_from_reference,
        )
    return rig


def _cameras_from_rig(
    rigs: kapture.Rigs,
    rig_id: str,
    camera_ids: Mapping[str, int],
    above: tuple[str, ...],
) -> dict[str, pycolmap.Rigid3d]:
    """The cam_from_rig of the cameras of a rig, and of the rigs nested in it."""
    if rig_id in above:
        raise DatasetError(f"rig '{rig_id}': found inside itself; correct rigs.txt")
    cameras: dict[str, pycolmap.Rigid3d] = {}
    for device_id, pose in rigs[rig_id].items():
        if device_id in rigs:
            cameras_from_device = _cameras_from_rig(
                rigs, device_id, camera_ids, (*above, rig_id)
            )
        elif device_id in camera_ids:
            cameras_from_device = {device_id: pycolmap.Rigid3d()}
        else:  # a lidar, or a camera that this part of the dataset lacks
            continue
        twice = cameras.keys() & cameras_from_device.keys()
        if twice:
            raise DatasetError(
                f"rig '{rig_id}': holds camera '{min(twice)}' twice, COLMAP allows "
                "one; correct rigs.txt"
            )
        device_from_rig = _rigid3d(pose, f"rig '{rig_id}', sensor '{device_id}'")
        for sensor_id, camera_from_device in cameras_from_device.items():
            cameras[sensor_id] = camera_from_device * device_from_rig
    return cameras


def _rigid3d(pose: kapture.PoseTransform, owner: str) -> pycolmap.Rigid3d:
    if pose.r_raw is None or pose.t_raw is None:
        raise DatasetError(
            f"{owner}: the pose is incomplete, expected a rotation and a translation; "
            "correct rigs.txt"
        )
    norm = np.linalg.norm(pose.r_raw)
    if not (np.isfinite([norm, *pose.t_raw]).all() and norm > 0):
        raise DatasetError(
            f"{owner}: found rotation {pose.r_raw} and translation {pose.t_raw}, "
            "expected finite numbers and a rotation; correct rigs.txt"
        )
    w, x, y, z = np.array(pose.r_raw) / norm
    rotation = pycolmap.Rotation3d(np.array([x, y, z, w]))
    return pycolmap.Rigid3d(rotation, np.array(pose.t_raw))


def _frames(
    records: Iterable[_ImageRecord],
    rigs: Iterable[pycolmap.Rig],
    camera_ids: Mapping[str, int],
    image_ids: Mapping[str, int],
) -> list[pycolmap.Frame]:
    """The images that a rig took at one time; a single camera takes one at a time."""
    rig_ids = {sensor.id: rig.rig_id for rig in rigs for sensor in rig.sensor_ids()}
    groups: defaultdict[tuple[int, int], list[_ImageRecord]] = defaultdict(list)
    for record in records:
        rig_id = rig_ids[camera_ids[record.sensor_id]]
        groups[rig_id, record.timestamp].append(record)
    frames = []
    for (rig_id, _), group in groups.items():
        frame = pycolmap.Frame(frame_id=image_ids[group[0].name], rig_id=rig_id)
        for record in group:
            sensor = _colmap_sensor(camera_ids[record.sensor_id])
            frame.add_data_id(pycolmap.data_t(sensor, image_ids[record.name]))
        frames.append(frame)
    return frames


def _colmap_sensor(camera_id: int) -> pycolmap.sensor_t:
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)


def _write_keypoints(
    database: pycolmap.Database,
    image_id: int,
    name: str,
    read_keypoints: ReadKeypoints,
) -> int:
    keypoints = read_keypoints(name)
    if keypoints.ndim != 2 or keypoints.shape[1] < 2:
        raise FeatureFormatError(
            f"keypoints of '{name}': found {keypoints.shape}, expected (N, 2) or more "
            "columns; extract the image again"
        )
    # COLMAP aborts the process on a third column
    xy = colmap_from_kapture(keypoints[:, :2].astype(np.float64))
    database.write_keypoints(image_id, xy.astype(np.float32))
    return len(xy)


def _unique_pairs(
    pairs: Iterable[tuple[str, str]], image_ids: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The pairs in order of names, the names of each in ascending order."""
    unique = set()
    for first, second in pairs:
        for name in (first, second):
            if name not in image_ids:
                raise DatasetError(
                    f"pair '{first}', '{second}': found no image '{name}' in the "
                    "dataset; correct the list of pairs"
                )
        if first == second:
            raise DatasetError(
                f"pair '{first}', '{second}': an image cannot pair with itself; "
                "correct the list of pairs"
            )
        unique.add((min(first, second), max(first, second)))
    return sorted(unique)


def _write_matches(
    database: pycolmap.Database,
    pair: tuple[str, str],
    image_ids: Mapping[str, int],
    counts: Mapping[str, int],
    matches: MatchArray,
) -> int:
    title = f"matches of '{pair[0]}' and '{pair[1]}'"
    if matches.ndim != 2 or matches.shape[1] < 2:
        raise FeatureFormatError(
            f"{title}: found {matches.shape}, expected (K, 2) or more columns; "
            "match the pair again"
        )
    indices = matches[:, :2]
    limits = np.array([counts[name] for name in pair])
    valid = (indices >= 0) & (indices < limits) & (indices == np.floor(indices))
    if not valid.all():  # COLMAP does not check, and reads out of bounds
        row = int(np.flatnonzero(~valid.all(axis=1))[0])
        raise FeatureFormatError(
            f"{title}: found indices {indices[row].tolist()} in row {row}, expected "
            f"whole numbers below {limits.tolist()}; match the pair again"
        )
    first, second = (image_ids[name] for name in pair)
    database.write_matches(first, second, indices.astype(np.uint32))
    return len(indices)


def _make_single_file(path: Path) -> None:
    """Fold the write-ahead log in, and leave the mode that needs files beside."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="r2d2_kapture_")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write a temporary file: {error.strerror}; free space or "
            "set TMPDIR to another folder"
        ) from error
    with folder as name:
        yield Path(name)


@contextmanager
def _output_errors(path: Path, folder: Path) -> Iterator[None]:
    """Tell what SQLite met, in terms of the folder where the file is built."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        from_sqlite = any(words in str(error) for words in SQLITE_FAILURES)
        if isinstance(error, RuntimeError) and not from_sqlite:
            raise
        reason = str(error).partition("\n")[0]
        raise OutputError(
            f"{path}: cannot write it in {folder}: {reason}; free space there or set "
            "TMPDIR to another folder"
        ) from error


@contextmanager
def _quiet_pycolmap() -> Iterator[None]:
    """Keep COLMAP's information and warnings off the terminal."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 2
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
