"""What COLMAP's formats hold: a database, and a model of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.database import colmap_keypoints
from r2d2_kapture.io.colmap.descriptors import write_descriptors
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.pose_priors import write_pose_priors
from r2d2_kapture.io.kapture.feature_table import FeatureTable, find_feature_folders
from r2d2_kapture.io.kapture.gnss import read_gnss
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.kapture.refined_features import may_be_refined
from r2d2_kapture.stages.export.feature_files import source_features
from r2d2_kapture.stages.export.formats import Written
from r2d2_kapture.stages.export.source import Source
from r2d2_kapture.types import Failure, FloatArray

FoundModel = tuple[pycolmap.Reconstruction | None, tuple[str, ...]]
"""A model, None where no image has a pose, and warnings."""


SAME_PIXELS = 1e-3
"""By which keypoints of a database and of files may differ, as they are rounded."""


class Content(Protocol):
    """A source as COLMAP has it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those on which it depends, besides those of the source."""

    @property
    def files(self) -> Iterator[Path | str]:
        """Those that it reads, besides those of the source."""

    def write_database(self, path: Path) -> Written:
        """Write a COLMAP 4 database, without descriptors, where there is no file."""

    def model(self, database: Path) -> FoundModel:
        """The model of the database's images.

        Args:
            database: by ``write_database``; its rigs may be dropped.
        """


def find_descriptors(
    source: Source, descriptors_type: str | None
) -> LocalFeatureTables | None:
    """The descriptors of a source, where it has some.

    Raises:
        DatasetError, FeatureFormatError: see ``open_local_features``.
    """
    if not source.keypoints.folders:
        return None
    there = any(find_feature_folders(root, "descriptors") for root in source.roots)
    if descriptors_type is None and not there:
        return None
    return source_features(source, descriptors_type)


def add_descriptors(
    database: Path,
    source: Source,
    tables: LocalFeatureTables,
    without: Iterable[Failure],
) -> Written:
    """Add the descriptors of the images of a source to a database of its keypoints.

    Args:
        database: with the keypoints.
        source: of the images.
        tables: of their descriptors.
        without: images that have failed.

    Raises:
        DatasetError: the keypoints of the database are others.
    """
    failed: list[Failure] = []
    wanted = set(source.names) - {failure.name for failure in without}

    def read(name: str, keypoints: FloatArray) -> npt.NDArray[Any] | None:
        if name not in wanted or not len(keypoints):
            return None
        try:
            _check_same(name, source.keypoints, keypoints)
            _check_refined(name, tables)
            tables.check_counts(name)
            return tables.beside_keypoints(name).read_stored(name)
        except FeatureFormatError as error:
            failed.append(Failure(name=name, reason=str(error)))
            return None

    count = write_descriptors(database, tables.descriptors.type_name, read)
    return Written(failed=tuple(failed), details={"descriptors": count})


def _check_same(name: str, table: FeatureTable, stored: FloatArray) -> None:
    """Refuse keypoints that were made anew since the database was."""
    rows = colmap_keypoints(name, table.read(name))
    if rows.shape != stored.shape or np.abs(rows - stored).max() > SAME_PIXELS:
        places = ", ".join(str(folder.path) for folder in table.folders)
        raise DatasetError(
            f"'{name}': the {len(rows)} keypoints of {places} are not the "
            f"{len(stored)} of the database; omit --keypoints-type, or run "
            "kapture_r2d2_pipeline again"
        )


def _check_refined(name: str, tables: LocalFeatureTables) -> None:
    """Refuse keypoints that were extracted anew since they were refined."""
    if tables.extracted is None or name not in tables.extracted:
        return
    before, after = tables.extracted.read(name), tables.keypoints.read(name)
    if not may_be_refined(before, after):
        places = ", ".join(str(folder.path) for folder in tables.extracted.folders)
        raise DatasetError(
            f"'{name}': the {len(before)} keypoints of {places} are not those that "
            "were refined; run kapture_r2d2_pipeline again"
        )


def add_pose_priors(database: Path, source: Source) -> Written:
    """Add the GNSS positions of the images of a source to a database.

    Raises:
        DatasetError: records that are broken.
    """
    positions = read_gnss(source.dataset)
    if not positions:
        return Written()
    with closing(pycolmap.Database.open(str(database))) as opened:
        write_pose_priors(opened, positions)
        return Written(details={"pose_priors": opened.num_pose_priors()})


@contextmanager
def temporary_database(content: Content) -> Iterator[tuple[Path, Written]]:
    """Give a database of a content that lasts for the block."""
    with TemporaryDirectory(prefix="r2d2_kapture_") as folder, quiet_pycolmap():
        path = Path(folder) / "database.db"
        yield path, content.write_database(path)
