"""Checks of a kapture dataset's tables: kapture keeps the last of rows that clash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import kapture
from kapture.core.Sensors import CAMERA_TYPE_PARAMS_COUNT_FROM_NAME

from r2d2_kapture.errors import DatasetError

Rows = Sequence[Sequence[str]]
KEY_FIELDS = {"sensors": 1, "rigs": 2, "trajectories": 2, "records_depth": 2}
"""The first fields of a table that only one of its rows may have."""
TIMED = ("trajectories", "records_depth")
"""Tables that begin with a timestamp."""


class CameraRecord(NamedTuple):
    """One image: which camera took it when, and its name."""

    timestamp: int
    sensor_id: str
    name: str


def image_records(data: kapture.Kapture) -> dict[str, CameraRecord]:
    """The record of each image, in order of names.

    Raises:
        DatasetError: an unknown camera, or an image that is recorded twice.
    """
    rows = kapture.flatten(data.records_camera or {})
    records = check_records("records_camera.txt", map(CameraRecord._make, rows))
    check_record_sensors(
        "records_camera.txt", records, data.sensors or {}, data.rigs or {}
    )
    return {record.name: record for record in sorted(records, key=lambda one: one.name)}


def check_table(path: Path, rows: Rows) -> None:
    """Refuse rows of one key that differ; the same row twice is one.

    Args:
        path: of the table, whose name is one of KEY_FIELDS and ``.txt``.
        rows: its fields.

    Raises:
        DatasetError: naming the key and both rows.
    """
    fields = KEY_FIELDS[path.stem]
    first: dict[tuple[str | int, ...], Sequence[str]] = {}
    for row in rows:
        # kapture reads 7 and 07 as one timestamp
        time = _number(row[0]) if path.stem in TIMED else row[0]
        key = (time, *row[1:fields])
        other = first.setdefault(key, row)
        if other != row:
            raise DatasetError(
                f"{path}: found two rows of '{', '.join(row[:fields])[:80]}', "
                f"'{', '.join(other[fields:])[:80]}' and "
                f"'{', '.join(row[fields:])[:80]}', expected one; delete the wrong one"
            )


def check_cameras(path: Path, rows: Rows) -> None:
    """Refuse cameras and GNSS sensors that kapture could not make, and would not name.

    Args:
        path: of sensors.txt.
        rows: its fields.

    Raises:
        DatasetError: naming the sensor, what was found and what is expected.
    """
    for row in rows:
        if len(row) < 3:
            raise DatasetError(
                f"{path}: found '{', '.join(row)[:80]}', expected sensor_id, name, "
                "sensor_type, and the parameters"
            )
        sensor_id, _, sensor_type, *params = row
        if sensor_type in ("camera", "depth"):
            reason = _unlike_a_camera(params)
            if reason:
                raise DatasetError(f"{path}: camera '{sensor_id}': {reason}")
        if sensor_type == "gnss" and not params:
            raise DatasetError(
                f"{path}: gnss sensor '{sensor_id}': found no coordinates, expected "
                "their code after gnss, such as EPSG:4326"
            )


def check_gnss(path: Path, rows: Rows) -> None:
    """Refuse GNSS records that kapture could not read, and would not name.

    Args:
        path: of records_gnss.txt.
        rows: its fields.

    Raises:
        DatasetError: naming the row.
    """
    for row in rows:
        try:
            if len(row) not in (6, 7):
                raise ValueError(f"{len(row)} fields")
            for number in (row[0], row[5]):
                int(number)
            for number in (*row[2:5], *row[6:]):
                float(number)
        except ValueError as error:
            raise DatasetError(
                f"{path}: found '{', '.join(row)[:80]}' ({error}), expected timestamp, "
                "device_id, x, y, z, utc, dop; correct or delete the row"
            ) from error


def check_records(
    path: Path | str, records: Iterable[CameraRecord]
) -> list[CameraRecord]:
    """Refuse images that share a camera and a time, or an image recorded twice.

    Args:
        path: of records_camera.txt, for the message.
        records: of the images.

    Returns:
        The records, each once: the same row twice is one.

    Raises:
        DatasetError: naming both.
    """
    unique = list(dict.fromkeys(records))
    image_of: dict[tuple[int, str], str] = {}
    record_of: dict[str, tuple[int, str]] = {}
    for timestamp, sensor_id, name in unique:
        key = timestamp, sensor_id
        if image_of.setdefault(key, name) != name:
            raise DatasetError(
                f"{path}: images '{image_of[key]}' and '{name}' have the same "
                f"timestamp {timestamp} and camera '{sensor_id}', expected one image "
                "of a camera at a time; give each image a timestamp of its own, such "
                "as its number"
            )
        first = record_of.setdefault(name, key)
        if first != key:
            raise DatasetError(
                f"{path}: image '{name}' recorded at {first[0]}, '{first[1]}' and at "
                f"{timestamp}, '{sensor_id}', expected one record; delete the other"
            )
    return unique


def check_record_sensors(
    path: Path | str,
    records: Iterable[CameraRecord],
    sensors: Mapping[str, kapture.Sensor],
    rig_ids: Iterable[str],
) -> None:
    """Refuse images of what is no camera.

    Args:
        path: of records_camera.txt, for the message.
        records: of the images.
        sensors: of the dataset, by id.
        rig_ids: of its rigs.

    Raises:
        DatasetError: naming the device.
    """
    for device_id in sorted({device_id for _, device_id, _ in records}):
        if device_id in rig_ids:
            raise DatasetError(
                f"{path}: '{device_id}' is a rig of rigs.txt, expected one of its "
                "cameras"
            )
        if device_id not in sensors:
            raise DatasetError(
                f"{path}: camera '{device_id}' is not in sensors.txt; add it there"
            )
        found = sensors[device_id].sensor_type
        if found != "camera":
            raise DatasetError(
                f"{path}: '{device_id}' is of type '{found[:40]}' in sensors.txt, "
                "expected 'camera'; correct one of the two"
            )


def _unlike_a_camera(params: Sequence[str]) -> str | None:
    """What is wrong with a model and its parameters, beginning with the size."""
    model, values = (params[0], params[1:]) if params else ("", ())
    counts = CAMERA_TYPE_PARAMS_COUNT_FROM_NAME
    if model not in counts:
        known = ", ".join(counts)
        return f"found the model '{model[:40]}', expected one of {known}"
    if len(values) != counts[model]:
        return (
            f"found {len(values)} numbers after {model}, expected {counts[model]}, "
            "width and height first"
        )
    for value in values:
        try:
            float(value)
        except ValueError:
            return f"found '{value[:40]}' after {model}, expected numbers"
    return None


def _number(field: str) -> str | int:
    """A timestamp as a number; text that is not a number stays unchanged."""
    try:
        return int(field)
    except ValueError:
        return field
