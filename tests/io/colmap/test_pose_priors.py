"""Pose priors of COLMAP databases as positions, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.io.colmap.pose_priors import read_pose_priors, write_pose_priors
from r2d2_kapture.io.kapture.gnss import GnssPosition, LocalPosition, Position
from tests.scenes.world import Scene

SYSTEMS = pycolmap.PosePriorCoordinateSystem


@pytest.fixture
def database(tmp_path: Path) -> Iterator[pycolmap.Database]:
    Scene(times=1).write(tmp_path / "a.db")
    with closing(pycolmap.Database.open(str(tmp_path / "a.db"))) as opened:
        yield opened


def names_of(database: pycolmap.Database) -> list[str]:
    return sorted(image.name for image in database.read_all_images())


@pytest.mark.parametrize(
    "position",
    [
        GnssPosition(latitude=51.5, longitude=-0.12, altitude=35.25, accuracy=2.5),
        GnssPosition(latitude=-89.9, longitude=179.9, altitude=-430.0),
        GnssPosition(latitude=1.0, longitude=2.0, accuracy=3.0),
        LocalPosition(x=1.0, y=-2.0, z=3.5, accuracy=0.25),
        LocalPosition(x=0.0, y=0.0, z=0.0),
    ],
)
def test_positions_come_back(database: pycolmap.Database, position: Position) -> None:
    first, _, last = names_of(database)
    write_pose_priors(database, {last: position, first: position, "none": position})
    assert read_pose_priors(database) == {first: position, last: position}
    write_pose_priors(database, {last: position})
    assert database.num_pose_priors() == 2


def test_priors_are_as_colmap_has_them(database: pycolmap.Database) -> None:
    name = names_of(database)[0]
    write_pose_priors(
        database,
        {name: GnssPosition(latitude=1, longitude=2, altitude=3, accuracy=4)},
    )
    (prior,) = database.read_all_pose_priors()
    assert prior.coordinate_system == SYSTEMS.WGS84
    assert prior.position.tolist() == [1, 2, 3]
    # altitudes deviate twice as much
    assert prior.position_covariance.tolist() == np.diag([16, 16, 64]).tolist()
    image = database.read_image_with_name(name)
    assert prior.corr_data_id == image.data_id


def test_an_unknown_altitude_counts_for_nothing(database: pycolmap.Database) -> None:
    name = names_of(database)[0]
    write_pose_priors(database, {name: GnssPosition(latitude=1, longitude=2)})
    (prior,) = database.read_all_pose_priors()
    assert prior.has_position() and prior.position_covariance[2, 2] == 1e8
    assert read_pose_priors(database)[name] == GnssPosition(
        latitude=1, longitude=2, accuracy=5.0
    )


def test_an_earlier_prior_is_updated_and_keeps_its_gravity(
    database: pycolmap.Database,
) -> None:
    name = names_of(database)[0]
    image = database.read_image_with_name(name)
    database.write_pose_prior(
        pycolmap.PosePrior(corr_data_id=image.data_id, gravity=np.array([0, 1.0, 0]))
    )
    assert read_pose_priors(database) == {}
    position = LocalPosition(x=1, y=2, z=3)
    write_pose_priors(database, {name: position})
    (prior,) = database.read_all_pose_priors()
    assert prior.gravity.tolist() == [0, 1, 0]
    assert read_pose_priors(database) == {name: position}
