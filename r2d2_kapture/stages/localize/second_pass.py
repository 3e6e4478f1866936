"""A second search for correspondences, where a first pose puts the points of the map.

Matching whole images takes the best of all keypoints, and loses those whose best is
elsewhere by a hair. Once a pose is known, each keypoint is only compared with the map
points that project near it, also those of map images that were not retrieved (Sattler
et al., Efficient & Effective Prioritized Matching for Large-Scale Image-Based
Localization, PAMI 2017, section 4). Such correspondences agree with the pose because
they were searched for there: they make a right pose more accurate, but a wrong one no
more certain, and must not count in its favour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial import cKDTree

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.stages.localize.correspondences import Correspondences
from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]
ReadDescriptors = Callable[[str], FloatArray | None]
"""Returns (K, D) descriptors of unit L2 norm, one a keypoint of a map image, or None
where it has none."""

RADIUS = 8.0
"""Pixels between a keypoint and the projection of a map point."""
UNLIKE_INLIERS = 0.02
"""Share of the inliers of a first pose whose descriptors are less similar than those of
any correspondence of the second pass."""
MOST_IMAGES = 40
"""Map images whose points are searched for."""
LEAST_COSINE = 0.5
"""Of the angle under which a point sees the query and a map image: 60 degrees."""
MOST_SCALE = 2.0
"""Ratio of the sizes at which a query and a map image show a point."""
FOLDED = 1e-4
"""Distance on the plane z = 1 between a ray and that of its pixel."""
COMPARED_AT_ONCE = 1 << 16
"""Descriptors: 32 MiB of 128 values on either side."""


def neighbourhood(
    sparse_map: SparseMap, points: IndexArray, count: int = MOST_IMAGES
) -> tuple[str, ...]:
    """Map images that show a place: those that see its points, then their neighbours.

    Half of the images, at most, are those that see most of the points; the others see
    most of what these see.

    Args:
        sparse_map: the map.
        points: rows of points, such as the inliers of a pose.
        count: most images.

    Returns:
        Names, those that see most first, of equals the first in order of names.
    """
    near = _seeing_most(sparse_map, points, (count + 1) // 2)
    seen = [sparse_map.images[name].point_rows for name in near]
    around = _seeing_most(sparse_map, np.concatenate([points, *seen]), count)
    return tuple(dict.fromkeys((*near, *around)))[:count]


def _seeing_most(
    sparse_map: SparseMap, points: IndexArray, count: int
) -> tuple[str, ...]:
    seen = sparse_map.observers[np.unique(points)]
    images, places = np.unique(seen.indices, return_inverse=True)
    counts = np.bincount(places, weights=seen.data)
    order = np.argsort(-counts, kind="stable")[:count]
    return tuple(sparse_map.names[i] for i in images[order])


def second_matches(
    sparse_map: SparseMap,
    inliers: Correspondences,
    *,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    xy: DoubleArray,
    descriptors: FloatArray,
    read_descriptors: ReadDescriptors,
    radius: float = RADIUS,
) -> Correspondences:
    """Match keypoints of a query with the map points that project near them.

    A point is searched for where it lies in front of the camera and inside of the
    image, by the descriptors of those of its observations that see it from a similar
    direction and at a similar size. A keypoint and a point are matched if each is most
    similar to the other of all within the radius, and as similar as nearly all inliers
    of the first pose are.

    Args:
        sparse_map: the map.
        inliers: of the first pose; they choose the images whose observations are used,
            see ``neighbourhood``.
        camera: of the query, in COLMAP's pixel origin.
        cam_from_world: its first pose.
        xy: (N, 2) keypoints of the query, in COLMAP's pixel origin.
        descriptors: (N, D) of these, of unit L2 norm; a row of zeros matches nothing.
        read_descriptors: of a map image by name.
        radius: in pixels of the query.

    Returns:
        Correspondences by keypoint, each keypoint and each point at most once; those
        among the inliers are found again.

    Raises:
        FeatureFormatError: as ``read_descriptors``, or descriptors of other keypoints
            or lengths.
    """
    names = neighbourhood(sparse_map, inliers.points)
    visible = _visible_points(sparse_map, names, camera, cam_from_world)
    ours = _Sight.of(visible.points, camera, cam_from_world.matrix())
    seen = _observations(sparse_map, names, visible, ours, read_descriptors)
    if len(seen.descriptors) and seen.descriptors.shape[1] != descriptors.shape[1]:
        raise FeatureFormatError(
            f"descriptors of the map: found {seen.descriptors.shape[1]} values each, "
            f"expected {descriptors.shape[1]}, as the query's: features of one "
            "extractor"
        )
    pairs = seen.of(_pairs_within(xy, visible.xy, radius))
    pairs = pairs[descriptors[pairs[:, 0]].any(axis=1)]
    similarities = _similarities(descriptors, pairs, seen)
    best = _mutual_best(pairs, similarities)
    known = np.column_stack([inliers.keypoints, visible.places(inliers.points)])
    alike = _similarities(descriptors, seen.of(known[known[:, 1] >= 0]), seen)
    least = np.quantile(alike, UNLIKE_INLIERS) if len(alike) else np.inf
    pairs = pairs[best[similarities[best] >= least]]
    return Correspondences(keypoints=pairs[:, 0], points=visible.rows[pairs[:, 1]])


def _pairs_within(xy: DoubleArray, others: DoubleArray, radius: float) -> IndexArray:
    """(K, 2) rows of points of two sets that are near each other."""
    near = cKDTree(xy).sparse_distance_matrix(
        cKDTree(others), radius, output_type="ndarray"
    )
    return np.column_stack([near["i"], near["j"]])


def with_second(first: Correspondences, second: Correspondences) -> Correspondences:
    """Both sets; of a keypoint that both match, the correspondence of the second.

    It chose among all observations of all points near by, the first among the images
    that were retrieved.
    """
    alone = ~np.isin(first.keypoints, second.keypoints)
    keypoints = np.concatenate([first.keypoints[alone], second.keypoints])
    points = np.concatenate([first.points[alone], second.points])
    order = np.lexsort((points, keypoints))
    return Correspondences(keypoints=keypoints[order], points=points[order])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Visible:
    """Points that a query may show.

    Attributes:
        rows: (V,) of the map's points, ascending.
        points: (V, 3) of these.
        xy: (V, 2) their projections, in COLMAP's pixel origin.
    """

    rows: IndexArray
    points: DoubleArray
    xy: DoubleArray

    def places(self, rows: IndexArray) -> IndexArray:
        """(N,) which of these points rows of the map's are; -1 where none is."""
        if not len(self.rows):
            return np.full(len(rows), -1, np.int64)
        found = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[found] == rows, found, -1)


def _visible_points(
    sparse_map: SparseMap,
    names: Sequence[str],
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
) -> _Visible:
    seen = [sparse_map.images[name].point_rows for name in names]
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *seen]))
    in_camera = cam_from_world * sparse_map.points[rows]
    xy = camera.img_from_cam(in_camera)  # NaN behind the camera
    inside = ((xy >= 0) & (xy <= [camera.width, camera.height])).all(axis=1)
    rows, in_camera, xy = rows[inside], in_camera[inside], xy[inside]
    # distortion folds points far outside of the image back into it
    offset = camera.cam_from_img(xy) - in_camera[:, :2] / in_camera[:, 2:]
    true = np.linalg.norm(offset, axis=1) < FOLDED
    return _Visible(rows=rows[true], points=sparse_map.points[rows[true]], xy=xy[true])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sight:
    """How a camera sees points.

    Attributes:
        directions: (V, 3) from the camera to each, of unit length.
        sizes: (V,) pixels that a unit of the world covers there.
    """

    directions: DoubleArray
    sizes: DoubleArray

    @staticmethod
    def of(
        points: DoubleArray, camera: pycolmap.Camera, cam_from_world: DoubleArray
    ) -> _Sight:
        """The sight of (V, 3) points by a camera with a (3, 4) pose."""
        centre = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
        offsets = points - centre
        distances = np.maximum(np.linalg.norm(offsets, axis=1), 1e-12)
        return _Sight(
            directions=offsets / distances[:, None],
            sizes=camera.mean_focal_length() / distances,
        )

    def at(self, places: IndexArray) -> _Sight:
        """The sight of some of the points."""
        return _Sight(directions=self.directions[places], sizes=self.sizes[places])

    def is_like(self, other: _Sight) -> npt.NDArray[np.bool_]:
        """(V,) which points both see from similar directions, at similar sizes."""
        cosines = (self.directions * other.directions).sum(axis=1)
        scales = np.abs(np.log(self.sizes / other.sizes))
        alike: npt.NDArray[np.bool_] = (cosines >= LEAST_COSINE) & (
            scales <= np.log(MOST_SCALE)
        )
        return alike


@dataclass(frozen=True, kw_only=True, eq=False)
class _Observations:
    """Descriptors of the observations of visible points, point after point.

    Attributes:
        descriptors: (O, D).
        counts: (V,) observations of each point.
    """

    descriptors: FloatArray
    counts: IndexArray

    @cached_property
    def starts(self) -> IndexArray:
        """(V,) first observation of each point."""
        return np.cumsum(self.counts) - self.counts

    def of(self, pairs: IndexArray) -> IndexArray:
        """Those of (K, 2) rows of a keypoint and a point whose point is observed."""
        return pairs[self.counts[pairs[:, 1]] > 0]


def _observations(
    sparse_map: SparseMap,
    names: Sequence[str],
    visible: _Visible,
    ours: _Sight,
    read_descriptors: ReadDescriptors,
) -> _Observations:
    """Descriptors by the images that see points as the query does, see _Sight.

    Args:
        sparse_map: the map.
        names: of the images.
        visible: the points.
        ours: how the query sees them.
        read_descriptors: of a map image.
    """
    places, described = [np.zeros(0, np.int64)], []
    for name in names:
        image = sparse_map.images[name]
        place = visible.places(image.point_rows)
        keypoints, place = image.keypoints[place >= 0], place[place >= 0]
        theirs = _Sight.of(
            visible.points[place], sparse_map.cameras[name], image.cam_from_world
        )
        alike = ours.at(place).is_like(theirs)
        descriptors = read_descriptors(name) if alike.any() else None
        if descriptors is None:
            continue
        _check_count(name, len(descriptors), sparse_map)
        places.append(place[alike])
        described.append(descriptors[keypoints[alike]])
    place = np.concatenate(places)
    order = np.argsort(place, kind="stable")
    return _Observations(
        descriptors=(
            np.concatenate(described)[order]
            if described
            else np.zeros((0, 0), np.float32)
        ),
        counts=np.bincount(place, minlength=len(visible.rows)),
    )


def _check_count(name: str, count: int, sparse_map: SparseMap) -> None:
    """Refuse descriptors of other keypoints than the map's."""
    image = sparse_map.images[name]
    expected = image.keypoint_count
    if expected is None:
        expected = max(count, int(image.keypoints.max()) + 1)
    if count != expected:
        raise FeatureFormatError(
            f"'{name}': found {count} descriptors, but {expected} keypoints in the "
            "map; give the features that the map was made with"
        )


def _similarities(
    descriptors: FloatArray, pairs: IndexArray, seen: _Observations
) -> FloatArray:
    """(K,) cosine of each keypoint to the most similar observation of its point."""
    counts = seen.counts[pairs[:, 1]]
    ends = np.cumsum(counts)
    found = [np.zeros(0, np.float32)]
    start = 0
    while start < len(pairs):
        before = ends[start] - counts[start]
        end = int(np.searchsorted(ends, before + COMPARED_AT_ONCE, side="right"))
        end = max(end, start + 1)
        part = slice(start, end)
        firsts = ends[part] - counts[part] - before
        rows = np.arange(ends[end - 1] - before) + np.repeat(
            seen.starts[pairs[part, 1]] - firsts, counts[part]
        )
        keypoints = np.repeat(pairs[part, 0], counts[part])
        cosines = (descriptors[keypoints] * seen.descriptors[rows]).sum(axis=1)
        found.append(np.maximum.reduceat(cosines, firsts))
        start = end
    return np.concatenate(found)


def _mutual_best(pairs: IndexArray, similarities: FloatArray) -> IndexArray:
    """Which pairs are the most similar of both sides, by keypoint; ties go to lower
    rows."""
    kept = np.zeros((len(pairs), 2), bool)
    for side in (0, 1):
        order = np.lexsort((pairs[:, 1 - side], -similarities, pairs[:, side]))
        _, firsts = np.unique(pairs[order, side], return_index=True)
        kept[order[firsts], side] = True
    best = np.flatnonzero(kept.all(axis=1))
    return best[np.argsort(pairs[best, 0])]
