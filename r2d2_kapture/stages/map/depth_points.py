"""Points of a map from depth maps, where its keypoints are: nothing is triangulated.

Keypoints that are verified matches, and whose depths put them to the same place, share
one point: the median of the places that they see.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.kapture.depth_maps import ReadDepth
from r2d2_kapture.stages.map.checks import TRIANGULATION
from r2d2_kapture.training.lookups import DepthMap, inverse_of_depth

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


def add_depth_points(
    config: MapConfig,
    model: pycolmap.Reconstruction,
    database: Path,
    depth_of: Mapping[str, ReadDepth],
) -> None:
    """Give a model of known poses the points that its keypoints have in depth maps.

    Args:
        config: ``points_from`` says which keypoints; ``max_reprojection_error`` how far
            an observation may be from its point, ``min_matches`` which pairs are used.
        model: without points; changed in place.
        database: of its keypoints and verified matches.
        depth_of: depth maps by image name; an image without one observes points of
            others only.

    Raises:
        DatasetError: a depth map is missing, or of another size.
        ReconstructionError: no image of the model has a depth map.
    """
    images = [i for _, i in sorted(model.images.items()) if i.has_pose]
    if not any(image.name in depth_of for image in images):
        raise ReconstructionError(
            f"--points-from {config.points_from}: found no depth map of "
            f"{len(images)} images with a pose, expected some in "
            "sensors/records_depth.txt of the dataset, of the camera, pose and time of "
            f"an image each; {TRIANGULATION} needs none"
        )
    keypoints = _read_keypoints(database, images)
    places = {
        image.image_id: _lift(image, keypoints[image.image_id], depth_of)
        for image in images
    }
    ends = np.cumsum([len(xy) for xy in keypoints.values()]).tolist()
    starts = dict(zip(keypoints, [0, *ends[:-1]]))
    first, second = _edges(config, model, database, keypoints, places, starts)
    ones = np.ones(len(first), np.int8)
    graph = csr_array((ones, (first, second)), shape=(ends[-1], ends[-1]))
    count, labels = connected_components(graph, directed=False)
    points = _medians(np.concatenate([*places.values()]), labels, count)
    seen = np.concatenate(
        [
            _within(config, image, keypoints[image.image_id], rows)
            for image, rows in zip(images, np.split(points[labels], ends[:-1]))
        ]
    )
    least = 2 if config.points_from == "matched_depth" else 1
    enough = np.bincount(labels[seen], minlength=count) >= least
    seen &= enough[labels]
    _add_points(model, keypoints, points, labels, seen)


def rejected_keypoints(
    config: MapConfig, model: pycolmap.Reconstruction, database: Path
) -> int:
    """Keypoints with verified matches that observe no point of a map from depth: their
    depth is unknown, or is not that of their matches."""
    matched: set[tuple[int, int]] = set()
    with closing(pycolmap.Database.open(str(database))) as opened:
        for pair_id in opened.read_two_view_geometry_num_inliers()[0]:
            pair = pycolmap.pair_id_to_image_pair(pair_id)
            rows = opened.read_two_view_geometry(*pair).inlier_matches
            if len(rows) >= config.min_matches:
                for image_id, column in zip(pair, rows.T.tolist()):
                    matched.update((image_id, row) for row in column)
    return sum(
        not model.image(image_id).points2D[row].has_point3D()
        for image_id, row in matched
        if model.exists_image(image_id) and model.image(image_id).has_pose
    )


def _read_keypoints(database: Path, images: list[pycolmap.Image]) -> dict[int, Array]:
    """(N, 2) pixels of COLMAP's origin of each image, by id; the model takes them."""
    found: dict[int, Array] = {}
    with closing(pycolmap.Database.open(str(database))) as opened:
        for image in images:
            rows = opened.read_keypoints(image.image_id)
            found[image.image_id] = rows[:, :2].astype(np.float64)
    for image in images:
        image.points2D = pycolmap.Point2DList(
            [pycolmap.Point2D(xy) for xy in found[image.image_id]]
        )
    return found


def _lift(image: pycolmap.Image, xy: Array, depth_of: Mapping[str, ReadDepth]) -> Array:
    """(N, 3) places of keypoints in the world; NaN where depth is unknown."""
    if image.name not in depth_of or not len(xy):
        return np.full((len(xy), 3), np.nan)
    camera = image.camera
    depth = DepthMap(
        inverse_of_depth(depth_of[image.name]()), (camera.width, camera.height)
    )
    inverse = depth(np.asarray(kapture_from_colmap(xy), np.float64))
    rays = np.column_stack([camera.cam_from_img(xy), np.ones(len(xy))])
    place: Array = image.cam_from_world().inverse() * (rays / inverse[:, None])
    return place


def _within(
    config: MapConfig, image: pycolmap.Image, xy: Array, points: Array
) -> npt.NDArray[np.bool_]:
    """(N,) whether points are seen within the error of keypoints; NaN are not."""
    known = np.isfinite(points).all(axis=1)
    found = np.zeros(len(xy), bool)
    if known.any():
        there = image.cam_from_world() * points[known]
        pixels = np.asarray(image.camera.img_from_cam(there))
        near = np.linalg.norm(pixels - xy[known], axis=1)
        found[known] = (there[:, 2] > 0) & (near <= config.max_reprojection_error)
    return found


def _edges(
    config: MapConfig,
    model: pycolmap.Reconstruction,
    database: Path,
    keypoints: Mapping[int, Array],
    places: Mapping[int, Array],
    starts: Mapping[int, int],
) -> tuple[Rows, Rows]:
    """Verified matches whose depths agree, as rows among the keypoints of all images.

    A keypoint without depth agrees where it sees the other's place.
    """
    first, second = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    with closing(pycolmap.Database.open(str(database))) as opened:
        for pair_id in opened.read_two_view_geometry_num_inliers()[0]:
            one, other = pycolmap.pair_id_to_image_pair(pair_id)
            if not keypoints.keys() >= {one, other}:
                continue
            rows = opened.read_two_view_geometry(one, other).inlier_matches
            if len(rows) < config.min_matches:
                continue
            agree = np.zeros(len(rows), bool)
            differ = np.zeros(len(rows), bool)
            for place_of, seer, column in ((one, other, 0), (other, one, 1)):
                place = places[place_of][rows[:, column]]
                xy = keypoints[seer][rows[:, 1 - column]]
                near = _within(config, model.image(seer), xy, place)
                agree |= near
                differ |= np.isfinite(place).all(axis=1) & ~near
            kept = rows[agree & ~differ].astype(np.intp)
            first.append(starts[one] + kept[:, 0])
            second.append(starts[other] + kept[:, 1])
    return np.concatenate(first), np.concatenate(second)


def _medians(places: Array, labels: Rows, count: int) -> Array:
    """(count, 3) medians of the known places of each label; NaN where there is none."""
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    found = np.full((count, 3), np.nan)
    order = known[np.argsort(labels[known], kind="stable")]
    names, begins, sizes = np.unique(
        labels[order], return_index=True, return_counts=True
    )
    for size in np.unique(sizes):  # all groups of a size at once
        chosen = sizes == size
        members = order[begins[chosen][:, None] + np.arange(size)]
        found[names[chosen]] = np.median(places[members], axis=1)
    return found


def _add_points(
    model: pycolmap.Reconstruction,
    keypoints: Mapping[int, Array],
    points: Array,
    labels: Rows,
    seen: npt.NDArray[np.bool_],
) -> None:
    """Add each point that is seen, with its track."""
    image_ids = np.repeat(list(keypoints), [len(xy) for xy in keypoints.values()])
    numbers = np.concatenate([np.arange(len(xy)) for xy in keypoints.values()])
    rows = np.flatnonzero(seen)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    names, begins = np.unique(labels[rows], return_index=True)
    for name, members in zip(names, np.split(rows, begins[1:])):
        elements = [
            pycolmap.TrackElement(int(image_ids[row]), int(numbers[row]))
            for row in members
        ]
        model.add_point3D(points[name], pycolmap.Track(elements))
    model.update_point_3d_errors()
