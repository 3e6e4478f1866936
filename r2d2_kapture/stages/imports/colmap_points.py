"""Points of a COLMAP model and what observes them, in a kapture dataset."""

from __future__ import annotations

from collections.abc import Iterator

import kapture
import kapture.io.csv as kcsv
import pycolmap

from r2d2_kapture.io.kapture.dataset_files import DatasetFiles


def import_points(
    model: pycolmap.Reconstruction, keypoints_type: str, target: DatasetFiles
) -> dict[str, int]:
    """Write points3d.txt, to the last digit, and observations.txt, in order of ids.

    Returns:
        How many of each.
    """
    ids = sorted(model.points3D)
    if not ids:
        return {}
    names = {image_id: image.name for image_id, image in model.images.items()}
    target.write_table(
        kcsv.CSV_FILENAMES[kapture.Points3d],
        "X, Y, Z, R, G, B",
        _points(model, ids),
    )
    target.write_table(
        kcsv.CSV_FILENAMES[kapture.Observations],
        "point3d_id, keypoints_type, [image_path, feature_id]*",
        _observations(model, ids, names, keypoints_type),
    )
    observations = sum(model.points3D[i].track.length() for i in ids)
    return {"points": len(ids), "observations": int(observations)}


def _points(
    model: pycolmap.Reconstruction, ids: list[int]
) -> Iterator[list[float | int]]:
    for point_id in ids:
        point = model.points3D[point_id]
        yield [*point.xyz.tolist(), *point.color.tolist()]


def _observations(
    model: pycolmap.Reconstruction,
    ids: list[int],
    names: dict[int, str],
    keypoints_type: str,
) -> Iterator[list[object]]:
    for row, point_id in enumerate(ids):
        elements = model.points3D[point_id].track.elements
        seen = sorted((names[one.image_id], int(one.point2D_idx)) for one in elements)
        yield [row, keypoints_type, *(field for pair in seen for field in pair)]
