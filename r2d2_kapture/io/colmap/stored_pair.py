"""The matches and the two-view geometry of one pair, as a COLMAP database has them.

Read by SQLite alone, so that databases of COLMAP 3 are read too, nothing is upgraded,
and a broken row is an error rather than the end of the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import open_to_read
from r2d2_kapture.io.colmap.content import (
    GEOMETRY_VALUES,
    PAIR_BASE,
    blob_matrix,
    named_numbers,
    wrong_row,
)
from r2d2_kapture.io.names import nearest_name
from r2d2_kapture.types import FloatArray, IndexArray, some_names

Row = sqlite3.Row


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredPair:
    """What a database holds of a pair.

    Attributes:
        keypoints: (N, 2) of each image, in pixels from the centre of the first.
        matches: (K, 2) rows of keypoints.
        geometry: in COLMAP's pixel origin, with its inliers; None where there is none.
    """

    keypoints: tuple[FloatArray, FloatArray]
    matches: IndexArray
    geometry: pycolmap.TwoViewGeometry | None


def read_stored_pair(path: Path, pair: tuple[str, str]) -> StoredPair:
    """Read a pair of images, in the order in which they are named.

    Raises:
        DatasetError: no database, an image or a pair that it does not hold, or rows
            that are broken.
    """
    with open_to_read(path) as connection:
        return _read(connection, path, pair)


def _read(
    connection: sqlite3.Connection, path: Path, pair: tuple[str, str]
) -> StoredPair:
    ids = {
        str(row["name"]): int(row["image_id"])
        for row in connection.execute("SELECT image_id, name FROM images")
    }
    for name in pair:
        if name not in ids:
            raise DatasetError(f"{path}: {nearest_name(name, ids)}")
    first, second = (ids[name] for name in pair)
    keypoints = tuple(_keypoints(connection, name, ids[name]) for name in pair)
    pair_id = PAIR_BASE * min(first, second) + max(first, second)
    matches = _row(connection, "matches", pair_id)
    geometry = _row(connection, "two_view_geometries", pair_id)
    if matches is None and geometry is None:
        raise DatasetError(
            f"{path}: found no matches of '{pair[0]}' and '{pair[1]}'; "
            + _partners(connection, pair[0], ids)
        )
    found = None if geometry is None else stored_geometry(pair, geometry)
    rows = _indices(pair, matches)
    if found is not None and not len(rows):
        rows = found.inlier_matches.astype(np.int64)
    if first > second:
        rows = rows[:, ::-1]
        if found is not None:
            found.invert()
    for side, name in enumerate(pair):
        if len(rows) and rows[:, side].max() >= len(keypoints[side]):
            raise wrong_row(f"matches of keypoints that '{name}' does not have")
    return StoredPair(
        keypoints=(keypoints[0], keypoints[1]), matches=rows, geometry=found
    )


def _row(connection: sqlite3.Connection, table: str, pair_id: int) -> Row | None:
    found: Row | None = connection.execute(
        f"SELECT * FROM {table} WHERE pair_id = ?", (pair_id,)
    ).fetchone()
    return found


def _keypoints(connection: sqlite3.Connection, name: str, image_id: int) -> FloatArray:
    row = connection.execute(
        "SELECT * FROM keypoints WHERE image_id = ?", (image_id,)
    ).fetchone()
    if row is None:
        return np.zeros((0, 2), np.float32)
    rows = _matrix(f"keypoints of '{name}'", row, np.float32)
    return kapture_from_colmap(rows[:, :2]).astype(np.float32)


def _indices(pair: tuple[str, str], row: Row | None) -> IndexArray:
    if row is None or not row["rows"]:
        return np.zeros((0, 2), np.int64)
    what = f"matches of '{pair[0]}' and '{pair[1]}'"
    return _matrix(what, row, np.uint32)[:, :2].astype(np.int64)


def _matrix(what: str, row: Row, dtype: type) -> np.ndarray[Any, Any]:
    matrix = blob_matrix(what, row["rows"], row["cols"], row["data"], dtype)
    if matrix.shape[1] < 2:
        raise wrong_row(f"{what}: found {matrix.shape[1]} columns")
    return matrix


def stored_geometry(pair: tuple[str, str], row: Row) -> pycolmap.TwoViewGeometry | None:
    """The geometry of a row of two_view_geometries; None where none was estimated."""
    what = f"geometry of '{pair[0]}' and '{pair[1]}'"
    configurations = pycolmap.TwoViewGeometryConfiguration.__members__.values()
    if row["config"] not in map(int, configurations):
        raise wrong_row(f"{what}: found configuration {row['config']!r}")
    there = row.keys()
    blobs = (row[name] if name in there else None for name in GEOMETRY_VALUES)
    values = named_numbers(what, GEOMETRY_VALUES, blobs)
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = row["config"]
    for name in ("E", "F", "H"):
        if values[name].any():
            setattr(geometry, name, values[name].reshape(3, 3))
    if values["qvec"].any() and len(values["tvec"]):
        w, *xyz = values["qvec"].tolist()
        rotation = pycolmap.Rotation3d([*xyz, w])
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(rotation, values["tvec"])
    geometry.inlier_matches = _indices(pair, row).astype(np.uint32)
    undefined = int(pycolmap.TwoViewGeometryConfiguration.UNDEFINED)
    return None if geometry.config == undefined else geometry


def _partners(connection: sqlite3.Connection, name: str, ids: dict[str, int]) -> str:
    """What an image is matched with, in words."""
    names = {image_id: other for other, image_id in ids.items()}
    pairs: Collection[int] = [
        int(row[0]) for row in connection.execute("SELECT pair_id FROM matches")
    ]
    own = ids[name]
    both = [divmod(pair_id, PAIR_BASE) for pair_id in pairs]
    others = [b if a == own else a for a, b in both if own in (a, b)]
    found = sorted(names[other] for other in others if other in names)
    if not found:
        return f"'{name}' is matched with no image"
    return f"'{name}' is matched with {some_names(found)}"
