"""Pose priors of a COLMAP 4 database: the positions of images, as GNSS records.

A prior of WGS84 has latitude, longitude and altitude, one of CARTESIAN coordinates
x, y, z in metres. COLMAP has no prior without an altitude: an unknown one is written as
0 with a standard deviation of UNKNOWN_ALTITUDE, which is taken for unknown when read.
An unknown accuracy has no covariance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pycolmap

from r2d2_kapture.io.geodesy import Positions
from r2d2_kapture.io.kapture.gnss import GnssPosition, LocalPosition, Position

DEFAULT_ACCURACY = 5.0
"""Standard deviation in metres of a phone's or a drone's position."""
UP_PER_HORIZONTAL = 2.0
"""Altitudes of GNSS deviate about twice as much as horizontal positions."""
UNKNOWN_ALTITUDE = 1e4
"""Metres: no altitude on Earth is farther from another."""


def read_pose_priors(database: pycolmap.Database) -> dict[str, Position]:
    """The position prior of each image that has one, in order of names.

    Priors of undefined coordinates are taken for Cartesian ones.
    """
    names = {image.image_id: image.name for image in database.read_all_images()}
    found: dict[str, Position] = {}
    for prior in database.read_all_pose_priors():
        image = prior.corr_data_id
        of_camera = image.sensor_id.type == pycolmap.SensorType.CAMERA
        if of_camera and image.id in names and prior.has_position():
            found[names[image.id]] = position_of(prior)
    return dict(sorted(found.items()))


def write_pose_priors(
    database: pycolmap.Database, positions: Mapping[str, Position]
) -> None:
    """Write the positions of those of the images that are in the database.

    An image's earlier prior is updated; its gravity is kept.
    """
    earlier = {
        prior.corr_data_id.id: prior for prior in database.read_all_pose_priors()
    }
    for image in _images(database, positions):
        prior = earlier.get(image.image_id) or pycolmap.PosePrior()
        prior.corr_data_id = image.data_id
        _fill(prior, positions[image.name])
        if image.image_id in earlier:
            database.update_pose_prior(prior)
        else:
            database.write_pose_prior(prior)


def replace_with_cartesian(
    database: pycolmap.Database,
    names: list[str],
    positions: Positions,
    deviations: Positions,
) -> None:
    """Replace all priors by Cartesian ones, as mapping takes them.

    Args:
        database: a copy that mapping uses.
        names: of the images.
        positions: (N, 3) in metres.
        deviations: (N, 3) their standard deviations.
    """
    database.clear_pose_priors()
    rows = {name: row for row, name in enumerate(names)}
    for image in _images(database, rows):
        row = rows[image.name]
        database.write_pose_prior(
            pycolmap.PosePrior(
                corr_data_id=image.data_id,
                position=positions[row],
                position_covariance=np.diag(deviations[row] ** 2),
                coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN,
            )
        )


def deviations(
    position: Position,
    default: float = DEFAULT_ACCURACY,
    unknown: float = UNKNOWN_ALTITUDE,
) -> list[float]:
    """Standard deviations of a position in metres: east, north, up, or x, y, z.

    Args:
        position: on Earth or in a local frame.
        default: accuracy of a position that has none.
        unknown: deviation of an altitude that is not known.
    """
    accuracy = position.accuracy or default
    if isinstance(position, LocalPosition):
        return [accuracy] * 3
    up = unknown if position.altitude is None else UP_PER_HORIZONTAL * accuracy
    return [accuracy, accuracy, up]


def _images(
    database: pycolmap.Database, positions: Mapping[str, object]
) -> Iterator[pycolmap.Image]:
    for image in database.read_all_images():
        if image.name in positions:
            yield image


def _fill(prior: pycolmap.PosePrior, position: Position) -> None:
    systems = pycolmap.PosePriorCoordinateSystem
    if isinstance(position, LocalPosition):
        prior.position = [position.x, position.y, position.z]
        prior.coordinate_system = systems.CARTESIAN
        known = position.accuracy is not None
    else:
        altitude = position.altitude or 0.0
        prior.position = [position.latitude, position.longitude, altitude]
        prior.coordinate_system = systems.WGS84
        known = position.accuracy is not None or position.altitude is None
    prior.position_covariance = (
        np.diag(np.square(deviations(position))) if known else np.full((3, 3), np.nan)
    )


def position_of(prior: pycolmap.PosePrior) -> Position:
    """The position of a prior that has one."""
    variances = np.diag(prior.position_covariance)
    known = prior.has_position_cov() and variances[0] > 0
    accuracy = float(np.sqrt(variances[0])) if known else None
    x, y, z = map(float, prior.position)
    if prior.coordinate_system != pycolmap.PosePriorCoordinateSystem.WGS84:
        return LocalPosition(x=x, y=y, z=z, accuracy=accuracy)
    unknown = prior.has_position_cov() and variances[2] >= UNKNOWN_ALTITUDE**2
    return GnssPosition(
        latitude=x,
        longitude=y,
        altitude=None if unknown else z,
        accuracy=accuracy,
    )
