"""What the stages of scale.py made, compared with the world that they saw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scale_dataset import World
from scale_world import SHARED, STREET, Place
from scipy.spatial.transform import Rotation

from r2d2_kapture.io.outputs.atomic import read_json


def compare_with_truth(
    world: World, keypoints: int, root: Path
) -> dict[str, tuple[float, float]]:
    """Numbers that were found, and what they are if all is right, by name.

    Args:
        world: the images.
        keypoints: of an image.
        root: folder of the stages; those that are not there are left out.
    """
    numbers: dict[str, tuple[float, float]] = {}
    for report in (root / "match").rglob("match_report.json"):
        numbers["matches"] = read_json(report)["matches"], world.match_count(keypoints)
    for report in (root / "map" / "map").glob("report.json"):
        numbers["points"] = read_json(report)["points"], world.point_count(keypoints)
    for pairs in (root / "pairs_local").glob("pairs.txt"):
        found = [near(*line) for line in rows(pairs, ", ")]
        numbers["retrieved images that are near, %"] = 100 * float(np.mean(found)), 100
    for poses in (root / "localize" / "localized").glob("poses.txt"):
        errors = [pose_error(name, *values) for name, *values in rows(poses, " ")]
        queries = sum(1 for _ in world.queries())
        numbers["localized queries"] = len(errors), queries
        metres, degrees = np.max(errors, axis=0)
        numbers["largest error of a position, mm"] = round(1000 * metres, 1), 0
        numbers["largest error of a rotation, degrees"] = round(degrees, 3), 0
    return numbers


def rows(path: Path, separator: str) -> Iterator[list[str]]:
    """The fields of the lines of a file that are no comments."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                yield line.rstrip("\n").split(separator)


def near(query: str, other: str, score: str) -> bool:
    """Whether a query shows points that an image of the map shows."""
    first, second = (int(Path(name).stem) for name in (query, other))
    return first // STREET == second // STREET and abs(first - second) <= SHARED


def pose_error(name: str, *values: str) -> tuple[float, float]:
    """Metres and degrees between a pose, of cam_from_world, and where a query was."""
    w, x, y, z, *translation = map(float, values)
    place = Place(2 * int(Path(name).stem) + 1)
    rotation = Rotation.from_quat([x, y, z, w])
    metres = np.linalg.norm(rotation.inv().apply(translation) + place.centre)
    turned = rotation * Rotation.from_matrix(place.rotation).inv()
    return float(metres), float(np.degrees(turned.magnitude()))
