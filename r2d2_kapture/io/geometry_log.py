"""Two-view geometries of pairs, one JSON object a line, appended as they are found.

What a killed run leaves is whole but for the last line, which is dropped. The last of
several lines of a pair counts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pycolmap

from r2d2_kapture.io.atomic import output_error
from r2d2_kapture.types import IndexArray

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
        inliers: how many of them agree.
    """

    pair: tuple[str, str]
    inputs: str
    config: int
    E: Rows | None
    F: Rows | None
    H: Rows | None
    cam2_from_cam1: list[float] | None
    matches: int
    inliers: int

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


def pair_geometry(
    pair: tuple[str, str],
    inputs: str,
    geometry: pycolmap.TwoViewGeometry,
    matches: int,
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
    )


@dataclass(frozen=True, kw_only=True)
class GeometryLog:
    """A log that is open for one writer.

    Attributes:
        path: of the log.
        file: it, at its end.
    """

    path: Path
    file: BinaryIO

    def append(self, geometry: PairGeometry) -> None:
        """Add a geometry, which stays even if the process is killed after it.

        Raises:
            OutputError: the file system refused.
        """
        text = json.dumps(dataclasses.asdict(geometry), ensure_ascii=False)
        try:
            self.file.write(text.encode("utf-8", "surrogateescape") + b"\n")
            self.file.flush()
        except OSError as error:
            raise output_error(self.path, error) from error


def read_geometries(path: Path) -> dict[tuple[str, str], PairGeometry]:
    """The geometries of a log by pair; lines that are not whole are left out."""
    if not path.is_file():
        return {}
    found = {}
    # the last is empty, or not whole
    for line in path.read_bytes().split(b"\n")[:-1]:
        geometry = _parse(line)
        if geometry is not None:
            found[geometry.pair] = geometry
    return found


@contextmanager
def open_log(path: Path) -> Iterator[GeometryLog]:
    """Open a log to append to, and drop a last line that is not whole.

    Raises:
        OutputError: the file system refused.
    """
    try:
        file = path.open("ab+")
        _drop_broken_line(file)
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        yield GeometryLog(path=path, file=file)


def _drop_broken_line(file: BinaryIO) -> None:
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def _parse(line: bytes) -> PairGeometry | None:
    try:
        values: dict[str, Any] = json.loads(line.decode("utf-8", "surrogateescape"))
        values["pair"] = tuple(values["pair"])
        return PairGeometry(**values)
    except (ValueError, TypeError, KeyError):
        return None
