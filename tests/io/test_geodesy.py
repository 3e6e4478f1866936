"""Local frames on the ellipsoid, against the geometry of the ellipsoid itself."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.io.geodesy import EnuFrame, wgs84_from_utm

EQUATOR_METRES_PER_DEGREE = np.pi * 6378137.0 / 180
PLACES = [
    (51.5, -0.12, 35.0),
    (-33.9, 151.2, 20.0),
    (0.0, 179.99999, 5.0),
    (0.0, -180.0, 5.0),
    (89.99999, 12.0, 3000.0),
    (-90.0, 0.0, 2835.0),
    (31.5, 35.48, -430.5),
]


@pytest.mark.parametrize("place", PLACES)
def test_positions_within_10_km_come_back_to_10_micrometres(
    place: tuple[float, float, float],
) -> None:
    frame = EnuFrame(latitude=place[0], longitude=place[1], altitude=place[2])
    enu = np.random.default_rng(0).uniform(-1e4, 1e4, (50, 3))
    there = frame.wgs84_from_enu(enu)
    assert (np.abs(there[:, 0]) <= 90).all() and (np.abs(there[:, 1]) <= 180).all()
    np.testing.assert_allclose(frame.enu_from_wgs84(there), enu, rtol=0, atol=1e-5)


def test_axes_are_east_north_up_in_metres() -> None:
    frame = EnuFrame(latitude=0.0, longitude=10.0, altitude=100.0)
    east, north, up = frame.enu_from_wgs84(
        np.array([[0, 10.0001, 100], [0.0001, 10, 100], [0, 10, 107.5]])
    )
    # at an altitude of 100 m the circle is that much larger
    length = 1e-4 * EQUATOR_METRES_PER_DEGREE * (6378137 + 100) / 6378137
    np.testing.assert_allclose(east, [length, 0, 0], atol=2e-5)
    assert north[1] == pytest.approx(11.0576, abs=1e-3) and abs(north[0]) < 1e-9
    np.testing.assert_allclose(up, [0, 0, 7.5], atol=1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_the_middle_of_positions_is_among_them(
    place: tuple[float, float, float],
) -> None:
    frame = EnuFrame(latitude=place[0], longitude=place[1], altitude=place[2])
    enu = np.array([[-20.0, 0, 0], [20, 0, 2], [0, -20, 4], [0, 20, 6], [0, 0, 3]])
    outlier = frame.wgs84_from_enu(np.array([[5e5, 5e5, 1e4]]))
    wgs84 = np.vstack([frame.wgs84_from_enu(enu), outlier])
    middle = EnuFrame.around(wgs84)
    x, y, z = middle.enu_from_wgs84(wgs84[4:5])[0]
    assert np.hypot(x, y) < 20 and abs(z) < 4


def test_utm_on_its_central_meridian() -> None:
    # 500 km false easting, scale 0.9996, and 10000 km false northing in the south
    wgs84 = wgs84_from_utm(
        np.array([[500000.0, 0, 7], [500000, 4982950.4, 7]]), 33, north=True
    )
    np.testing.assert_allclose(wgs84[0], [0, 15, 7], atol=1e-9)
    # 45 degrees of meridian are 4984944.378 m
    np.testing.assert_allclose(wgs84[1], [45, 15, 7], atol=1e-5)
    south = wgs84_from_utm(
        np.array([[500000.0, 10000000 - 4982950.4, 0]]), 33, north=False
    )
    np.testing.assert_allclose(south[0], [-45, 15, 0], atol=1e-5)
