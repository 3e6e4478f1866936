"""What the rows of a COLMAP 4 database say, checked by SQLite alone.

Scripts write such databases too. On what they get wrong pycolmap raises far from the
cause, ends the process, or reads out of bounds; here it is named before any work.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.errors import DatasetError

COLUMNS = {
    "cameras": "camera_id model width height params prior_focal_length",
    "rigs": "rig_id ref_sensor_id ref_sensor_type",
    "rig_sensors": "rig_id sensor_id sensor_type sensor_from_rig",
    "frames": "frame_id rig_id",
    "frame_data": "frame_id data_id sensor_id sensor_type",
    "images": "image_id name camera_id",
    "keypoints": "image_id rows cols data",
    "matches": "pair_id rows cols data",
    "two_view_geometries": "pair_id rows cols data config F E H qvec tvec",
}
"""Of each table that is read, in a database of COLMAP 4."""
OLDER_COLUMNS = {
    "cameras": COLUMNS["cameras"],
    "images": COLUMNS["images"],
    "keypoints": COLUMNS["keypoints"],
    "matches": COLUMNS["matches"],
    "two_view_geometries": "pair_id rows cols data config",
}
"""The same of any COLMAP database."""
KEYPOINT_COLUMNS = (2, 4, 6)
PAIR_BASE = 2**31 - 1
"""COLMAP's id of a pair is PAIR_BASE * image_id1 + image_id2."""
GEOMETRY_VALUES = {"F": 9, "E": 9, "H": 9, "qvec": 4, "tvec": 3}
"""Float64 numbers of each blob of a two-view geometry."""
PRIOR_VALUES = {"position": 3, "position_covariance": 9, "gravity": 3}
"""The same of a prior pose; older databases have fewer."""
CAMERA_HEADER = struct.Struct("<IiQQBQ")
"""Before the parameters of a camera in a two-view geometry."""
WAY_OUT = "correct the tool that wrote it, or create the database again"


@dataclass(frozen=True, kw_only=True)
class Content:
    """The rows that others refer to.

    Attributes:
        camera_ids: of all cameras.
        names: of images, by id.
        camera_of: the camera id of each image.
        keypoint_counts: by image id; None where there are no keypoints.
    """

    camera_ids: frozenset[int]
    names: Mapping[int, str]
    camera_of: Mapping[int, int]
    keypoint_counts: Mapping[int, int | None]


def check_content(
    connection: sqlite3.Connection, columns: Mapping[str, str] = COLUMNS
) -> Content:
    """Refuse rows that COLMAP cannot hold, or that refer to rows that are not there.

    Rigs and frames are left to frames.py.

    Args:
        connection: to the database.
        columns: that are expected of each table.

    Returns:
        The rows that rigs and frames refer to.

    Raises:
        BrokenContent: naming the row, what was found and what is expected.
    """
    _check_columns(connection, columns)
    camera_ids = _check_cameras(connection)
    names, camera_of = _check_images(connection, camera_ids)
    content = Content(
        camera_ids=camera_ids,
        names=names,
        camera_of=camera_of,
        keypoint_counts=_check_keypoints(connection, names),
    )
    for table in ("matches", "two_view_geometries"):
        _check_matches(connection, table, content)
    _check_geometries(connection)
    _check_pose_priors(connection)
    return content


class BrokenContent(DatasetError):
    """What is wrong with a row; ``sqlite_errors`` adds the path of the database."""


def half_written(found: str) -> BrokenContent:
    """The error on a truncated database."""
    return BrokenContent(
        f"the database is broken or was left half-written ({' '.join(found.split())}); "
        "create it again, or restore a copy"
    )


def wrong_row(found: str) -> BrokenContent:
    """The error on a row that COLMAP cannot store."""
    return BrokenContent(f"{found}; {WAY_OUT}")


def _check_columns(connection: sqlite3.Connection, columns: Mapping[str, str]) -> None:
    for table, expected in columns.items():
        missing = set(expected.split()) - columns_of(connection, table)
        if missing:
            raise wrong_row(
                f"table {table}: found no column {', '.join(sorted(missing))}, "
                "expected those of COLMAP"
            )


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """Names of the columns of a table, none where there is no such table."""
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _check_cameras(connection: sqlite3.Connection) -> frozenset[int]:
    models = {
        int(model): model for model in pycolmap.CameraModelId.__members__.values()
    }
    camera_ids = set()
    for camera_id, model, width, height, params in connection.execute(
        "SELECT camera_id, model, width, height, params FROM cameras"
    ):
        what = f"camera {camera_id}"
        if model not in models or model < 0:
            raise wrong_row(
                f"{what}: found camera model {model!r}, which COLMAP does not have"
            )
        if not all(isinstance(n, int) and n > 0 for n in (width, height)):
            raise wrong_row(
                f"{what}: found a size of {width} x {height}, expected pixels"
            )
        expected = pycolmap.Camera.create_from_model_id(
            camera_id, models[model], 1.0, width, height
        )
        values = float64_values(params)
        if values is None or len(values) != len(expected.params):
            found = (
                f"params {params!r:.60}"
                if values is None
                else f"{len(values)} parameters"
            )
            raise wrong_row(
                f"{what}: found {found}, expected {len(expected.params)} numbers of "
                f"{expected.model_name} ({expected.params_info})"
            )
        focal_lengths = values[list(expected.focal_length_idxs())]
        if not np.isfinite(values).all() or (focal_lengths <= 0).any():
            raise wrong_row(
                f"{what}: found parameters {values.tolist()}, expected finite numbers "
                "and focal lengths above 0"
            )
        camera_ids.add(camera_id)
    return frozenset(camera_ids)


def _check_images(
    connection: sqlite3.Connection, camera_ids: frozenset[int]
) -> tuple[dict[int, str], dict[int, int]]:
    """Names and camera ids by image id."""
    names: dict[int, str] = {}
    camera_of: dict[int, int] = {}
    first: dict[str, int] = {}
    rows = connection.execute("SELECT image_id, name, camera_id FROM images")
    for image_id, name, camera_id in rows:
        if not isinstance(name, str) or not name:
            raise wrong_row(
                f"image {image_id}: found the name {name!r:.60}, expected text"
            )
        if not (isinstance(image_id, int) and 0 <= image_id < PAIR_BASE):
            raise wrong_row(
                f"image '{name}': found image_id {image_id}, expected 0 to "
                f"{PAIR_BASE - 1}"
            )
        if first.setdefault(name, image_id) != image_id:
            raise wrong_row(
                f"image '{name}': found ids {first[name]} and {image_id}, "
                "expected each name once"
            )
        if camera_id not in camera_ids:
            raise wrong_row(
                f"image '{name}': found camera_id {camera_id}, which is not in cameras"
            )
        names[image_id], camera_of[image_id] = name, camera_id
    return names, camera_of


def _check_keypoints(
    connection: sqlite3.Connection, names: Mapping[int, str]
) -> dict[int, int | None]:
    """Numbers of keypoints by image id."""
    counts: dict[int, int | None] = dict.fromkeys(names)
    rows = connection.execute("SELECT image_id, rows, cols, data FROM keypoints")
    for image_id, count, columns, data in rows:
        if image_id not in names:  # of an image that was deleted: COLMAP passes over
            continue
        what = f"keypoints of '{names[image_id]}'"
        if count and columns not in KEYPOINT_COLUMNS:
            raise BrokenContent(
                f"{what}: found {columns} columns, expected 2, 4 or 6; COLMAP "
                "cannot read them: create the database again"
            )
        values = blob_matrix(what, count, columns, data, np.float32)
        if not np.isfinite(values).all():
            raise wrong_row(f"{what}: found NaN or infinity, expected pixels")
        counts[image_id] = count
    return counts


def _check_matches(
    connection: sqlite3.Connection, table: str, content: Content
) -> None:
    rows = connection.execute(f"SELECT pair_id, rows, cols, data FROM {table}")
    for pair_id, count, columns, data in rows:
        if count == 0:
            continue
        ids = divmod(pair_id, PAIR_BASE) if isinstance(pair_id, int) else (-1, -1)
        what = f"{table}: a row of pair {ids}"
        if ids[0] >= ids[1] >= 0:
            raise wrong_row(f"{what}: found no two ids, expected the smaller first")
        if columns != 2:
            raise wrong_row(f"{what}: found {columns} columns, expected 2")
        indices = blob_matrix(what, count, columns, data, np.uint32)
        for image_id, index in zip(ids, indices.max(axis=0).tolist()):
            _check_index(content, image_id, index)


def _check_index(content: Content, image_id: int, index: int) -> None:
    if image_id not in content.names:
        raise half_written(f"found matches of image {image_id}, not in images")
    name, count = content.names[image_id], content.keypoint_counts[image_id]
    if count is None:
        raise half_written(f"found matches of '{name}', but no keypoints")
    if index >= count:
        raise BrokenContent(
            f"found a match of keypoint {index} of '{name}', which has "
            f"{count}; match and verify its pairs again"
        )


def _check_geometries(connection: sqlite3.Connection) -> None:
    kinds = {
        int(kind.value)
        for kind in pycolmap.TwoViewGeometryConfiguration.__members__.values()
    }
    there = columns_of(connection, "two_view_geometries")
    counts = {name: count for name, count in GEOMETRY_VALUES.items() if name in there}
    columns = ", ".join(["pair_id", "config", *counts])
    rows = connection.execute(
        f"SELECT {columns} FROM two_view_geometries WHERE rows > 0"
    )
    for pair_id, config, *blobs in rows:
        what = f"two_view_geometries: pair {divmod(pair_id, PAIR_BASE)}"
        if config not in kinds:
            raise wrong_row(
                f"{what}: found config {config!r}, which COLMAP does not have"
            )
        named_numbers(what, counts, blobs)
    for name in there & {"camera1", "camera2"}:
        rows = connection.execute(
            f"SELECT pair_id, {name} FROM two_view_geometries "
            f"WHERE {name} IS NOT NULL"
        )
        for pair_id, blob in rows:
            if not _is_camera(blob):
                what = f"two_view_geometries: pair {divmod(pair_id, PAIR_BASE)}"
                raise wrong_row(f"{what}: found no camera in {name}")


def _is_camera(blob: object) -> bool:
    """Whether bytes hold a camera: id, model, size, prior, and as many parameters."""
    if not isinstance(blob, bytes) or len(blob) < CAMERA_HEADER.size:
        return False
    *_, count = CAMERA_HEADER.unpack_from(blob)
    return len(blob) == CAMERA_HEADER.size + 8 * int(count)


def _check_pose_priors(connection: sqlite3.Connection) -> None:
    there = columns_of(connection, "pose_priors")
    counts = {name: count for name, count in PRIOR_VALUES.items() if name in there}
    if counts:
        rows = connection.execute(f"SELECT {', '.join(counts)} FROM pose_priors")
        for number, blobs in enumerate(rows, start=1):
            named_numbers(f"pose_priors: row {number}", counts, blobs)


def named_numbers(
    what: str, counts: Mapping[str, int], blobs: Iterable[object]
) -> dict[str, np.ndarray[Any, Any]]:
    """The float64 numbers of blobs, each as many as expected or none.

    Raises:
        BrokenContent: naming the blob.
    """
    found = {}
    for (name, count), blob in zip(counts.items(), blobs):
        values = float64_values(blob)
        if values is None or len(values) not in (0, count):
            raise wrong_row(f"{what}: found no {count} numbers in {name}")
        found[name] = values
    return found


def float64_values(blob: object) -> np.ndarray[Any, Any] | None:
    """The numbers of a blob, none for NULL; None where it does not hold any."""
    return _numbers(blob, np.float64)


def _numbers(blob: object, dtype: type) -> np.ndarray[Any, Any] | None:
    if blob is None:
        return np.zeros(0, dtype)
    if not isinstance(blob, bytes) or len(blob) % np.dtype(dtype).itemsize:
        return None
    return np.frombuffer(blob, np.dtype(dtype).newbyteorder("<"))


def blob_matrix(
    what: str, count: object, columns: object, blob: object, dtype: type
) -> np.ndarray[Any, Any]:
    """The rows of a blob that is as long as its numbers of rows and columns say."""
    if not (isinstance(count, int) and isinstance(columns, int)) or count < 0:
        raise wrong_row(f"{what}: found {count} rows of {columns} columns")
    values = _numbers(blob, dtype)
    if values is None or columns < 0 or len(values) != count * columns:
        size = len(blob) if isinstance(blob, bytes) else 0
        expected = count * columns * np.dtype(dtype).itemsize
        words = "is too short: " if size < expected else ""
        raise half_written(
            f"{what} {words}found {size} bytes, expected {expected} for {count} x "
            f"{columns} {np.dtype(dtype).name}"
        )
    matrix: np.ndarray[Any, Any] = values.reshape(count, columns)
    return matrix
