"""Rows of a COLMAP 4 database that there are many of, written in chunks.

Tables and bytes are those of ``pycolmap.Database``, each of whose writes is a
transaction, and whose own transactions abort the process where a disk is full.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.io.kapture.tables import CameraRecord
from r2d2_kapture.types import FloatArray

CHUNK_ROWS = 10_000
"""Of a transaction."""


@dataclass(kw_only=True)
class DatabaseRows:
    """Adds rows to a database that no one else has open.

    Attributes:
        connection: to it.
        chunk: rows of a transaction.
        rows: added so far.
    """

    connection: sqlite3.Connection
    chunk: int
    rows: int = 0

    def image(self, image_id: int, record: CameraRecord, camera_id: int) -> None:
        """Add an image."""
        self._add("images", image_id=image_id, name=record.name, camera_id=camera_id)

    def frame(self, frame: pycolmap.Frame) -> None:
        """Add a frame with its images."""
        self._add("frames", frame_id=frame.frame_id, rig_id=frame.rig_id)
        for data in frame.data_ids:
            self._add(
                "frame_data",
                frame_id=frame.frame_id,
                data_id=data.id,
                sensor_id=data.sensor_id.id,
                sensor_type=data.sensor_id.type.value,
            )

    def keypoints(self, image_id: int, keypoints: FloatArray) -> None:
        """Add the (N, 2), (N, 4) or (N, 6) keypoints of an image."""
        self._add("keypoints", image_id=image_id, **_array(keypoints, "<f4"))

    def matches(self, pair_id: int, indices: npt.NDArray[np.uint32]) -> None:
        """Add the (K, 2) matches of a pair."""
        self._add("matches", pair_id=pair_id, **_array(indices, "<u4"))

    def geometry(self, pair_id: int, geometry: pycolmap.TwoViewGeometry) -> None:
        """Add the two-view geometry of a pair, with its inliers."""
        pose = geometry.cam2_from_cam1
        matrices = {name: getattr(geometry, name) for name in ("F", "E", "H")}
        if pose is not None:
            matrices["qvec"] = pose.rotation.quat[[3, 0, 1, 2]]
            matrices["tvec"] = pose.translation
        self._add(
            "two_view_geometries",
            pair_id=pair_id,
            **_array(geometry.inlier_matches, "<u4"),
            config=int(geometry.config),
            **{
                name: np.ascontiguousarray(values, "<f8").tobytes()
                for name, values in matrices.items()
                if values is not None
            },
        )

    def _add(self, table: str, **values: Any) -> None:
        columns = ", ".join(values)
        places = ", ".join("?" * len(values))
        self.connection.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({places})",
            tuple(values.values()),
        )
        self.rows += 1
        if self.rows % self.chunk == 0:
            self.connection.commit()


@contextmanager
def adding_rows(path: Path, chunk: int = CHUNK_ROWS) -> Iterator[DatabaseRows]:
    """Open a temporary database to add rows to; after a failure it is of no use.

    Args:
        path: of the database, which has the tables.
        chunk: rows of a transaction.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    with closing(sqlite3.connect(path)) as connection:
        # nobody needs it after a failure
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        yield DatabaseRows(connection=connection, chunk=chunk)
        connection.commit()


def _array(values: npt.NDArray[Any], dtype: str) -> dict[str, Any]:
    """The columns of an array; COLMAP has no bytes where it has no rows."""
    rows, cols = values.shape
    data = np.ascontiguousarray(values, dtype).tobytes() or None
    return {"rows": rows, "cols": cols, "data": data}
