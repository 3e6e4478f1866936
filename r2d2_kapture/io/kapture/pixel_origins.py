"""Where the pixels of a dataset count from, as far as it can be known.

Cameras and keypoints count from the ``center`` of the first pixel (kapture, R2D2,
D2-Net, hloc's features) or from its ``corner`` (COLMAP). What this package writes says
so, in a file; of other datasets there are only traces:

cameras    a principal point at exactly (W / 2, H / 2) is the corner's, one at
           ((W - 1) / 2, (H - 1) / 2) the center's; sensors that are all named
           ``cam_00001`` and so on came from COLMAP by kapture_import_colmap.
keypoints  those with a manifest of ours, and rows of 3 columns (R2D2's, which COLMAP
           cannot have), count from the center; others from where the cameras count,
           with which they came; COLMAP's affine shapes always from the corner, unless
           the origin of the cameras is unknown too.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import kapture

from r2d2_kapture.coordinates import HALF_PIXEL, CameraOrigin, PixelOrigin
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import (
    UNKNOWN_CAMERA,
    camera_sensors,
    colmap_camera,
    principal_point_origins,
)
from r2d2_kapture.io.features.reading import columns_warnings
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_table import FeatureFolder, FeatureTable
from r2d2_kapture.io.kapture.overlaps import hidden_features
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.io.outputs.manifest import FILE_NAME as MANIFEST_NAME

ORIGIN_NAME = "pixel_origin.json"
"""Beside sensors.txt or keypoints.txt: where the pixels there count from."""

IMPORTED_SENSOR = re.compile(r"cam_\d{5,}")
"""What kapture_import_colmap calls the cameras of COLMAP."""

Basis = Literal["flag", "file", "principal points", "names", "nothing"]


@dataclass(frozen=True, kw_only=True)
class FoundOrigin:
    """An origin, and how it is known.

    Attributes:
        origin: of the pixels.
        basis: the evidence; ``nothing`` is a convention taken for lack of evidence.
        warnings: a sentence for the report where the origin is not certain.
    """

    origin: PixelOrigin
    basis: Basis
    warnings: tuple[str, ...] = ()


def write_origin(folder: Path, origin: PixelOrigin) -> None:
    """Note where the cameras or keypoints described in a folder count from.

    Raises:
        OutputError: the file system refused.
    """
    write_json_atomic(folder / ORIGIN_NAME, {"pixel_origin": origin})


def read_origin(folder: Path) -> PixelOrigin | None:
    """The content of the file in a folder; None where there is no file.

    Raises:
        DatasetError: the file holds something else.
    """
    path = folder / ORIGIN_NAME
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))["pixel_origin"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        origin = None
    if origin == "center":
        return "center"
    if origin == "corner":
        return "corner"
    raise DatasetError(
        f'{path}: expected {{"pixel_origin": "center"}} or "corner"; correct the file, '
        "or delete it"
    )


@dataclass(frozen=True, kw_only=True)
class DatabaseOrigins:
    """Where cameras and keypoints were taken to count from as a database was made.

    Attributes:
        cameras: of the principal points of the dataset.
        keypoints: of each folder of keypoints, by its resolved path.
        database: SHA-256 of the database.
    """

    cameras: PixelOrigin
    keypoints: Mapping[str, PixelOrigin]
    database: str

    @staticmethod
    def of(cameras: PixelOrigin, table: FeatureTable, database: str) -> DatabaseOrigins:
        """Those of a dataset and of keypoints that ``place_keypoints`` has placed."""
        keypoints = {str(one.path.resolve()): one.origin for one in table.folders}
        return DatabaseOrigins(cameras=cameras, keypoints=keypoints, database=database)

    def place(self, table: FeatureTable) -> FeatureTable | None:
        """Keypoints that count from where they did; None if they lie elsewhere."""
        paths = [str(folder.path.resolve()) for folder in table.folders]
        if not self.keypoints.keys() >= set(paths):
            return None
        return table.counted_from([self.keypoints[path] for path in paths])

    def write(self, database: Path) -> None:
        """Note them beside the database, unless they are noted there.

        Raises:
            OutputError: the file system refused.
        """
        if read_database_origins(database, self.database) != self:
            write_json_atomic(_beside(database), dataclasses.asdict(self))


def read_database_origins(database: Path, sha256: str) -> DatabaseOrigins | None:
    """The note beside a database; None where it is about another one, or missing."""
    try:
        found = DatabaseOrigins(**read_json(_beside(database)))
        origins = {found.cameras, *found.keypoints.values()}
    except (TypeError, AttributeError):
        return None
    known = origins <= {"center", "corner"} and found.database == sha256
    return found if known else None


def _beside(database: Path) -> Path:
    return database.with_name(f"{database.name}.{ORIGIN_NAME}")


def find_camera_origin(dataset: Dataset, camera_origin: CameraOrigin) -> FoundOrigin:
    """Where the principal points of a dataset count from.

    Args:
        dataset: with its cameras.
        camera_origin: as the user gives it.

    Raises:
        DatasetError: a camera or the file of the origin is broken.
    """
    if camera_origin != "auto":
        return FoundOrigin(origin=camera_origin, basis="flag")
    written = read_origin(dataset.root / "sensors")
    if written is not None:
        return FoundOrigin(origin=written, basis="file")
    names = camera_sensors(dataset.data)
    return judge_cameras(
        principal_point_origins(dataset.data),
        imported=bool(names) and all(map(IMPORTED_SENSOR.fullmatch, names)),
        source=dataset.root,
        focal_lengths=_focal_lengths(dataset.data),
    )


def judge_cameras(
    suggested: Set[PixelOrigin],
    *,
    imported: bool,
    source: Path,
    focal_lengths: Sequence[float],
) -> FoundOrigin:
    """The pixel origin of principal points, of cameras that do not state it.

    Args:
        suggested: by those in the middle of their images.
        imported: whether the cameras are named as COLMAP's.
        source: where they are described, for the warning.
        focal_lengths: of the cameras that are known, in pixels.
    """
    if len(suggested) == 1:
        return FoundOrigin(origin=min(suggested), basis="principal points")
    origin: PixelOrigin = "corner" if imported or suggested else "center"
    basis: Basis = (
        "names" if imported else "principal points" if suggested else "nothing"
    )
    if not focal_lengths:  # the middle of an image is the same place in both
        return FoundOrigin(origin=origin, basis=basis)
    reasons = {
        "names": "since they are named as kapture_import_colmap names them",
        "principal points": "as in COLMAP, although some suggest the center",
        "nothing": "kapture's convention; COLMAP counts from the corner",
    }
    warning = (
        f"the cameras of {source} do not state the pixel origin of their principal "
        f"points: assumed the {origin} of the first pixel, {reasons[basis]}; if that "
        f"is wrong, give --camera-origin {_other(origin)}: {_cost(focal_lengths)}"
    )
    return FoundOrigin(origin=origin, basis=basis, warnings=(warning,))


def place_keypoints(
    table: FeatureTable,
    keypoint_origin: CameraOrigin,
    dataset: Dataset,
    cameras: FoundOrigin,
) -> tuple[FeatureTable, tuple[str, ...]]:
    """Keypoints that are read with (0, 0) at the centre of the first pixel.

    Args:
        table: of keypoints.
        keypoint_origin: where they count from, as the user gives it.
        dataset: whose cameras they are joined to.
        cameras: where these count from.

    Returns:
        The table, and sentences for the report on what is not certain.

    Raises:
        DatasetError: the file of an origin is broken.
    """
    found = [
        _keypoint_origin(folder, keypoint_origin, dataset, cameras)
        for folder in table.folders
    ]
    warnings = [text for one in found for text in one.warnings]
    warnings += columns_warnings(table.type_name, table.dsize)
    warnings += hidden_features(table)
    placed = table.counted_from([one.origin for one in found])
    return placed, tuple(dict.fromkeys(warnings))


def origins_text(table: FeatureTable) -> str:
    """Where keypoints count from, for reports."""
    origins = {folder.origin for folder in table.folders}
    if len(origins) == 1:
        return min(origins)
    return ", ".join(f"{folder.origin} in {folder.path}" for folder in table.folders)


def _keypoint_origin(
    folder: FeatureFolder,
    keypoint_origin: CameraOrigin,
    dataset: Dataset,
    cameras: FoundOrigin,
) -> FoundOrigin:
    if keypoint_origin != "auto":
        return FoundOrigin(origin=keypoint_origin, basis="flag")
    written = read_origin(folder.path)
    if written is not None:
        return FoundOrigin(origin=written, basis="file")
    if folder.dsize == 3 or (folder.path / MANIFEST_NAME).is_file():
        return FoundOrigin(origin="center", basis="file")
    focal_lengths = _focal_lengths(dataset.data)
    # cameras of which nothing is known but their focal length came with the keypoints
    colmaps = folder.dsize == 6 and (cameras.basis != "nothing" or not focal_lengths)
    origin: PixelOrigin = "corner" if colmaps else cameras.origin
    reason = "as COLMAP's affine shapes are" if colmaps else "the origin of the cameras"
    return FoundOrigin(
        origin=origin,
        basis="nothing",
        warnings=(
            f"keypoints '{folder.type_name}' do not state their pixel origin: assumed "
            f"the {origin} of the first pixel, {reason}; if that is wrong, give "
            f"--keypoint-origin {_other(origin)}: {_cost(focal_lengths)}",
        ),
    )


def _other(origin: PixelOrigin) -> PixelOrigin:
    return "center" if origin == "corner" else "corner"


def _cost(focal_lengths: Sequence[float]) -> str:
    """The effect of half a pixel."""
    if not focal_lengths:
        return "half a pixel shifts every keypoint relative to its camera"
    degrees = math.degrees(math.atan(HALF_PIXEL / min(focal_lengths)))
    return f"half a pixel rotates each ray by {degrees:.2g} degrees"


def _focal_lengths(data: kapture.Kapture) -> list[float]:
    """In pixels, of the cameras that are known."""
    return [
        float(colmap_camera(sensor, 0, "corner").mean_focal_length())
        for sensor in camera_sensors(data).values()
        if sensor.camera_type.name != UNKNOWN_CAMERA
    ]
