"""Where a map lies on Earth: ``georeference.json`` beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.geodesy import EnuFrame, Positions
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic

GEOREFERENCE_NAME = "georeference.json"
PARTS_OF_MAP = ("sparse", "kapture", "0")
"""Folders of a map beside which the file may lie."""


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """The frame in metres of the positions of a map's images, and the map in it.

    Attributes:
        frame: east, north, up; None for positions in a local frame.
        metric_from_map: similarity from the map to the frame; the identity of a map
            that is in the frame itself.
        images: number of images with a position.
        outliers: of them, those that disagree with the map.
        residual_median, residual_95: median and 95th percentile of the distances in
            metres between the cameras and the positions of their images, without the
            outliers.
    """

    frame: EnuFrame | None
    metric_from_map: pycolmap.Sim3d
    images: int
    outliers: int
    residual_median: float
    residual_95: float

    @property
    def axes(self) -> Positions | None:
        """(3, 3) directions in the map, rows east, north, up; None in a local frame."""
        if self.frame is None:
            return None
        return np.asarray(self.metric_from_map.rotation.matrix())

    def metric(self, centers: Positions) -> Positions:
        """(N, 3) metres in the frame of (N, 3) positions in the map."""
        return transform(self.metric_from_map, centers)

    def wgs84(self, centers: Positions) -> Positions | None:
        """(N, 3) latitude and longitude in degrees and altitude in metres of (N, 3)
        positions in the map; None if the map is nowhere on Earth as far as known."""
        return (
            None
            if self.frame is None
            else self.frame.wgs84_from_enu(self.metric(centers))
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; the rotation as a quaternion qw, qx, qy, qz."""
        x, y, z, w = self.metric_from_map.rotation.quat.tolist()
        return {
            "frame": "local" if self.frame is None else "east, north, up",
            "origin": None if self.frame is None else dataclasses.asdict(self.frame),
            "metric_from_map": {
                "scale": float(self.metric_from_map.scale),
                "rotation": [w, x, y, z],
                "translation": self.metric_from_map.translation.tolist(),
            },
            "unit": "metre",
            "images": self.images,
            "outliers": self.outliers,
            "residual_median": self.residual_median,
            "residual_95": self.residual_95,
        }


def transform(similarity: pycolmap.Sim3d, points: Positions) -> Positions:
    """(N, 3) points after a similarity."""
    turned = points @ similarity.rotation.matrix().T
    return np.asarray(similarity.scale * turned + similarity.translation)


def write_georeference(folder: Path, georeference: Georeference) -> None:
    """Write it beside a map.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json_atomic(folder / GEOREFERENCE_NAME, georeference.to_json())


def read_georeference(path: Path) -> Georeference | None:
    """Read where a map lies; None if that is not known.

    Args:
        path: output of kapture_r2d2_map or of kapture_r2d2_colmap --sparse, or the
            model or dataset in it.

    Raises:
        DatasetError: the file is broken.
    """
    file = next(filter(Path.exists, georeference_files(path)), None)
    if file is None:
        return None
    content = read_json(file)
    try:
        origin, similarity = content["origin"], content["metric_from_map"]
        w, x, y, z = map(float, similarity["rotation"])
        return Georeference(
            frame=None if origin is None else EnuFrame(**origin),
            metric_from_map=pycolmap.Sim3d(
                float(similarity["scale"]),
                pycolmap.Rotation3d(np.array([x, y, z, w])),
                np.array(similarity["translation"], np.float64),
            ),
            images=int(content["images"]),
            outliers=int(content["outliers"]),
            residual_median=float(content["residual_median"]),
            residual_95=float(content["residual_95"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}: not a georeference of a map ({error}); map again, or delete it"
        ) from error


def georeference_files(path: Path) -> Iterator[Path]:
    """Where the file of a map may be; most are missing."""
    folders = [path, path / "0"]
    folders += [path.parent] if path.name in PARTS_OF_MAP else []
    yield from (folder / GEOREFERENCE_NAME for folder in folders)
