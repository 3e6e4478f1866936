"""Features and matches of COLMAP in a kapture dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.geometry_log import (
    LOG_NAME,
    PairGeometry,
    log_geometry,
    pair_geometry,
    read_geometries,
)
from r2d2_kapture.io.colmap.sparse_map import UNNAMED_TYPE
from r2d2_kapture.io.colmap.stored_database import UNDEFINED, Pair, StoredDatabase
from r2d2_kapture.io.kapture.dataset_files import DatasetFiles
from r2d2_kapture.io.kapture.match_store import matches_folder
from r2d2_kapture.io.kapture.pairs import sorted_pair
from r2d2_kapture.io.outputs.atomic import output_error
from r2d2_kapture.io.outputs.json_log import open_log
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.stages.imports.target import VERIFIED
from r2d2_kapture.types import FloatArray, IndexArray, PairMatches

BYTE_TYPES = (pycolmap.FeatureExtractorType.SIFT,)
"""Whose descriptors are numbers of a byte; those of others are float32."""
UNIT_TOLERANCE = 0.01
WRITERS = 8

Item = TypeVar("Item")
Written = TypeVar("Written")


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Keypoints and descriptors to import.

    Attributes:
        type_name: of both in the dataset.
        columns: of keypoints; 0 where there are none.
        descriptor_dtype: None where there are none.
        descriptor_columns: values of a descriptor.
        warnings: sentences for the report.
    """

    type_name: str
    columns: int
    descriptor_dtype: np.dtype[Any] | None = None
    descriptor_columns: int = 1
    warnings: tuple[str, ...] = ()


def features_of_model(
    model: pycolmap.Reconstruction, type_name: str | None
) -> Features:
    """Those of a model without a database: positions alone."""
    any_points = any(image.num_points2D() for image in model.images.values())
    return Features(type_name=type_name or UNNAMED_TYPE, columns=2 if any_points else 0)


def features_of_database(database: StoredDatabase, type_name: str | None) -> Features:
    """Those that a database holds.

    Raises:
        DatasetError: descriptors of several types.
    """
    columns = database.keypoint_columns()
    warnings: tuple[str, ...] = ()
    if len(columns) > 1:
        listed = " and ".join(map(str, sorted(columns)))
        warnings = (
            f"keypoints have {listed} columns in different images, of which kapture "
            "holds one number: only x and y are imported",
        )
    width = min(columns, default=0) if len(columns) < 2 else 2
    kinds = database.descriptor_kinds()
    if not kinds:
        return Features(
            type_name=type_name or UNNAMED_TYPE, columns=width, warnings=warnings
        )
    if len(kinds) > 1:
        listed = ", ".join(f"{_kind_name(k)} of {size} bytes" for k, size in kinds)
        raise DatasetError(
            f"{database.path}: found descriptors of {len(kinds)} types ({listed}), "
            "expected one; extract all images with one extractor again"
        )
    ((kind, size),) = kinds
    if kind not in map(int, pycolmap.FeatureExtractorType.__members__.values()):
        kind = UNDEFINED  # of a later COLMAP
    dtype = _descriptor_dtype(database, kind, size)
    return Features(
        type_name=type_name or _kind_name(kind),
        columns=width,
        descriptor_dtype=dtype,
        descriptor_columns=size // dtype.itemsize,
        warnings=warnings,
    )


def model_keypoints(
    model: pycolmap.Reconstruction,
) -> Iterator[tuple[str, FloatArray]]:
    """Name and (N, 2) positions of each image of a model, in COLMAP's origin."""
    for image in sorted(model.images.values(), key=lambda image: str(image.name)):
        points = [point.xy for point in image.points2D]
        yield image.name, np.array(points, np.float32).reshape(-1, 2)


def import_model_keypoints(
    model: pycolmap.Reconstruction,
    features: Features,
    target: DatasetFiles,
    bar: Progress,
) -> tuple[int, dict[str, int]]:
    """Write the keypoints of a model; how many images were new, and counts."""
    if not features.columns:
        return 0, {}
    target.describe_keypoints(features.columns)

    def write(item: tuple[str, FloatArray]) -> bool:
        name, rows = item
        return target.write_rows("keypoints", name, kapture_from_colmap(rows))

    new = count = 0
    for (_, rows), is_new in _in_threads(model_keypoints(model), write):
        new += is_new
        count += len(rows)
        bar.update()
    return new, {"keypoints": count}


def import_database_features(
    database: StoredDatabase, features: Features, target: DatasetFiles, bar: Progress
) -> tuple[int, dict[str, int]]:
    """Write keypoints and descriptors; how many images were new, and counts."""
    names = database.content.names
    new: set[int] = set()
    counts = {"keypoints": 0, "descriptors": 0}

    def write_keypoints(item: tuple[int, FloatArray]) -> bool:
        image_id, rows = item
        moved = rows[:, : features.columns].copy()
        moved[:, :2] = kapture_from_colmap(moved[:, :2])
        return target.write_rows("keypoints", names[image_id], moved)

    def write_descriptors(item: tuple[int, npt.NDArray[np.uint8]]) -> bool:
        image_id, values = item
        stored = np.ascontiguousarray(values).view(np.dtype(features.descriptor_dtype))
        return target.write_rows("descriptors", names[image_id], stored)

    if features.columns:
        target.describe_keypoints(features.columns)
        for (image_id, rows), is_new in _in_threads(
            database.keypoints(), write_keypoints
        ):
            bar.update()
            new |= {image_id} if is_new else set()
            counts["keypoints"] += len(rows)
    if features.descriptor_dtype is not None:
        target.describe_descriptors(
            features.descriptor_dtype, features.descriptor_columns
        )
        for (image_id, values), is_new in _in_threads(
            database.descriptors(), write_descriptors
        ):
            new |= {image_id} if is_new else set()
            counts["descriptors"] += len(values)
    return len(new), {name: count for name, count in counts.items() if count}


def import_matches(
    database: StoredDatabase, target: DatasetFiles, shown: bool | None
) -> dict[str, int]:
    """Write matches to the dataset, and inliers of geometries to its folder verified.

    A database without matches, but with inliers, gives both the inliers.
    """
    names = database.content.names
    counts = {"pairs": 0, "matches": 0, "verified_pairs": 0, "inliers": 0}
    total = database.count("matches") + database.count("two_view_geometries")
    bar = Progress("import", "pair", total, shown=shown)

    def write(item: tuple[Pair, IndexArray]) -> bool:
        ids, rows = item
        return target.write_matches(target.root, _names(names, ids), _matches(rows))

    with bar:
        for (_, rows), _ in _in_threads(database.matches(), write):
            bar.update()
            counts["pairs"] += 1
            counts["matches"] += len(rows)
        only_inliers = not counts["pairs"]
        found = database.count("two_view_geometries")
        if found:
            verified = _import_geometries(database, target, bar, only_inliers)
            counts["verified_pairs"], counts["inliers"] = verified
            if only_inliers:
                counts["pairs"], counts["matches"] = verified
    return {name: count for name, count in counts.items() if count}


def _import_geometries(
    database: StoredDatabase, target: DatasetFiles, bar: Progress, only_inliers: bool
) -> tuple[int, int]:
    names = database.content.names
    matched = {ids: len(rows) for ids, rows in database.matches()}
    root = target.root / VERIFIED
    folder = matches_folder(root, target.features.keypoints_type)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    known = read_geometries(folder / LOG_NAME)

    def write(item: tuple[Pair, pycolmap.TwoViewGeometry]) -> PairGeometry:
        ids, geometry = item
        pair = _names(names, ids)
        count = matched.get(ids, len(geometry.inlier_matches))
        if sorted_pair(*pair) != pair:
            pair = sorted_pair(*pair)
            geometry.invert()
        matches = _matches(geometry.inlier_matches.astype(np.int64))
        target.write_matches(root, pair, matches)
        if only_inliers and len(matches):
            target.write_matches(target.root, pair, matches)
        return pair_geometry(pair, "", geometry, count)

    pairs = inliers = 0
    with open_log(folder / LOG_NAME) as log:
        for _, found in _in_threads(database.geometries(), write):
            bar.update()
            if known.get(found.pair) != found:
                log_geometry(log, found)
            pairs += found.inliers > 0
            inliers += found.inliers
    return pairs, inliers


def _in_threads(
    items: Iterable[Item], write: Callable[[Item], Written]
) -> Iterator[tuple[Item, Written]]:
    """Write items in threads: a disk flushes several files in the time of one."""
    with closing(read_ahead(items, write, WRITERS)) as running:
        for item, future in running:
            yield item, future.result()


def _matches(rows: IndexArray) -> PairMatches:
    """COLMAP has no scores."""
    return PairMatches(
        indices=np.ascontiguousarray(rows), scores=np.ones(len(rows), np.float32)
    )


def _names(names: Mapping[int, str], ids: Pair) -> tuple[str, str]:
    return names[ids[0]], names[ids[1]]


def _kind_name(kind: int) -> str:
    if kind == UNDEFINED:
        return UNNAMED_TYPE
    return str(pycolmap.FeatureExtractorType(kind).name).lower()


def _descriptor_dtype(database: StoredDatabase, kind: int, size: int) -> np.dtype[Any]:
    """What the bytes of descriptors are: of no stated type by their values."""
    whole = size % np.dtype("<f4").itemsize == 0
    if kind != UNDEFINED:
        if pycolmap.FeatureExtractorType(kind) in BYTE_TYPES:
            return np.dtype("u1")
        if not whole:
            raise DatasetError(
                f"{database.path}: found descriptors of type {_kind_name(kind)} of "
                f"{size} bytes, expected float32 numbers; extract the images again"
            )
        return np.dtype("<f4")
    if not whole:
        return np.dtype("u1")
    for _, rows in database.descriptors():
        if len(rows):
            values = np.ascontiguousarray(rows).view("<f4")
            with np.errstate(invalid="ignore"):  # of bytes that are no numbers
                lengths = np.linalg.norm(values.astype(np.float64), axis=1)
            unit = np.abs(lengths - 1) < UNIT_TOLERANCE  # also of NaN it is False
            return np.dtype("<f4" if unit.all() else "u1")
    return np.dtype("u1")
