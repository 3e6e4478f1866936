"""The inputs of a map: a database, with its dataset and keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

import numpy as np
import pycolmap

from r2d2_kapture.config.checks import require
from r2d2_kapture.coordinates import PixelOrigin, kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import UNKNOWN_CAMERA, camera_sensors, colmap_camera
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows
from r2d2_kapture.io.colmap.image_folder import approximate_sensors
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.model import DatabaseContent
from r2d2_kapture.io.kapture.dataset import Dataset, check_relative_name
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.pixel_origins import DatabaseOrigins, find_camera_origin
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.types import FloatArray

DEFAULT_TYPE = "colmap"
TOLERANCE = 1e-3
"""Pixels by which a position may differ between a database and a dataset."""


def cameras_of_sensors(
    content: DatabaseContent, dataset: Dataset, database: Path
) -> dict[str, pycolmap.Camera]:
    """The database's camera of each sensor of its images.

    Raises:
        DatasetError: the database has images that the dataset lacks, several cameras
            for one sensor, or another image size.
    """
    sensors = camera_sensors(dataset.data)
    records = image_records(dataset.data)
    cameras: dict[str, pycolmap.Camera] = {}
    for image in content.images:
        if image.name not in records:
            raise DatasetError(
                f"{database}: image '{image.name}' is not in {dataset.root}; give the "
                "dataset that the database was made from"
            )
        sensor_id = records[image.name].sensor_id
        camera = content.cameras[image.camera_id]
        first = cameras.setdefault(sensor_id, camera)
        if first.camera_id != camera.camera_id:
            raise DatasetError(
                f"{database}: images of camera '{sensor_id}' have cameras "
                f"{first.camera_id} and {camera.camera_id}, expected one; create the "
                f"database of {dataset.root} with kapture_r2d2_verify"
            )
        size = sensors[sensor_id].camera_params[:2]
        if [camera.width, camera.height] != [int(value) for value in size]:
            raise DatasetError(
                f"{database}: camera '{sensor_id}' has {camera.width} x {camera.height}"
                f" pixels, in {dataset.root} it has {size[0]:.0f} x {size[1]:.0f}; "
                "give the dataset that the database was made from"
            )
    return cameras


def origin_of_cameras(
    dataset: Dataset, cameras: Mapping[str, pycolmap.Camera]
) -> PixelOrigin:
    """The pixel origin of principal points, inferred from another tool's database."""
    origins: tuple[PixelOrigin, ...] = ("center", "corner")
    for sensor_id, camera in cameras.items():
        sensor = dataset.data.sensors[sensor_id]
        for origin in origins:
            converted = colmap_camera(sensor, camera.camera_id, origin)
            known = sensor.camera_type.name != UNKNOWN_CAMERA
            if known and np.allclose(
                (converted.principal_point_x, converted.principal_point_y),
                (camera.principal_point_x, camera.principal_point_y),
                rtol=0,
                atol=TOLERANCE,
            ):
                return origin
    return find_camera_origin(dataset, "auto").origin


def known_cameras(
    dataset: Dataset, cameras: Mapping[str, pycolmap.Camera]
) -> frozenset[int]:
    """Ids of the cameras whose intrinsics are known in the dataset, not guessed."""
    approximate = approximate_sensors(dataset.root)
    return frozenset(
        camera.camera_id
        for sensor_id, camera in cameras.items()
        if sensor_id not in approximate
        and dataset.data.sensors[sensor_id].camera_type.name != UNKNOWN_CAMERA
    )


def map_keypoints(
    database: Path,
    image_ids: Mapping[str, int],
    dataset: Dataset,
    features: Sequence[Path],
    keypoints_type: str | None,
    told: DatabaseOrigins | None = None,
) -> MapKeypoints:
    """Find the keypoints of a database in features, or use the database's own.

    Args:
        database: with the keypoints that matches index.
        image_ids: its images.
        dataset: searched where no features are given.
        features: folders of keypoints; may be empty.
        keypoints_type: of the keypoints; None takes the only existing one.
        told: where they count from, by verification.

    Raises:
        ConfigError: ``keypoints_type`` is not a valid folder name.
        DatasetError: the database was made from other features.
        FeatureFormatError: a feature file is broken.
    """
    if keypoints_type is not None:
        require(
            PurePosixPath(keypoints_type).name == keypoints_type != "",
            f"--keypoints-type: found {keypoints_type[:80]!r}, expected the name of a "
            "folder",
        )
        check_relative_name(keypoints_type, dataset.root)
    stored = _stored_keypoints(database, image_ids)
    roots = list(features)
    if not roots and find_feature_folders(dataset.root, "keypoints"):
        roots = [dataset.root]
    if not roots:
        return MapKeypoints(
            type_name=keypoints_type or DEFAULT_TYPE, dsize=2, read=stored.__getitem__
        )
    found = open_feature_table(roots, "keypoints", keypoints_type)
    table = (told and told.place(found)) or _counted_as_stored(found, stored)
    refuse_other_images(table, dataset)
    read = keypoints_or_no_rows(table)
    for name, xy in stored.items():
        if len(xy):  # verification leaves out images that it cannot read
            _check_same(name, read(name), xy, table, database)
    origins = {folder.origin for folder in table.folders}
    as_stored = len(origins) == 1
    rows = table.read_stored if as_stored else table.read
    return MapKeypoints(
        type_name=table.type_name,
        dsize=table.dsize,
        read=lambda name: (
            rows(name)[:, : table.dsize]
            if name in table
            else np.zeros((0, table.dsize))
        ),
        origin=min(origins) if as_stored else "center",
        folders=tuple(folder.path for folder in table.folders),
    )


def _counted_as_stored(
    table: FeatureTable, stored: Mapping[str, FloatArray]
) -> FeatureTable:
    """The table with the origin that matches the keypoints of another's database."""
    for name, xy in stored.items():
        located = table.locate(name) if len(xy) else None
        if located is not None:
            rows = table.read_stored(name)[:, :2]
            corner = rows.shape == xy.shape and np.allclose(
                kapture_from_colmap(rows), xy, rtol=0, atol=TOLERANCE
            )
            origin: PixelOrigin = "corner" if corner else "center"
            return table.counted_from([origin] * len(table.folders))
    return table


def _stored_keypoints(
    database: Path, image_ids: Mapping[str, int]
) -> dict[str, FloatArray]:
    """(N, 2) x and y of each image, (0, 0) at the centre of the first pixel."""
    found = {}
    with closing(pycolmap.Database.open(str(database))) as opened:
        for name, image_id in image_ids.items():
            rows = opened.read_keypoints(image_id)
            xy = rows[:, :2] if len(rows) else np.zeros((0, 2))
            found[name] = kapture_from_colmap(xy).astype(np.float32)
    return found


def _check_same(
    name: str, ours: FloatArray, theirs: FloatArray, table: FeatureTable, database: Path
) -> None:
    same = len(ours) == len(theirs) and np.allclose(
        ours[:, :2], theirs, rtol=0, atol=TOLERANCE
    )
    if not same:
        places = ", ".join(str(folder.path) for folder in table.folders)
        raise DatasetError(
            f"'{name}': the {len(ours)} keypoints of {places} are not the "
            f"{len(theirs)} of {database}; give the --features and --keypoints-type "
            "that it was made from, or verify again"
        )
