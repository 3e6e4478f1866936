"""Positions on the WGS84 ellipsoid, and local frames in metres: east, north, up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

Positions = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EnuFrame:
    """A local frame: x to the east, y to the north, z up from the ellipsoid, metres.

    Attributes:
        latitude, longitude: of its origin, in degrees (WGS84).
        altitude: of its origin, in metres above the ellipsoid.
    """

    latitude: float
    longitude: float
    altitude: float

    @staticmethod
    def around(wgs84: Positions) -> EnuFrame:
        """The frame in the middle of positions: the median, which outliers leave alone.

        Args:
            wgs84: (N, 3) latitude and longitude in degrees, altitude in metres; N is
                at least 1. They may lie around a pole or the antimeridian.
        """
        on_ellipsoid = wgs84 * (1, 1, 0)
        middle = np.median(_transform().ellipsoid_to_ecef(on_ellipsoid), axis=0)
        latitude, longitude, _ = _transform().ecef_to_ellipsoid(middle[None])[0]
        return EnuFrame(
            latitude=round(float(latitude), 7),
            longitude=round(float(longitude), 7),
            altitude=round(float(np.median(wgs84[:, 2])), 3),
        )

    def enu_from_wgs84(self, wgs84: Positions) -> Positions:
        """(N, 3) positions in this frame of (N, 3) latitudes, longitudes, altitudes."""
        return np.asarray(_transform().ellipsoid_to_enu(wgs84, *self._origin))

    def wgs84_from_enu(self, enu: Positions) -> Positions:
        """The inverse of enu_from_wgs84."""
        return np.asarray(_transform().enu_to_ellipsoid(enu, *self._origin))

    def __str__(self) -> str:
        """Its origin, for people."""
        return f"{self.latitude:.7f}, {self.longitude:.7f}, {self.altitude:.2f} m"

    @property
    def _origin(self) -> tuple[float, float, float]:
        return self.latitude, self.longitude, self.altitude


def wgs84_from_utm(utm: Positions, zone: int, *, north: bool) -> Positions:
    """(N, 3) latitudes, longitudes, altitudes of eastings, northings, altitudes.

    Args:
        utm: (N, 3) in metres.
        zone: 1 to 60.
        north: whether of the northern hemisphere, without the false northing.
    """
    return np.asarray(_transform().utm_to_ellipsoid(utm, zone, north))


def _transform() -> pycolmap.GPSTransform:
    # pycolmap's default is GRS80, which differs by up to 0.1 mm
    return pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
