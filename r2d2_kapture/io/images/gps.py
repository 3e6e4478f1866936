"""Positions of EXIF data: the GPS tags of a photograph.

Tags as in EXIF 2.32, section 4.6.6; an altitude of reference 1 or 3 is below the sea or
the ellipsoid. A position without a hemisphere, with broken numbers, out of range, at 0,
0, or of another datum than WGS84 is no position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import gps_tags
from r2d2_kapture.io.kapture.gnss import METRES_PER_DOP, GnssPosition

Tags = Mapping[int, Any]
GPS = ExifTags.GPS
BELOW = (1, 3)
WGS84_NAMES = ("WGS84", "WGS1984")
"""Of the datum, without spaces and hyphens."""


class ExifPosition(NamedTuple):
    """What EXIF says of the position of a photograph.

    Attributes:
        position: None if it says nothing, or something broken.
        fault: what is broken; None if nothing is. The altitude alone may be.
    """

    position: GnssPosition | None = None
    fault: str | None = None


def read_exif_position(path: Path) -> ExifPosition:
    """Read where a photograph was taken.

    A file that is no image has no position, and no fault.
    """
    try:
        return parse_gps(gps_tags(path))
    except ImageError:
        return ExifPosition()


def parse_gps(tags: Tags) -> ExifPosition:
    """The position of GPS tags by their numbers, as Pillow gives them."""
    if GPS.GPSLatitude not in tags and GPS.GPSLongitude not in tags:
        return ExifPosition()
    datum = _text(tags.get(GPS.GPSMapDatum)).replace("-", "").replace(" ", "")
    if datum and not datum.startswith(WGS84_NAMES):
        return ExifPosition(fault=f"datum '{datum[:20]}', not WGS84")
    try:
        latitude = _degrees(tags, GPS.GPSLatitude, GPS.GPSLatitudeRef, "NS", 90)
        longitude = _degrees(tags, GPS.GPSLongitude, GPS.GPSLongitudeRef, "EW", 180)
    except ValueError as error:
        return ExifPosition(fault=str(error))
    if latitude == longitude == 0:  # what receivers write before they have a fix
        return ExifPosition(fault="0, 0, which is no fix")
    altitude, fault = None, None
    if GPS.GPSAltitude in tags:
        altitude = _number(tags[GPS.GPSAltitude])
        if altitude is None:
            fault = "broken altitude, the rest is kept"
        elif _reference(tags.get(GPS.GPSAltitudeRef)) in BELOW:
            altitude = -abs(altitude)
    return ExifPosition(
        GnssPosition(
            latitude=latitude,
            longitude=longitude,
            altitude=altitude,
            accuracy=_accuracy(tags),
        ),
        fault,
    )


def _degrees(tags: Tags, tag: int, reference: int, signs: str, largest: int) -> float:
    """Degrees with their sign.

    Raises:
        ValueError: with what is wrong.
    """
    name = ExifTags.GPSTAGS[tag]
    sign = _text(tags.get(reference))[:1]
    if not sign or sign not in signs:
        raise ValueError(
            f"{ExifTags.GPSTAGS[reference]} '{sign}', not {' or '.join(signs)}"
        )
    value = tags.get(tag)
    parts = list(value) if isinstance(value, Sequence) else [value]
    numbers = [_number(part) for part in parts]
    units = [number for number in numbers if number is not None]
    if len(units) != len(numbers) or not 1 <= len(units) <= 3 or min(units) < 0:
        raise ValueError(f"broken {name}")
    if any(number > 60 for number in units[1:]):
        raise ValueError(f"{name} of more than 60 minutes or seconds")
    degrees = sum(number / 60.0**place for place, number in enumerate(units))
    if degrees > largest:
        raise ValueError(f"{name} of {degrees:g} degrees")
    return degrees if sign == signs[0] else -degrees


def _accuracy(tags: Tags) -> float | None:
    """Standard deviation in metres: the positioning error, else from the dop."""
    error = _number(tags.get(GPS.GPSHPositioningError))
    if error is not None and error > 0:
        return error
    dop = _number(tags.get(GPS.GPSDOP))
    return dop * METRES_PER_DOP if dop is not None and dop > 0 else None


def _number(value: Any) -> float | None:
    """A rational as a number; None without one, as of a denominator of 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _reference(value: Any) -> int:
    """The altitude's reference: a byte, or a number."""
    if isinstance(value, bytes):
        return value[0] if value else 0
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    """Text in capitals, without the end that EXIF gives it."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.replace("\0", "").strip().upper() if isinstance(value, str) else ""
