"""A COLMAP database of any version, row by row, without changing it.

pycolmap upgrades an older database in place as it opens it, and ends the process on
some contents; SQLite alone reads what is there, and each row is checked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import check_size, open_to_read
from r2d2_kapture.io.colmap.content import (
    COLUMNS,
    OLDER_COLUMNS,
    PAIR_BASE,
    Content,
    blob_matrix,
    check_content,
    columns_of,
    float64_values,
    wrong_row,
)
from r2d2_kapture.io.colmap.frames import CAMERA, check_frames
from r2d2_kapture.io.colmap.rigs import camera_sensor
from r2d2_kapture.io.colmap.stored_pair import stored_geometry
from r2d2_kapture.types import IndexArray

NEEDED = ("cameras", "images", "keypoints")
RIG_TABLES = ("rigs", "rig_sensors", "frames", "frame_data")
SIFT = int(pycolmap.FeatureExtractorType.SIFT)
UNDEFINED = int(pycolmap.FeatureExtractorType.UNDEFINED)
SIFT_VALUES = 128
"""Of a descriptor of COLMAP 3, which had no others."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDescriptors:
    """Descriptors of an image as a database holds them.

    Attributes:
        kind: COLMAP's FeatureExtractorType.
        rows: (N, B) uint8, the bytes of each.
    """

    kind: int
    rows: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDatabase:
    """An open database whose rows are checked.

    Attributes:
        path: of the file.
        connection: to it, for reading.
        content: ids and names of cameras and images.
    """

    path: Path
    connection: sqlite3.Connection
    content: Content

    def has(self, table: str) -> bool:
        """Whether there are rows of a table, which may be missing."""
        there = bool(columns_of(self.connection, table))
        return there and self._rows(f"SELECT 1 FROM {table} LIMIT 1") != []

    def cameras(self) -> dict[int, pycolmap.Camera]:
        """By id, in COLMAP's pixel origin."""
        return {
            row["camera_id"]: pycolmap.Camera(
                camera_id=row["camera_id"],
                model=pycolmap.CameraModelId(row["model"]),
                width=row["width"],
                height=row["height"],
                params=float64_values(row["params"]),
                has_prior_focal_length=bool(row["prior_focal_length"]),
            )
            for row in self._rows("SELECT * FROM cameras ORDER BY camera_id")
        }

    def rigs(self) -> list[pycolmap.Rig]:
        """Rigs and the poses of their cameras; None in a database of COLMAP 3."""
        if not self.has("rigs"):
            return []
        rigs = {}
        for row in self._rows("SELECT * FROM rigs ORDER BY rig_id"):
            rigs[row["rig_id"]] = rig = pycolmap.Rig(rig_id=row["rig_id"])
            kind = pycolmap.SensorType(row["ref_sensor_type"])
            rig.add_ref_sensor(pycolmap.sensor_t(kind, row["ref_sensor_id"]))
        for row in self._rows("SELECT * FROM rig_sensors ORDER BY sensor_id"):
            if row["sensor_type"] == CAMERA:
                pose = _values(row, "sensor_from_rig", 7)
                rigs[row["rig_id"]].add_sensor(
                    camera_sensor(row["sensor_id"]),
                    _rigid3d(pose) if np.isfinite(pose).all() else None,
                )
        return list(rigs.values())

    def frames(self) -> dict[int, int]:
        """The frame id of each image; images may have none."""
        if not self.has("frame_data"):
            return {}
        rows = self._rows(
            "SELECT frame_id, data_id FROM frame_data WHERE sensor_type = ?", CAMERA
        )
        return {image_id: frame_id for frame_id, image_id in rows}

    def keypoints(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Image id and (N, 2), (N, 4) or (N, 6) rows, in COLMAP's pixel origin."""
        for row in self.connection.execute("SELECT * FROM keypoints"):
            name = self.content.names.get(row["image_id"])
            if name is not None:
                what = f"keypoints of '{name}'"
                yield row["image_id"], _matrix(what, row, np.float32)

    def keypoint_columns(self) -> set[int]:
        """Numbers of columns of keypoints."""
        rows = self._rows("SELECT DISTINCT cols FROM keypoints WHERE rows > 0")
        return {columns for (columns,) in rows}

    def descriptor_kinds(self) -> set[tuple[int, int]]:
        """COLMAP's types of descriptors, and bytes of one."""
        if not self.has("descriptors"):
            return set()
        kind = self._kind_column()
        return {
            (found, columns)
            for found, columns in self._rows(
                f"SELECT DISTINCT {kind}, cols FROM descriptors WHERE rows > 0"
            )
        }

    def descriptors(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Image id and (N, B) bytes of descriptors."""
        if not self.has("descriptors"):
            return
        for row in self.connection.execute("SELECT * FROM descriptors"):
            image_id = row["image_id"]
            name = self.content.names.get(image_id)
            if name is None:
                continue
            rows = _matrix(f"descriptors of '{name}'", row, np.uint8)
            expected = self.content.keypoint_counts[image_id] or 0
            if len(rows) != expected:
                raise wrong_row(
                    f"descriptors of '{name}': found {len(rows)}, expected {expected}, "
                    "one for each keypoint"
                )
            yield image_id, rows

    def matches(self) -> Iterator[tuple[Pair, IndexArray]]:
        """Ids of two images, the smaller first, and (K, 2) rows of their keypoints."""
        return self._indices("matches")

    def inliers(self) -> Iterator[tuple[Pair, IndexArray]]:
        """The verified ones of ``matches``, in order of ids."""
        return self._indices("two_view_geometries")

    def _indices(self, table: str) -> Iterator[tuple[Pair, IndexArray]]:
        if self.has(table):
            query = f"SELECT pair_id, rows, cols, data FROM {table} ORDER BY pair_id"
            for row in self.connection.execute(query):
                pair = self._pair(row)
                if pair is not None:
                    rows = _matrix(table, row, np.uint32).astype(np.int64)
                    yield pair, rows.reshape(len(rows), 2)

    def geometries(self) -> Iterator[tuple[Pair, pycolmap.TwoViewGeometry]]:
        """Ids of two images, the smaller first, and what was estimated of them."""
        if self.has("two_view_geometries"):
            for row in self.connection.execute("SELECT * FROM two_view_geometries"):
                pair = self._pair(row)
                if pair is None:
                    continue
                names = self.content.names[pair[0]], self.content.names[pair[1]]
                geometry = stored_geometry(names, row)
                if geometry is not None:
                    yield pair, geometry

    def pose_priors(self) -> Iterator[tuple[int, pycolmap.PosePrior]]:
        """Image id and prior of each image that has a position.

        COLMAP 4 says which sensor's, 3.10 and later which image's, and those before
        have latitude, longitude and altitude of EXIF data beside the image.
        """
        there = columns_of(self.connection, "pose_priors")
        if "position" in there:
            yield from self._stored_priors("corr_data_id" in there)
        elif "prior_tx" in columns_of(self.connection, "images"):
            for row in self._rows("SELECT * FROM images"):
                position = [row[f"prior_t{axis}"] for axis in "xyz"]
                if _has_rotation(row) or None in position or not any(position):
                    continue
                prior = pycolmap.PosePrior(
                    position=np.array(position, np.float64),
                    coordinate_system=pycolmap.PosePriorCoordinateSystem.WGS84,
                )
                yield row["image_id"], prior

    def _stored_priors(
        self, of_sensors: bool
    ) -> Iterator[tuple[int, pycolmap.PosePrior]]:
        image_id = "corr_data_id" if of_sensors else "image_id"
        where = f"WHERE corr_sensor_type = {CAMERA}" if of_sensors else ""
        for row in self._rows(f"SELECT * FROM pose_priors {where}"):
            prior = pycolmap.PosePrior(
                position=_values(row, "position", 3),
                position_covariance=_values(row, "position_covariance", 9).reshape(
                    3, 3
                ),
                coordinate_system=pycolmap.PosePriorCoordinateSystem(
                    row["coordinate_system"]
                ),
            )
            if row[image_id] in self.content.names and prior.has_position():
                yield row[image_id], prior

    def prior_poses(self) -> dict[int, pycolmap.Rigid3d]:
        """The cam_from_world that a database of COLMAP 3 has beside images.

        kapture_export_colmap writes poses there.
        """
        if "prior_qw" not in columns_of(self.connection, "images"):
            return {}
        fields = [*(f"prior_q{axis}" for axis in "wxyz"), "prior_tx", "prior_ty"]
        fields.append("prior_tz")
        return {
            row["image_id"]: _rigid3d(np.array([row[name] for name in fields]))
            for row in self._rows("SELECT * FROM images")
            if _has_rotation(row) and None not in [row[name] for name in fields]
        }

    def count(self, table: str) -> int:
        """Rows of a table, 0 where it is missing."""
        if not columns_of(self.connection, table):
            return 0
        ((count,),) = self._rows(f"SELECT COUNT(*) FROM {table}")
        return int(count)

    def _kind_column(self) -> str:
        """COLMAP 3 had no type: its descriptors of 128 bytes are SIFT."""
        if "type" in columns_of(self.connection, "descriptors"):
            return "type"
        return f"CASE cols WHEN {SIFT_VALUES} THEN {SIFT} ELSE {UNDEFINED} END"

    def _pair(self, row: sqlite3.Row) -> Pair | None:
        """The two images of a row; None where they are no more."""
        first, second = divmod(row["pair_id"], PAIR_BASE)
        names = self.content.names
        return (first, second) if first in names and second in names else None

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self.connection.execute(query, values).fetchall()


@contextmanager
def open_stored(path: Path) -> Iterator[StoredDatabase]:
    """Open a database of COLMAP 3 or 4, and check what its rows refer to.

    Raises:
        DatasetError: no database of COLMAP, broken off, or with rows that contradict
            each other; also while rows are read.
    """
    with open_to_read(path) as connection:
        missing = [name for name in NEEDED if not columns_of(connection, name)]
        if missing:
            raise DatasetError(
                f"{path}: found an SQLite database without tables "
                f"{', '.join(missing)}, expected one of COLMAP; choose another file"
            )
        check_size(connection, path)
        with_rigs = all(columns_of(connection, table) for table in RIG_TABLES)
        content = check_content(connection, _columns(connection, with_rigs))
        if with_rigs:
            check_frames(connection, content)
        yield StoredDatabase(path=path, connection=connection, content=content)


def _columns(connection: sqlite3.Connection, with_rigs: bool) -> Mapping[str, str]:
    rig_columns = {name: COLUMNS[name] for name in RIG_TABLES if with_rigs}
    there = {
        table: columns
        for table, columns in OLDER_COLUMNS.items()
        if table in NEEDED or columns_of(connection, table)
    }
    return {**there, **rig_columns}


def _matrix(what: str, row: sqlite3.Row, dtype: type) -> np.ndarray[Any, Any]:
    return blob_matrix(what, row["rows"], row["cols"], row["data"], dtype)


def _has_rotation(row: sqlite3.Row) -> bool:
    """Whether an image of COLMAP 3 has a rotation beside it, not only a position."""
    return any(row[f"prior_q{axis}"] for axis in "wxyz")


def _values(row: sqlite3.Row, name: str, count: int) -> npt.NDArray[np.float64]:
    """The numbers of a blob, NaN where it is missing; their number is checked."""
    values = float64_values(row[name]) if name in row.keys() else None
    if values is None or len(values) == 0:
        return np.full(count, np.nan)
    return values


def _rigid3d(values: npt.NDArray[np.float64]) -> pycolmap.Rigid3d:
    """The pose of a quaternion, w first, and a translation."""
    w, x, y, z = values[:4]
    return pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), values[4:])
