"""The points of a kapture dataset, and the keypoints that observe them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import read_lines
from r2d2_kapture.io.kapture.refined_features import refined_type

DoubleArray = npt.NDArray[np.float64]

POINTS_NAME = kcsv.CSV_FILENAMES[kapture.Points3d]
OBSERVATIONS_NAME = kcsv.CSV_FILENAMES[kapture.Observations]


def read_points3d(root: Path) -> tuple[DoubleArray, npt.NDArray[np.uint8]]:
    """(P, 3) positions in units of the world, and (P, 3) colours, black where unknown.

    Raises:
        DatasetError: the table is missing or broken.
    """
    positions, colors = [], []
    for place, fields in table_rows(root / POINTS_NAME):
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            numbers = []
        if len(numbers) < 3 or not np.isfinite(numbers).all():
            raise DatasetError(
                f"{place}: found '{', '.join(fields)[:80]}', expected X, Y, Z; map "
                "again"
            )
        positions.append(numbers[:3])
        colors.append(numbers[3:] if len(numbers) == 6 else [0, 0, 0])
    return (
        np.array(positions, np.float64).reshape(-1, 3),
        np.clip(np.array(colors).reshape(-1, 3), 0, 255).astype(np.uint8),
    )


def read_observations(
    root: Path, keypoints_type: str | None, point_count: int
) -> dict[str, dict[int, int]]:
    """The point row of each observing keypoint, by image; the first row counts.

    Args:
        root: of the dataset.
        keypoints_type: of the keypoints, or of those before refinement, which are the
            same rows; None takes the only one there is.
        point_count: rows of points.

    Raises:
        DatasetError: the table is missing or broken, or has several types.
    """
    path = root / OBSERVATIONS_NAME
    types = set(observed_types(path))
    if keypoints_type is None and len(types) > 1:
        raise DatasetError(
            f"{path}: found observations of keypoints types {', '.join(sorted(types))};"
            " choose one with --keypoints-type"
        )
    if keypoints_type is not None and keypoints_type not in types:
        keypoints_type = refined_type(keypoints_type)
    seen: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for place, fields in table_rows(path):
        try:
            point, indices = int(fields[0]), [int(field) for field in fields[3::2]]
        except ValueError:
            point, indices = -1, []
        complete = len(fields) >= 2 and len(fields) % 2 == 0
        if not complete or not 0 <= point < point_count or min(indices, default=0) < 0:
            raise DatasetError(
                f"{place}: found '{', '.join(fields)[:80]}', expected the row of one of"
                f" {point_count} points, the keypoints type, and pairs of image and "
                "keypoint; map again"
            )
        if keypoints_type in (None, fields[1]):
            for name, keypoint in zip(fields[2::2], indices):
                first = seen[name].setdefault(keypoint, point)
                seen[name][keypoint] = min(first, point)
    return seen


def observed_types(path: Path) -> Iterator[str]:
    """The type of the keypoints of each row of observations, without its fields.

    Raises:
        DatasetError: the table is missing, or cannot be read.
    """
    _refuse_missing(path)
    try:
        with path.open("rb") as lines:
            for line in lines:
                fields = line.split(b",", 2)
                if len(fields) > 1 and not line.startswith(b"#"):
                    yield fields[1].strip().decode()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text; convert it") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def table_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and fields of each row of a kapture table."""
    _refuse_missing(path)
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip() and not line.startswith("#"):
            place = f"{path}, line {number}"
            yield place, [field.strip() for field in line.split(",")]


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise DatasetError(
            f"{path}: missing, expected a kapture dataset that holds a map; run "
            "kapture_r2d2_map first"
        )
