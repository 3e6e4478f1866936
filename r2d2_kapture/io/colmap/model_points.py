"""Points of a dataset in a COLMAP model, with the keypoints of a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.errors import DatasetError


def set_keypoints(model: pycolmap.Reconstruction, database: Path) -> None:
    """Give the images of a model the positions of their keypoints in its database."""
    with closing(pycolmap.Database.open(str(database))) as opened:
        for image_id in model.images:
            rows = opened.read_keypoints(image_id)
            xy = rows[:, :2].astype(np.float64) if len(rows) else np.zeros((0, 2))
            model.image(image_id).points2D = pycolmap.Image(keypoints=xy).points2D


def add_points(
    model: pycolmap.Reconstruction,
    points: npt.NDArray[np.float64],
    colors: npt.NDArray[np.uint8],
    seen: Mapping[str, Mapping[int, int]],
) -> int:
    """Add points with their tracks; their ids are their rows, counted from 1.

    Args:
        model: its images have their keypoints.
        points: (P, 3) positions.
        colors: (P, 3) of them.
        seen: the row of the point that each keypoint sees, by image; that of images
            without pose is left out.

    Returns:
        How many points of an image without pose, or of none, are left out.

    Raises:
        DatasetError: a keypoint that its image does not have.
    """
    tracks: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for image_id in model.reg_image_ids():
        image = model.image(image_id)
        count = image.num_points2D()
        for keypoint, row in sorted(seen.get(image.name, {}).items()):
            if keypoint >= count:
                raise DatasetError(
                    f"'{image.name}': found an observation of keypoint {keypoint}, "
                    f"expected one of its {count} (from 0); give the keypoints that "
                    "the map was made with, or map again"
                )
            tracks[row].append((image_id, keypoint))
    for row, elements in sorted(tracks.items()):
        track = pycolmap.Track(
            elements=[pycolmap.TrackElement(*element) for element in elements]
        )
        point = pycolmap.Point3D(xyz=points[row], color=colors[row], track=track)
        model.add_point3D_with_id(row + 1, point)
        for image_id, keypoint in elements:
            model.image(image_id).set_point3D_for_point2D(keypoint, row + 1)
    model.update_point_3d_errors()
    return len(points) - len(tracks)
