"""GNSS records of a kapture dataset: where each image was taken.

``sensors/records_gnss.txt`` has timestamp, device_id, x, y, z, utc, dop. As kapture's
own importers have it, x is the longitude and y the latitude in degrees, z the altitude
in metres, and the device of camera ``C`` is ``GPS_C``. The parameter of the sensor says
which coordinates: EPSG:4326 or EPSG:4979 (WGS84), EPSG:326ZZ or EPSG:327ZZ (UTM zone ZZ
of the northern or southern hemisphere, x the easting and y the northing). kapture has
no code of a Cartesian frame of its own: ours is ``LOCAL``, with x, y, z in metres.

An altitude of ``nan`` is unknown, and so is an accuracy of dop 0. kapture has no column
for the accuracy: it is the dop times METRES_PER_DOP.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import kapture
import numpy as np

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.geodesy import EnuFrame, Positions, wgs84_from_utm
from r2d2_kapture.io.kapture.dataset import Dataset, read_lines
from r2d2_kapture.io.kapture.rigs import RigsAbove, rigs_above
from r2d2_kapture.io.kapture.tables import image_records

GNSS = "gnss"
GNSS_FILE = "records_gnss.txt"
GNSS_PREFIX = "GPS_"
"""Of kapture's own importers: the device is named after the camera that has it."""
WGS84_CODES = ("EPSG:4326", "EPSG:4979")
LOCAL_CODE = "LOCAL"
UTM_CODE = re.compile(r"EPSG:32([67])(0[1-9]|[1-5]\d|60)")
UTM_EASTING, UTM_NORTHING = (100_000, 900_000), 10_000_000
"""Metres: no zone is wider, not even off Norway, and no hemisphere higher."""
METRES_PER_DOP = 5.0
"""Standard deviation in metres of a position of dop 1: that of a phone or a drone."""


@dataclass(frozen=True, kw_only=True)
class GnssPosition:
    """A position on Earth.

    Attributes:
        latitude, longitude: in degrees (WGS84), -90 to 90 and -180 to 180.
        altitude: in metres above the ellipsoid; None if unknown.
        accuracy: standard deviation in metres, horizontally; None if unknown.
    """

    latitude: float
    longitude: float
    altitude: float | None = None
    accuracy: float | None = None

    @property
    def in_range(self) -> bool:
        """Whether latitude and longitude are degrees as above."""
        return abs(self.latitude) <= 90 and abs(self.longitude) <= 180


@dataclass(frozen=True, kw_only=True)
class LocalPosition:
    """A position in a Cartesian frame that is nowhere on Earth as far as known.

    Attributes:
        x, y, z: in metres.
        accuracy: standard deviation in metres of each; None if unknown.
    """

    x: float
    y: float
    z: float
    accuracy: float | None = None


Position = GnssPosition | LocalPosition


def read_gnss(dataset: Dataset) -> dict[str, Position]:
    """The GNSS position of each image that has one, in order of names.

    It is the record of the image's timestamp: of the device GPS_<camera>, else of one
    in a rig of the camera, else the only one of that time that is no other camera's.
    The place of an antenna in its rig is not taken into account. Records without a
    position (NaN, or exactly 0, 0) are passed over.

    Args:
        dataset: its records are used.

    Raises:
        DatasetError: records of devices that sensors.txt lacks; coordinates that are
            not known, or out of range; positions on Earth and in a local frame.
    """
    source = dataset.root / "sensors" / GNSS_FILE
    records = dataset.data.records_gnss or {}
    if not records:
        _refuse_unread(source)
    above = rigs_above(dataset.data) if records else {}
    cameras = [s for s, one in dataset.data.sensors.items() if one.sensor_type != GNSS]
    found: dict[str, Position] = {}
    for name, (timestamp, camera, _) in image_records(dataset.data).items():
        devices = records.get(timestamp, {})
        device = _device_of(camera, devices, above, cameras)
        if device is not None:
            code = dataset.data.sensors[device].sensor_params[0]
            place = f"{source}: '{device}' at {timestamp}"
            position = _position(devices[device], code, place)
            if position is not None:
                found[name] = position
    if len({type(position) for position in found.values()}) > 1:
        raise DatasetError(
            f"{source}: found positions on Earth and in a local frame ({LOCAL_CODE}), "
            "expected one of them; remove the records of the other"
        )
    return found


def usable_gnss(dataset: Dataset) -> tuple[dict[str, Position], tuple[str, ...]]:
    """As read_gnss; without positions and with a warning where it raises."""
    try:
        return read_gnss(dataset), ()
    except DatasetError as error:
        return {}, (f"{error}; its positions are not used",)


def add_gnss(data: kapture.Kapture, positions: Mapping[str, Position]) -> None:
    """Add GNSS records of images, and a device for each of their cameras.

    Args:
        data: changed in place; kapture's own functions write it.
        positions: by the name of an image of ``data``, each with a finite position.
    """
    if not positions:
        return
    images = image_records(data)
    records = data.records_gnss or kapture.RecordsGnss()
    for name, position in sorted(positions.items()):
        timestamp, camera, _ = images[name]
        device = GNSS_PREFIX + camera
        code = LOCAL_CODE if isinstance(position, LocalPosition) else WGS84_CODES[0]
        data.sensors[device] = kapture.Sensor(GNSS, [code])
        records[timestamp, device] = _record(position)
    data.records_gnss = records


def in_metres(
    positions: Mapping[str, Position], frame: EnuFrame | None = None
) -> tuple[Positions, EnuFrame | None]:
    """Positions in one frame in metres, in which distances can be taken.

    Args:
        positions: all on Earth, or all in a local frame; at least one.
        frame: for those on Earth; None takes one in their middle.

    Returns:
        (N, 3) in order of ``positions``: east, north, up in the frame, or as they are
        in a local frame; and the frame, None for a local one. Unknown altitudes become
        the median of the known ones, or 0.
    """
    values = list(positions.values())
    local = [(p.x, p.y, p.z) for p in values if isinstance(p, LocalPosition)]
    if local:
        return np.array(local, np.float64), None
    on_earth = [p for p in values if isinstance(p, GnssPosition)]
    known = [p.altitude for p in on_earth if p.altitude is not None]
    usual = float(np.median(known)) if known else 0.0
    wgs84 = np.array(
        [
            (p.latitude, p.longitude, usual if p.altitude is None else p.altitude)
            for p in on_earth
        ],
        np.float64,
    )
    frame = frame or EnuFrame.around(wgs84)
    return frame.enu_from_wgs84(wgs84), frame


def _refuse_unread(source: Path) -> None:
    """Refuse records that kapture passed over as sensors.txt lacks their devices."""
    lines = read_lines(source) if source.is_file() else []
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if rows:
        raise DatasetError(
            f"{source}: found '{rows[0][:80]}', and no gnss sensor of this device in "
            "sensors.txt; add such as 'GPS_camera, , gnss, EPSG:4326'"
        )


def _device_of(
    camera: str,
    devices: Mapping[str, kapture.RecordGnss],
    above: RigsAbove,
    cameras: list[str],
) -> str | None:
    """The device of a camera among those that recorded something at its time."""
    own = GNSS_PREFIX + camera
    if own in devices:
        return own
    rigs = above.get(camera, {}).keys()
    in_rig = sorted(d for d in devices if rigs & above.get(d, {}).keys())
    if in_rig:
        return in_rig[0]
    of_others = {GNSS_PREFIX + other for other in cameras}
    free = [device for device in devices if device not in of_others]
    return free[0] if len(free) == 1 else None


def _position(record: kapture.RecordGnss, code: str, place: str) -> Position | None:
    accuracy = record.dop * METRES_PER_DOP
    known = accuracy if math.isfinite(accuracy) and accuracy > 0 else None
    x, y, z = record.x, record.y, record.z
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    if code.strip().upper() == LOCAL_CODE:
        if not math.isfinite(z):
            return None
        return LocalPosition(x=x, y=y, z=z, accuracy=known)
    if x == y == 0:  # what receivers write before they have a fix
        return None
    utm = UTM_CODE.fullmatch(code.strip().upper())
    if utm:
        if not (UTM_EASTING[0] <= x <= UTM_EASTING[1] and 0 <= y <= UTM_NORTHING):
            raise DatasetError(
                f"{place}: found x {x:g} and y {y:g}, expected the easting of UTM "
                f"from {UTM_EASTING[0]} to {UTM_EASTING[1]} and the northing from 0 to "
                f"{UTM_NORTHING} metres"
            )
        zone, north = int(utm[2]), utm[1] == "6"
        y, x, _ = wgs84_from_utm(np.array([[x, y, 0.0]]), zone, north=north)[0].tolist()
    elif code.strip().upper() not in WGS84_CODES:
        raise DatasetError(
            f"{place}: found coordinates '{code[:40]}', expected one of "
            f"{', '.join(WGS84_CODES)}, EPSG:326ZZ, EPSG:327ZZ (UTM) or {LOCAL_CODE} "
            "in sensors.txt; convert them"
        )
    altitude = z if math.isfinite(z) else None
    found = GnssPosition(latitude=y, longitude=x, altitude=altitude, accuracy=known)
    if not found.in_range:
        raise DatasetError(
            f"{place}: found x {x:g} and y {y:g}, expected the longitude from -180 to "
            "180 and the latitude from -90 to 90 degrees"
        )
    return found


def _record(position: Position) -> kapture.RecordGnss:
    dop = (position.accuracy or 0.0) / METRES_PER_DOP
    if isinstance(position, LocalPosition):
        return kapture.RecordGnss(position.x, position.y, position.z, 0, dop)
    altitude = math.nan if position.altitude is None else position.altitude
    return kapture.RecordGnss(position.longitude, position.latitude, altitude, 0, dop)
