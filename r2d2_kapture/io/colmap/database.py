"""COLMAP 4 databases of a kapture dataset, its keypoints and its matches.

What goes in, in ids that depend on names only:

cameras      one per camera sensor, in order of sensor id; see cameras.py.
rigs         one per kapture rig and per camera outside rigs, with the id of its first
             camera; see rigs.py.
frames       the images that a rig took at one timestamp, with the id of the first.
             Trivial rigs and frames thus get the ids that
             ``Reconstruction.add_camera_with_trivial_rig`` and
             ``add_image_with_trivial_frame`` give them.
images       in order of name.
keypoints    x and y, shifted by half a pixel from the centre origin to COLMAP's; scale
             and orientation or affine shape too, where rows have COLMAP's columns.
matches      of pairs in order of names.
geometries   two-view geometries of the same pairs, where they are given.
pose priors  positions of images, where they are given; see pose_priors.py.

No descriptors: COLMAP would cast them to bytes and take them for SIFT, while
verification, triangulation and mapping use keypoints and matches only.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import kapture
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import CameraOrigin, PixelOrigin, colmap_from_kapture
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.colmap.cameras import (
    camera_sensors,
    colmap_camera,
    resolve_camera_origin,
)
from r2d2_kapture.io.colmap.database_rows import adding_rows
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.pose_priors import write_pose_priors
from r2d2_kapture.io.colmap.rigs import colmap_frames, colmap_rigs
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.gnss import Position
from r2d2_kapture.io.kapture.pairs import sorted_pairs
from r2d2_kapture.io.kapture.rigs import rig_cameras
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import FloatArray, PairMatches

ReadKeypoints = Callable[[str], FloatArray]
ReadMatches = Callable[[str, str], PairMatches | None]
ReadGeometry = Callable[[str, str], pycolmap.TwoViewGeometry | None]

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


def write_database(
    path: Path,
    dataset: kapture.Kapture,
    *,
    read_keypoints: ReadKeypoints,
    read_matches: ReadMatches,
    pairs: Iterable[tuple[str, str]],
    read_geometry: ReadGeometry | None = None,
    positions: Mapping[str, Position] | None = None,
    camera_origin: CameraOrigin = "auto",
    overwrite: bool = False,
    before_move: Callable[[Path], None] = lambda complete: None,
) -> DatabaseSummary:
    """Write a database; the file appears when it is complete.

    Args:
        path: the file to make.
        dataset: a loaded kapture dataset; sensors, rigs and camera records are used.
        read_keypoints: gives the keypoints of an image, (N, 2) or more columns, x and
            y first, in pixels with (0, 0) at the centre of the first one.
        read_matches: gives the matches of a pair whose names it gets in ascending
            order; None leaves the pair out.
        pairs: image names; (a, b) and (b, a) are one pair.
        read_geometry: gives the two-view geometry of such a pair, from the first to
            the second image, in COLMAP's pixel origin; None leaves it out.
        positions: of images by name, which become pose priors.
        camera_origin: where principal points are counted from. kapture's convention
            is the centre of the first pixel, cameras that came from COLMAP count from
            its corner. ``auto`` is ``corner`` if any principal point lies at exactly
            (W / 2, H / 2), else ``center``.
        overwrite: replace a file that exists.
        before_move: is given the complete file just before it becomes ``path``.

    Raises:
        DatasetError: sensors, rigs or records that COLMAP cannot hold, or a pair of
            an unknown image.
        FeatureFormatError: keypoints of a wrong shape, or matches of keypoints that
            do not exist.
        OutputError: the file exists, or the file system refused.
    """
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path}: found a file, expected none; delete it or ask to overwrite it"
        )
    with building(path, before_move) as local:
        summary = _fill_database(
            local,
            dataset,
            read_keypoints=read_keypoints,
            read_matches=read_matches,
            read_geometry=read_geometry,
            pairs=pairs,
            camera_origin=camera_origin,
        )
        if positions:
            with closing(pycolmap.Database.open(str(local))) as database:
                write_pose_priors(database, positions)
        return summary


@contextmanager
def building(
    path: Path, before_move: Callable[[Path], None] = lambda complete: None
) -> Iterator[Path]:
    """Give a local file to build a database in, which becomes ``path`` at the end.

    SQLite is slow and breaks on network file systems. Where the block fails or is
    interrupted, ``path`` stays as it was.

    Raises:
        OutputError: SQLite or the file system refused.
    """
    with _temporary_folder(path) as folder:
        local = folder / "database.db"
        with _output_errors(path, folder), quiet_pycolmap():
            yield local
            _make_single_file(local)
        with atomic_path(path) as temporary:
            shutil.copyfile(local, temporary)
            before_move(temporary)
            for suffix in ("-wal", "-shm"):  # SQLite would replay an older file's log
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fill_database(
    path: Path,
    dataset: kapture.Kapture,
    *,
    read_keypoints: ReadKeypoints,
    read_matches: ReadMatches,
    read_geometry: ReadGeometry | None,
    pairs: Iterable[tuple[str, str]],
    camera_origin: CameraOrigin,
) -> DatabaseSummary:
    origin = resolve_camera_origin(dataset, camera_origin)
    sensors = camera_sensors(dataset)
    records = list(image_records(dataset).values())
    camera_ids = {sensor_id: i for i, sensor_id in enumerate(sensors, start=1)}
    image_ids = {record.name: i for i, record in enumerate(records, start=1)}

    # a rig is based on its first camera, which COLMAP must find among the images
    used = {record.sensor_id for record in records}
    rigs = colmap_rigs(rig_cameras(dataset, used), camera_ids)
    with closing(pycolmap.Database.open(str(path))) as database:
        for sensor_id, sensor in sensors.items():
            camera = colmap_camera(sensor, camera_ids[sensor_id], origin)
            database.write_camera(camera, use_camera_id=True)
        for rig in rigs:
            database.write_rig(rig, use_rig_id=True)
    frames = colmap_frames(records, rigs, camera_ids, image_ids)
    counts: dict[str, int] = {}
    match_counts: list[int] = []
    with adding_rows(path) as rows:
        for record in records:
            image_id, camera_id = image_ids[record.name], camera_ids[record.sensor_id]
            rows.image(image_id, record, camera_id)
        for frame in frames:
            rows.frame(frame)
        for name, image_id in image_ids.items():
            keypoints = keypoint_rows(name, read_keypoints(name))
            rows.keypoints(image_id, keypoints)
            counts[name] = len(keypoints)
        for pair in sorted_pairs(pairs, image_ids):
            matches = read_matches(*pair)
            if matches is None:
                continue
            # COLMAP does not check, and reads out of bounds
            matches.check_counts(pair, (counts[pair[0]], counts[pair[1]]))
            pair_id = pycolmap.image_pair_to_pair_id(*(image_ids[n] for n in pair))
            rows.matches(pair_id, colmap_matches(matches))
            geometry = None if read_geometry is None else read_geometry(*pair)
            if geometry is not None:
                rows.geometry(pair_id, geometry)
            match_counts.append(len(matches))
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


def keypoints_or_no_rows(
    keypoints: FeatureTable,
    without: Container[str] = (),
    read_rows: ReadKeypoints | None = None,
) -> ReadKeypoints:
    """Read keypoints, none for images without: COLMAP wants every image.

    Args:
        keypoints: of the images.
        without: images that count as having none.
        read_rows: reads those of an image; by default from the files each time.
    """

    def read(image: str) -> FloatArray:
        if image in without or image not in keypoints:
            return np.zeros((0, 2), np.float32)
        return (read_rows or keypoints.read)(image)

    return read


def colmap_keypoints(name: str, keypoints: FloatArray) -> FloatArray:
    """(N, 2) float32 x and y in COLMAP's origin.

    Args:
        name: of the image.
        keypoints: (N, 2) or more columns, from the centre origin, see
            features/reading.py.

    Raises:
        FeatureFormatError: another shape.
    """
    if keypoints.ndim != 2 or keypoints.shape[1] < 2:
        raise FeatureFormatError(
            f"keypoints of '{name}': found {keypoints.shape}, expected (N, 2) or more "
            "columns; extract the image again"
        )
    return colmap_from_kapture(keypoints[:, :2].astype(np.float64)).astype(np.float32)


def colmap_matches(matches: PairMatches) -> npt.NDArray[np.uint32]:
    """(K, 2) uint32 indices, as a database holds them."""
    return matches.indices.astype(np.uint32)


def keypoint_rows(name: str, keypoints: FloatArray) -> FloatArray:
    """The keypoints of an image as a database holds them; see ``colmap_keypoints``.

    Scale and orientation, or the affine shape, are kept where rows have them.
    """
    rows = colmap_keypoints(name, keypoints)
    columns = keypoints.shape[1]
    # COLMAP aborts the process on other numbers of columns and on a negative scale
    if columns == 6 or (columns == 4 and (keypoints[:, 2] >= 0).all()):
        rows = np.column_stack([rows, keypoints[:, 2:]]).astype(np.float32)
    return rows


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
    """Report SQLite's errors with the folder where the file is built."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        from_sqlite = any(words in str(error) for words in SQLITE_FAILURES)
        if isinstance(error, RuntimeError) and not from_sqlite:
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise OutputError(
            f"{path}: cannot write it in {folder}: {reason}; free space there or set "
            "TMPDIR to another folder"
        ) from error
