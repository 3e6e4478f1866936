"""Databases and models for COLMAP 3, as version 3.8 of distributions reads them.

Version 3.8 has no rigs, frames and priors of its own tables, and no type of
descriptors, which it takes for SIFT: others are left out. A prior position stands in
the row of its image. See github.com/colmap/colmap, tag 3.8, doc/database.rst.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.types import counted

VERSION = 3800
"""Its ``PRAGMA user_version``."""
MODELS = 11
"""It knows the camera models below this number."""
SIFT = int(pycolmap.FeatureExtractorType.SIFT)
CALIBRATED = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
CALIBRATED_RIG = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED_RIG)
WGS84 = int(pycolmap.PosePriorCoordinateSystem.WGS84)
COLMAP_4_FILES = ("rigs.bin", "frames.bin", "rigs.txt", "frames.txt")
PRIORS = tuple(f"prior_{name}" for name in ("qw", "qx", "qy", "qz", "tx", "ty", "tz"))

SCHEMA = f"""
CREATE TABLE cameras (
    camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    model INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    params BLOB,
    prior_focal_length INTEGER NOT NULL
);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    camera_id INTEGER NOT NULL,
    {", ".join(f"{name} REAL" for name in PRIORS)},
    CONSTRAINT image_id_check CHECK (image_id >= 0 AND image_id < 2147483647),
    FOREIGN KEY (camera_id) REFERENCES cameras (camera_id)
);
CREATE UNIQUE INDEX index_name ON images (name);
CREATE TABLE keypoints (
    image_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB,
    FOREIGN KEY (image_id) REFERENCES images (image_id) ON DELETE CASCADE
);
CREATE TABLE descriptors (
    image_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB,
    FOREIGN KEY (image_id) REFERENCES images (image_id) ON DELETE CASCADE
);
CREATE TABLE matches (
    pair_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB
);
CREATE TABLE two_view_geometries (
    pair_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB,
    config INTEGER NOT NULL,
    F BLOB, E BLOB, H BLOB, qvec BLOB, tvec BLOB
);
PRAGMA user_version = {VERSION};
"""
SAME = ("cameras", "keypoints", "matches")
"""Tables that both versions have, column by column."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What of a database COLMAP 3 does not have.

    Attributes:
        rigs: of several cameras.
        descriptors: images whose descriptors are not SIFT.
        positions: images whose prior is not of WGS84.
    """

    rigs: int
    descriptors: int
    positions: int

    @property
    def warnings(self) -> Iterator[str]:
        """Sentences for the report."""
        if self.rigs:
            yield (
                "COLMAP 3 has no rigs: the cameras of "
                f"{counted(self.rigs, 'rig')} move independently in it"
            )
        if self.descriptors:
            yield (
                f"descriptors of {self.descriptors} images are left out, which COLMAP "
                "3 would take for SIFT; the matches are there"
            )
        if self.positions:
            yield (
                f"positions of {counted(self.positions, 'image')} in a local frame are "
                "left out, which COLMAP 3 would take for latitude and longitude"
            )


def check_models(path: Path) -> None:
    """Refuse cameras that COLMAP 3 does not know.

    Args:
        path: of a COLMAP 4 database.

    Raises:
        DatasetError: naming the camera and its model.
    """
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute(
            "SELECT camera_id, model FROM cameras WHERE model >= ?", (MODELS,)
        ).fetchone()
    if row is not None:
        name = pycolmap.CameraModelId(row[1]).name
        raise DatasetError(
            f"camera {row[0]}: found model {name}, which COLMAP 3.8 does not have; "
            "export --to colmap, or undistort the images"
        )


def write_colmap3_database(source: Path, target: Path) -> LeftOut:
    """Write a COLMAP 4 database as one of COLMAP 3.8, with the same ids.

    Args:
        source: the database.
        target: a file that does not exist.

    Raises:
        DatasetError: see ``check_models``.
    """
    check_models(source)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        connection.execute("ATTACH ? AS source", (str(source),))
        connection.execute("BEGIN")
        for table in SAME:
            connection.execute(f"INSERT INTO {table} SELECT * FROM source.{table}")
        connection.execute(
            "INSERT INTO images (image_id, name, camera_id) "
            "SELECT image_id, name, camera_id FROM source.images"
        )
        positions = _write_priors(connection)
        connection.execute(
            "INSERT INTO descriptors SELECT image_id, rows, cols, data "
            "FROM source.descriptors WHERE type = ?",
            (SIFT,),
        )
        connection.execute(
            "INSERT INTO two_view_geometries SELECT pair_id, rows, cols, data, "
            "CASE config WHEN ? THEN ? ELSE config END, F, E, H, qvec, tvec "
            "FROM source.two_view_geometries",
            (CALIBRATED_RIG, CALIBRATED),
        )
        (rigs,) = connection.execute(
            "SELECT COUNT(DISTINCT rig_id) FROM source.rig_sensors"
        ).fetchone()
        (others,) = connection.execute(
            "SELECT COUNT(*) FROM source.descriptors WHERE type <> ? AND rows > 0",
            (SIFT,),
        ).fetchone()
        connection.execute("COMMIT")
    return LeftOut(rigs=rigs, descriptors=others, positions=positions)


def _write_priors(connection: sqlite3.Connection) -> int:
    """Prior positions of WGS84: latitude, longitude, altitude; how many are others."""
    rows = connection.execute(
        "SELECT corr_data_id, position, coordinate_system FROM source.pose_priors "
        "WHERE corr_sensor_type = ?",
        (int(pycolmap.SensorType.CAMERA.value),),
    ).fetchall()
    others = 0
    for image_id, blob, system in rows:
        position = np.frombuffer(blob or b"", np.float64)
        if len(position) != 3 or not np.isfinite(position).all():
            continue
        if system != WGS84:
            others += 1
            continue
        connection.execute(
            "UPDATE images SET prior_tx = ?, prior_ty = ?, prior_tz = ? "
            "WHERE image_id = ?",
            (*position.tolist(), image_id),
        )
    return others


def remove_rigs_and_frames(folder: Path) -> None:
    """Leave the files of a model that COLMAP 3 has, whose format is the same."""
    for name in COLMAP_4_FILES:
        (folder / name).unlink(missing_ok=True)
