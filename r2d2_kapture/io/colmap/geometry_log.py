"""Two-view geometries of pairs in a log of JSON, appended as they are found.

The last of several lines of a pair counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.io.outputs.json_log import JsonLog, read_log_lines
from r2d2_kapture.types import IndexArray

LOG_NAME = "two_view_geometries.jsonl"
"""Of the log beside verified matches."""

Pair = tuple[str, str]
Rows = list[list[float]]


@dataclass(frozen=True, kw_only=True)
class PairGeometry:
    """The geometry of a pair, from its first to its second image.

    Attributes:
        pair: image names in ascending order.
        inputs: digest of all that decides the result.
        config: COLMAP's TwoViewGeometryConfiguration.
        E, F, H: 3 x 3 matrices in COLMAP's pixel origin, where they were found.
        cam2_from_cam1: qx, qy, qz, qw, tx, ty, tz, where it is known.
        matches: how many were verified.
        inliers: how many agree, guided ones included.
        guided: how many of these were found by guided matching.
    """

    pair: Pair
    inputs: str
    config: int
    E: Rows | None
    F: Rows | None
    H: Rows | None
    cam2_from_cam1: list[float] | None
    matches: int
    inliers: int
    guided: int = 0

    def two_view_geometry(self, inlier_matches: IndexArray) -> pycolmap.TwoViewGeometry:
        """The geometry as COLMAP has it, with its inliers."""
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = self.config
        for name in ("E", "F", "H"):
            matrix = getattr(self, name)
            if matrix is not None:
                setattr(geometry, name, np.array(matrix))
        if self.cam2_from_cam1 is not None:
            values = np.array(self.cam2_from_cam1)
            rotation = pycolmap.Rotation3d(values[:4])
            geometry.cam2_from_cam1 = pycolmap.Rigid3d(rotation, values[4:])
        geometry.inlier_matches = inlier_matches.astype(np.uint32)
        return geometry


FIELDS = tuple(field.name for field in dataclasses.fields(PairGeometry))


def pair_geometry(
    pair: Pair,
    inputs: str,
    geometry: pycolmap.TwoViewGeometry,
    matches: int,
    guided: int = 0,
) -> PairGeometry:
    """Keep what COLMAP found for a pair, see PairGeometry."""
    known = geometry.cam2_from_cam1
    return PairGeometry(
        pair=pair,
        inputs=inputs,
        config=int(geometry.config),
        E=None if geometry.E is None else geometry.E.tolist(),
        F=None if geometry.F is None else geometry.F.tolist(),
        H=None if geometry.H is None else geometry.H.tolist(),
        cam2_from_cam1=(
            None
            if known is None
            else [*known.rotation.quat.tolist(), *known.translation.tolist()]
        ),
        matches=matches,
        inliers=len(geometry.inlier_matches),
        guided=guided,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedGeometries(Mapping[Pair, PairGeometry]):
    """Geometries by pair that stay in their log: there may be millions.

    Attributes:
        path: of the log.
        lines: where the last line of each pair begins, in bytes.
    """

    path: Path
    lines: dict[Pair, int]

    def __getitem__(self, pair: Pair) -> PairGeometry:
        _, values = next(read_log_lines(self.path, self.lines[pair]))
        return _of_values(values)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)


def log_geometry(log: JsonLog, geometry: PairGeometry) -> int:
    """Add a geometry, which stays even if the process is killed after it.

    Returns:
        Where its line begins, in bytes.

    Raises:
        OutputError: the file system refused.
    """
    values = {name: getattr(geometry, name) for name in FIELDS}
    return log.append(values)


def read_geometries(path: Path) -> LoggedGeometries:
    """The geometries of a log by pair; lines that are none are left out."""
    lines = {
        geometry.pair: start
        for start, values in read_log_lines(path)
        if (geometry := _parse(values)) is not None
    }
    return LoggedGeometries(path=path, lines=lines)


def _of_values(values: dict[str, Any]) -> PairGeometry:
    first, second = map(str, values["pair"])
    counts = {name: int(values[name]) for name in ("matches", "inliers")}
    counts["guided"] = int(values.get("guided", 0))
    return PairGeometry(**{**values, **counts, "pair": (first, second)})


def _parse(values: dict[str, Any]) -> PairGeometry | None:
    try:
        found = _of_values(values)
        found.two_view_geometry(np.zeros((0, 2), np.int64))  # COLMAP takes its numbers
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    return found
