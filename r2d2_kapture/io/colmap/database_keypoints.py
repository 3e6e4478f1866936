"""The keypoints of a database, found in the features that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from r2d2_kapture.config.checks import require
from r2d2_kapture.coordinates import PixelOrigin, kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.sparse_map import UNNAMED_TYPE
from r2d2_kapture.io.colmap.stored_database import open_stored
from r2d2_kapture.io.kapture.dataset import Dataset, check_relative_name
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.pixel_origins import DatabaseOrigins
from r2d2_kapture.types import FloatArray

TOLERANCE = 1e-3
"""Pixels by which a position may differ between a database and a dataset."""


def database_keypoints(
    database: Path,
    dataset: Dataset,
    features: Sequence[Path],
    keypoints_type: str | None,
    told: DatabaseOrigins | None = None,
) -> MapKeypoints:
    """Find the keypoints of a database in features, or use the database's own.

    Args:
        database: with the keypoints that matches index.
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
    stored = stored_keypoints(database)
    roots = list(features)
    if not roots and find_feature_folders(dataset.root, "keypoints"):
        roots = [dataset.root]
    if not roots:
        return MapKeypoints(
            type_name=keypoints_type or UNNAMED_TYPE, dsize=2, read=stored.__getitem__
        )
    found = open_feature_table(roots, "keypoints", keypoints_type)
    table = (told and told.place(found)) or _counted_as_stored(found, stored)
    refuse_other_images(table, dataset)
    read = keypoints_or_no_rows(table)
    for name, xy in stored.items():
        if len(xy):  # verification leaves out images that it cannot read
            _check_same(name, read(name), xy, table)
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


def stored_keypoints(database: Path) -> dict[str, FloatArray]:
    """(N, 2) x and y by image name, (0, 0) at the centre of the first pixel.

    Raises:
        DatasetError: the database is broken.
    """
    with open_stored(database) as opened:
        names = opened.content.names
        found = {name: np.zeros((0, 2), np.float32) for name in names.values()}
        for image_id, rows in opened.keypoints():
            if len(rows):
                xy = kapture_from_colmap(rows[:, :2]).astype(np.float32)
                found[names[image_id]] = xy
    return found


def _check_same(
    name: str, ours: FloatArray, theirs: FloatArray, table: FeatureTable
) -> None:
    same = len(ours) == len(theirs) and np.allclose(
        ours[:, :2], theirs, rtol=0, atol=TOLERANCE
    )
    if not same:
        places = ", ".join(str(folder.path) for folder in table.folders)
        raise DatasetError(
            f"'{name}': the {len(ours)} keypoints of {places} are not the "
            f"{len(theirs)} of the database, or lie elsewhere; give the --features and "
            "--keypoints-type that it was made from (the output of kapture_r2d2_refine "
            "with its database), or verify again"
        )
