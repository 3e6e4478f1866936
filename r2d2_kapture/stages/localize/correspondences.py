"""Correspondences of query keypoints with map points, from matches with map images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.types import IndexArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Correspondences:
    """Keypoints of a query and map points that they may observe.

    Each pair occurs once, in order of keypoints, then points; a keypoint may pair with
    several points and a point with several keypoints.

    Attributes:
        keypoints: (N,) rows of the query's keypoints.
        points: (N,) rows of the map's points.
    """

    keypoints: IndexArray
    points: IndexArray

    def __len__(self) -> int:
        return len(self.keypoints)

    def take(self, chosen: npt.NDArray[np.bool_]) -> Correspondences:
        """Some of them, in their order."""
        return Correspondences(
            keypoints=self.keypoints[chosen], points=self.points[chosen]
        )


def gather_correspondences(
    sparse_map: SparseMap, matches: Mapping[str, IndexArray]
) -> Correspondences:
    """Follow matches to the points that keypoints of map images observe.

    Args:
        sparse_map: the map.
        matches: by name of the map image, (K, 2) keypoints of the query and of that
            image.
    """
    pairs = [np.zeros((0, 2), np.int64)]
    for name, indices in matches.items():
        points = sparse_map.images[name].points_seen(indices[:, 1])
        seen = points >= 0
        pairs.append(np.column_stack([indices[seen, 0], points[seen]]))
    unique = np.unique(np.concatenate(pairs), axis=0)
    return Correspondences(keypoints=unique[:, 0], points=unique[:, 1])


def covisible_groups(
    sparse_map: SparseMap, names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Group map images that observe common points, directly or through others.

    Places of similar appearance share no points, so that each forms its own group
    (Sarlin et al., From Coarse to Fine, CVPR 2019, section 4).

    Args:
        sparse_map: the map.
        names: of its images, each once.

    Returns:
        The largest group first, of equals the first in order; names keep their order.
    """
    if not names:
        return ()
    rows = [sparse_map.images[name].point_rows for name in names]
    images = np.repeat(np.arange(len(names)), [len(points) for points in rows])
    _, points = np.unique(np.concatenate(rows), return_inverse=True)
    size = len(names) + int(points.max(initial=-1)) + 1
    sees = coo_array(
        (np.ones(len(points), bool), (images, len(names) + points)), (size, size)
    )
    _, labels = connected_components(sees, directed=False)
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, labels.tolist()):
        groups.setdefault(label, []).append(name)
    return tuple(map(tuple, sorted(groups.values(), key=len, reverse=True)))
