"""Some images of a COLMAP database, as a database of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pycolmap

from r2d2_kapture.io.colmap.content import COLUMNS, PAIR_BASE
from r2d2_kapture.io.colmap.frames import CAMERA

CHOICES = {
    "images": "image_id IN (SELECT id FROM chosen)",
    "keypoints": "image_id IN (SELECT id FROM chosen)",
    "two_view_geometries": "pair_id IN (SELECT id FROM pairs)",
    "frame_data": f"sensor_type = {CAMERA} AND data_id IN (SELECT id FROM chosen)",
    "frames": "frame_id IN (SELECT frame_id FROM main.frame_data)",
    "rigs": "rig_id IN (SELECT rig_id FROM main.frames)",
    "rig_sensors": "rig_id IN (SELECT rig_id FROM main.rigs)",
    "cameras": "camera_id IN (SELECT camera_id FROM main.images"
    f" UNION SELECT ref_sensor_id FROM main.rigs WHERE ref_sensor_type = {CAMERA}"
    f" UNION SELECT sensor_id FROM main.rig_sensors WHERE sensor_type = {CAMERA})",
}
"""Which rows of each table the images need, in an order in which they are known."""


def write_part(
    source: Path,
    target: Path,
    image_ids: Iterable[int],
    pairs: Iterable[tuple[int, int]],
) -> None:
    """Write images with their cameras, rigs, frames and keypoints, and verified pairs.

    Args:
        source: database of COLMAP 4.
        target: a file that does not exist.
        image_ids: of the images, those of a frame together.
        pairs: of these images, the smaller id first.
    """
    pycolmap.Database.open(str(target)).close()
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS source", (str(source),))
        connection.execute("BEGIN")
        ids = {
            "chosen": sorted(image_ids),
            "pairs": sorted(PAIR_BASE * first + second for first, second in pairs),
        }
        for table, numbers in ids.items():
            connection.execute(f"CREATE TEMP TABLE {table} (id INTEGER PRIMARY KEY)")
            connection.executemany(
                f"INSERT INTO temp.{table} VALUES (?)", ((one,) for one in numbers)
            )
        for table, choice in CHOICES.items():
            columns = ", ".join(COLUMNS[table].split())
            connection.execute(
                f"INSERT INTO main.{table} ({columns}) "
                f"SELECT {columns} FROM source.{table} WHERE {choice}"
            )
        connection.execute("COMMIT")
