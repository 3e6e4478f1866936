"""Positions of EXIF, whole and broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from r2d2_kapture.io.images.gps import parse_gps, read_exif_position
from r2d2_kapture.io.kapture.gnss import GnssPosition

LAT_REF, LAT, LON_REF, LON, ALT_REF, ALT = range(1, 7)
DOP, DATUM, ERROR = 11, 18, 31
NOWHERE = IFDRational(0, 0)
TAGS: dict[int, Any] = {
    LAT_REF: "N",
    LAT: (IFDRational(51), IFDRational(30), IFDRational(1800, 100)),
    LON_REF: "W",
    LON: (IFDRational(0), IFDRational(7), IFDRational(12)),
}
LONDON = GnssPosition(latitude=51 + 30 / 60 + 18 / 3600, longitude=-0.12)


def changed(**values: Any) -> GnssPosition:
    return GnssPosition(**{**vars(LONDON), **values})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, LONDON),
        ({LAT_REF: "S"}, changed(latitude=-LONDON.latitude)),
        ({LAT_REF: b"n\0", LON_REF: " e "}, changed(longitude=0.12)),
        ({LAT: (IFDRational(515, 10),)}, changed(latitude=51.5)),
        ({LAT: 51.5}, changed(latitude=51.5)),
        ({LAT: (51.0, 30.5)}, changed(latitude=51 + 30.5 / 60)),
        # rounded up, as some cameras write
        ({LAT: (51.0, 29.0, 60.0)}, changed(latitude=51.5)),
        ({LAT: (90.0, 0.0, 0.0)}, changed(latitude=90.0)),
        ({LON: (180.0, 0.0, 0.0)}, changed(longitude=-180.0)),
        ({ALT: IFDRational(3525, 100)}, changed(altitude=35.25)),
        ({ALT: 430.5, ALT_REF: b"\1"}, changed(altitude=-430.5)),
        ({ALT: 430.5, ALT_REF: 1}, changed(altitude=-430.5)),
        ({ALT: -430.5, ALT_REF: b"\1"}, changed(altitude=-430.5)),
        ({ALT: 430.5, ALT_REF: b"\0"}, changed(altitude=430.5)),
        ({ALT: 430.5, ALT_REF: b""}, changed(altitude=430.5)),
        # references to the ellipsoid, of EXIF 3.0
        ({ALT: 2.0, ALT_REF: 2}, changed(altitude=2.0)),
        ({ALT: 2.0, ALT_REF: 3}, changed(altitude=-2.0)),
        ({ERROR: IFDRational(13, 4)}, changed(accuracy=3.25)),
        ({DOP: 1.5}, changed(accuracy=7.5)),
        ({DOP: 1.5, ERROR: 2.0}, changed(accuracy=2.0)),
        ({DOP: 1.5, ERROR: NOWHERE}, changed(accuracy=7.5)),
        ({DOP: 0.0}, LONDON),
        ({DATUM: "WGS-84"}, LONDON),
        ({DATUM: "WGS 84\0"}, LONDON),
        ({DATUM: "WGS-1984"}, LONDON),
        ({DATUM: b"\0\0"}, LONDON),
    ],
)
def test_positions(tags: dict[int, Any], expected: GnssPosition) -> None:
    found = parse_gps({**TAGS, **tags})
    assert found.fault is None and found.position is not None
    for name, value in vars(expected).items():
        known = None if value is None else pytest.approx(value, rel=1e-15)
        assert vars(found.position)[name] == known


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        ({LAT_REF: None}, "GPSLatitudeRef '', not N or S"),
        ({LON_REF: "N"}, "GPSLongitudeRef 'N', not E or W"),
        ({LAT: (IFDRational(51), NOWHERE, IFDRational(1))}, "broken GPSLatitude"),
        ({LAT: ()}, "broken GPSLatitude"),
        ({LAT: None}, "broken GPSLatitude"),
        ({LON: (1.0, 2.0, 3.0, 4.0)}, "broken GPSLongitude"),
        ({LON: (-1.0, 2.0, 3.0)}, "broken GPSLongitude"),
        ({LON: "0 7 12"}, "broken GPSLongitude"),
        ({LAT: (51.0, 61.0, 0.0)}, "GPSLatitude of more than 60 minutes or seconds"),
        ({LAT: (90.0, 0.0, 1.0)}, "GPSLatitude of 90.0003 degrees"),
        ({LON: (180.5,)}, "GPSLongitude of 180.5 degrees"),
        ({LAT: (0.0, 0.0, 0.0), LON: (0.0, 0.0, 0.0)}, "0, 0, which is no fix"),
        ({DATUM: "TOKYO"}, "datum 'TOKYO', not WGS84"),
    ],
)
def test_broken_ones_are_no_positions(tags: dict[int, Any], fault: str) -> None:
    assert parse_gps({**TAGS, **tags}) == (None, fault)


def test_a_broken_altitude_leaves_the_rest() -> None:
    found = parse_gps({**TAGS, ALT: NOWHERE})
    assert found == (LONDON, "broken altitude, the rest is kept")


def test_no_gps_tags_are_no_fault() -> None:
    assert parse_gps({}) == (None, None)
    assert parse_gps({29: "2026:01:01"}) == (None, None)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_files_that_pillow_writes(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x8825] = {**TAGS, ALT: 430.5, ALT_REF: b"\1"}
    path = tmp_path / f"é b.{suffix}"
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    found = read_exif_position(path)
    assert found.fault is None and found.position is not None
    assert found.position.latitude == pytest.approx(LONDON.latitude, abs=1e-9)
    assert found.position.altitude == -430.5


def test_files_without_gps_or_that_are_no_images_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"none")
    for name in ("a.jpg", "b.jpg", "missing.jpg"):
        assert read_exif_position(tmp_path / name) == (None, None)
