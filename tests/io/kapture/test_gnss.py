"""GNSS records of datasets: whose they are, what they mean, and round trips."""

from __future__ import annotations

from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.gnss import (
    GnssPosition,
    LocalPosition,
    Position,
    add_gnss,
    in_metres,
    read_gnss,
)
from tests.scenes.kapture_files import HEADER

CAMERAS = ("left", "right")
LONDON = GnssPosition(latitude=51.5, longitude=-0.12, altitude=35.25, accuracy=2.5)


def write_dataset(
    root: Path, gnss: str = "", *, sensors: str = "", rigs: str = ""
) -> Path:
    """Two cameras that take two images each, with rows of GNSS records."""
    folder = root / "sensors"
    folder.mkdir(parents=True)
    camera = "camera, SIMPLE_PINHOLE, 8, 6, 9, 4, 3"
    rows = "".join(f"{name}, , {camera}\n" for name in CAMERAS)
    images = "".join(
        f"{time}, {name}, {name} {time}.jpg\n" for time in (5, 6) for name in CAMERAS
    )
    (folder / "sensors.txt").write_text(HEADER + rows + sensors, "utf-8")
    (folder / "records_camera.txt").write_text(HEADER + images, "utf-8")
    if gnss:
        (folder / "records_gnss.txt").write_text(HEADER + gnss, "utf-8")
    if rigs:
        (folder / "rigs.txt").write_text(HEADER + rigs, "utf-8")
    return root


def read(root: Path) -> dict[str, Position]:
    return read_gnss(open_dataset(root))


def test_a_dataset_without_records_has_no_positions(tmp_path: Path) -> None:
    assert read(write_dataset(tmp_path)) == {}


@pytest.mark.parametrize(
    "position",
    [
        LONDON,
        GnssPosition(latitude=-89.99999, longitude=180.0),
        GnssPosition(latitude=-0.1, longitude=-179.9999999, altitude=-430.123),
        LocalPosition(x=0.1, y=-2e6, z=3.0, accuracy=0.02),
        LocalPosition(x=0.0, y=0.0, z=0.0),
    ],
)
def test_positions_come_back_as_they_were(tmp_path: Path, position: Position) -> None:
    root = write_dataset(tmp_path)
    data = kcsv.kapture_from_dir(str(root))
    add_gnss(data, {"right 6.jpg": position, "left 5.jpg": position})
    kcsv.kapture_to_dir(str(root), data)
    found = read(root)
    assert list(found) == ["left 5.jpg", "right 6.jpg"]
    for one in found.values():
        assert type(one) is type(position)
        assert (one.accuracy or 0) == pytest.approx(position.accuracy or 0, rel=1e-15)
        without = {**vars(one), "accuracy": None}
        assert without == {**vars(position), "accuracy": None}


def test_records_are_those_of_kaptures_own_importers(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    data = kcsv.kapture_from_dir(str(root))
    add_gnss(data, {"left 5.jpg": LONDON})
    assert data.sensors["GPS_left"].sensor_params == ["EPSG:4326"]
    record = data.records_gnss[5, "GPS_left"]
    assert (record.x, record.y, record.z) == (-0.12, 51.5, 35.25)
    assert record == kapture.RecordGnss(-0.12, 51.5, 35.25, 0, 0.5)


def test_each_camera_has_the_record_of_its_device(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path,
        "5, GPS_left, 1, 10, 0, 0, 0\n5, GPS_right, 2, 20, 0, 0, 0\n"
        "6, GPS_left, 3, 30, 0, 0, 0\n",
        sensors="GPS_left, , gnss, EPSG:4326\nGPS_right, , gnss, EPSG:4326\n",
    )
    # at 6 the only device is that of the other camera
    assert {name: vars(p)["latitude"] for name, p in read(root).items()} == {
        "left 5.jpg": 10,
        "left 6.jpg": 30,
        "right 5.jpg": 20,
    }


def test_a_device_serves_the_cameras_of_its_rig(tmp_path: Path) -> None:
    pose = "1, 0, 0, 0, 0, 0, 0"
    root = write_dataset(
        tmp_path,
        "5, far, 1, 10, 0, 0, 0\n5, near, 2, 20, 0, 0, 0\n",
        sensors="far, , gnss, EPSG:4979\nnear, , gnss, EPSG:4979\n",
        rigs=f"rig, left, {pose}\nrig, near, {pose}\n",
    )
    found = read(root)
    # two devices are free for the right camera, so neither is its own
    assert list(found) == ["left 5.jpg"] and vars(found["left 5.jpg"])["latitude"] == 20


def test_the_only_device_of_a_time_serves_all_cameras(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path, "5, phone, 1, 10, 0, 0, 0\n", sensors="phone, , gnss, EPSG:4326\n"
    )
    assert list(read(root)) == ["left 5.jpg", "right 5.jpg"]


@pytest.mark.parametrize("row", ["nan, 10, 0", "0, 0, 0", "1, inf, 3", "0.0, 0.0, 9"])
def test_records_without_a_fix_are_passed_over(tmp_path: Path, row: str) -> None:
    root = write_dataset(
        tmp_path, f"5, one, {row}, 0, 0\n", sensors="one, , gnss, EPSG:4326\n"
    )
    assert read(root) == {}


@pytest.mark.parametrize("sensors", ["", "other, , gnss, EPSG:4326\n"])
def test_records_of_devices_that_are_no_sensors_are_named(
    tmp_path: Path, sensors: str
) -> None:
    root = write_dataset(tmp_path, "5, one, 1, 2, 3, 0, 0\n", sensors=sensors)
    with pytest.raises(DatasetError, match="'5, one, 1, 2, 3, 0, 0', and no gnss sen"):
        read(root)


def test_utm_becomes_degrees(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path,
        "5, one, 500000, 4982950.4, 7, 0, 2\n",
        sensors="one, , gnss, EPSG:32633\n",
    )
    found = read(root)["left 5.jpg"]
    assert isinstance(found, GnssPosition)
    assert found.latitude == pytest.approx(45, abs=1e-5)
    assert found.longitude == pytest.approx(15, abs=1e-9)
    assert (found.altitude, found.accuracy) == (7, 10)


@pytest.mark.parametrize(
    ("code", "row", "words"),
    [
        ("EPSG:2154", "1, 2, 3", "found coordinates 'EPSG:2154', expected one of"),
        ("EPSG:32661", "1, 2, 3", "found coordinates 'EPSG:32661'"),
        ("EPSG:4326", "181, 2, 3", "found x 181 and y 2, expected the longitude"),
        ("EPSG:4326", "51.5, -90.5, 3", "found x 51.5 and y -90.5"),
        ("EPSG:32633", "15, 45, 3", "found x 15 and y 45, expected the easting of UTM"),
        ("EPSG:32733", "5e6, 5e5, 3", "found x 5e+06 and y 500000, expected the east"),
        ("EPSG:32633", "5e5, 2e7, 3", "found x 500000 and y 2e+07, expected the east"),
        ("EPSG:4326", "a, 2, 3", "records_gnss.txt: found '5, one, a, 2, 3, 0, 0' (co"),
        ("EPSG:4326", "1", "records_gnss.txt: found '5, one, 1, 0, 0' (5 fields)"),
        ("EPSG:4326", "1, 2, 3, 4, 5", "(9 fields), expected timestamp, device_id, x"),
        ("", "1, 2, 3", "gnss sensor 'one': found no coordinates, expected"),
    ],
)
def test_other_coordinates_are_refused(
    tmp_path: Path, code: str, row: str, words: str
) -> None:
    sensor = f"one, , gnss, {code}\n" if code else "one, , gnss\n"
    root = write_dataset(tmp_path, f"5, one, {row}, 0, 0\n", sensors=sensor)
    with pytest.raises(DatasetError, match=str(tmp_path)) as error:
        read(root)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_places_on_earth_and_local_ones_do_not_mix(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path,
        "5, one, 1, 2, 3, 0, 0\n6, two, 1, 2, 3, 0, 0\n",
        sensors="one, , gnss, EPSG:4326\ntwo, , gnss, LOCAL\n",
    )
    with pytest.raises(DatasetError, match="on Earth and in a local frame"):
        read(root)


def test_metres_of_places_on_earth_are_those_of_their_frame() -> None:
    frame = EnuFrame(latitude=0.0, longitude=179.9999, altitude=10.0)
    across = GnssPosition(latitude=0.0, longitude=-179.9999, altitude=12.0)
    unknown = GnssPosition(latitude=0.0, longitude=179.9999)
    metres, same = in_metres({"a": across, "b": unknown}, frame)
    assert same == frame
    # 0.0002 degrees of the equator; the unknown altitude is that of the other
    np.testing.assert_allclose(metres, [[22.264, 0, 2], [0, 0, 2]], atol=1e-3)


def test_metres_of_local_places_are_their_own() -> None:
    metres, frame = in_metres({"a": LocalPosition(x=1, y=2, z=3)})
    assert frame is None and metres.tolist() == [[1, 2, 3]]
