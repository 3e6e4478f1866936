"""Cameras near each other, by a k-d tree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from r2d2_kapture.matching.pair_selection import (
    BLOCK_PAIRS,
    DoubleArray,
    Selection,
    best_of,
    chosen,
    concatenate,
)
from r2d2_kapture.types import IndexArray

Among = Callable[[IndexArray, IndexArray], npt.NDArray[np.bool_]]
"""Of (K,) rows and (K,) others, (K,) which are a pair."""
FIRST_ASKED = 8
"""Others that are asked for at first, beyond those wanted."""
GROWTH = 4
"""Times as many are asked for where these are too few."""
HAIR = 1e-9
"""Relative difference of distances that rounding cannot make."""


def near_cameras(
    poses: DoubleArray,
    others: DoubleArray,
    *,
    top_k: int = 0,
    min_score: float | None = None,
    min_distance: float = 0.0,
    max_distance: float | None = None,
    max_angle: float,
    among: Among,
) -> Selection:
    """The nearest cameras that look the same way, score 1 / (1 + distance).

    Args:
        poses, others: (N, 3, 4) and (M, 3, 4) cam_from_world.
        top_k, min_score, min_distance, max_distance, among: see near_positions.
        max_angle: between optical axes, in degrees.
    """
    centres1, axes1 = centres_and_axes(poses)
    centres2, axes2 = centres_and_axes(others)
    # a hair below, so that equal directions pass at any angle
    least_cosine = np.cos(np.radians(max_angle)) - 1e-9

    def alike(first: IndexArray, second: IndexArray) -> npt.NDArray[np.bool_]:
        cosines = np.einsum("ij,ij->i", axes1[first], axes2[second])
        return np.asarray((cosines >= least_cosine) & among(first, second))

    return near_positions(
        centres1,
        centres2,
        top_k=top_k,
        min_score=min_score,
        min_distance=min_distance,
        max_distance=max_distance,
        among=alike,
    )


def near_positions(
    centres: DoubleArray,
    others: DoubleArray,
    *,
    top_k: int = 0,
    min_score: float | None = None,
    min_distance: float = 0.0,
    max_distance: float | None = None,
    among: Among,
) -> Selection:
    """The nearest others of each position, score 1 / (1 + distance).

    Others are asked for in order of distance until ``top_k`` of them are pairs: many
    where few are.

    Args:
        centres, others: (N, 3) and (M, 3) positions, in one unit.
        top_k: others of a position at most, 0 for all; of equal ones the lower first.
        min_score: least score; None takes all.
        min_distance, max_distance: between the two, both included; None for any.
        among: which may be pairs.
    """
    farthest = np.inf if max_distance is None else max_distance
    if min_score is not None and min_score > 0:
        farthest = min(farthest, max(1 / min_score - 1, 0))
    # splits at medians would not end where many are at one place
    tree = KDTree(others, balanced_tree=False)

    def pairs_of(rows: IndexArray, nearest: IndexArray) -> Selection:
        at, rank = np.nonzero(nearest < len(others))
        first, second = rows[at], nearest[at, rank].astype(np.int64)
        apart = _distances(centres[first], others[second])
        scores = 1 / (1 + apart)
        kept = (apart >= min_distance) & among(first, second)
        if max_distance is not None:
            kept &= apart <= max_distance
        if min_score is not None:
            kept &= scores >= min_score
        return chosen(Selection(first=first, second=second, scores=scores), kept)

    parts, pending = [], np.arange(len(centres))
    asked = min((top_k or FIRST_ASKED) + FIRST_ASKED, len(others))
    while len(pending):
        left = []
        for start in range(0, len(pending), height := max(BLOCK_PAIRS // asked, 1)):
            rows = pending[start : start + height]
            distances, nearest = tree.query(
                centres[rows],
                k=np.arange(1, asked + 1),
                distance_upper_bound=farthest * (1 + HAIR) + HAIR,
            )
            found = best_of(pairs_of(rows, nearest), top_k)
            ends = np.searchsorted(found.first, rows, "right")
            counts = np.diff(ends, prepend=0)
            done = np.isinf(distances[:, -1]) | (asked == len(others))
            if top_k:
                # those not asked for, all farther, cannot be better
                full = np.flatnonzero(counts == top_k)
                best_left = 1 / (1 + distances[full, -1] * (1 - HAIR))
                done[full] |= found.scores[ends[full] - 1] > best_left
            parts.append(chosen(found, np.repeat(done, counts)))
            left.append(rows[~done])
        pending = np.concatenate(left)
        asked = min(GROWTH * asked, len(others))
    return best_of(concatenate(parts))


def centres_and_axes(poses: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """(N, 3) camera centres and (N, 3) unit viewing directions, in the world."""
    rotations, translations = poses[:, :, :3], poses[:, :, 3]
    # x_cam = R x + t: the centre is -R^T t, the optical axis R^T (0, 0, 1)
    return -np.einsum("nij,ni->nj", rotations, translations), rotations[:, 2]


def _distances(places: DoubleArray, others: DoubleArray) -> DoubleArray:
    x, y, z = (places - others).T
    return np.asarray(np.sqrt(x * x + y * y + z * z))
