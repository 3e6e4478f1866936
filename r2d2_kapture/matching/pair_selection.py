"""Which of many images to match: by order, by score, or all; on indices alone.

Scores are higher for likelier pairs. Where one image may have many partners, scores
come a few rows at a time, so that a matrix of all images with all need not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating]

BLOCK_VALUES = 1 << 24
"""Scores held at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Pairs of indices.

    Attributes:
        first, second: (K,) indices of the two images.
        scores: (K,), higher is likelier.
    """

    first: IndexArray
    second: IndexArray
    scores: DoubleArray

    def __len__(self) -> int:
        return len(self.first)


def exhaustive(count: int) -> Selection:
    """Every image with every later one, score 1."""
    first, second = np.triu_indices(count, k=1)
    return Selection(first=first, second=second, scores=np.ones(len(first)))


def every_with_every(count1: int, count2: int) -> Selection:
    """Every image of one set with every one of another, score 1."""
    first, second = np.indices((count1, count2)).reshape(2, -1)
    return Selection(first=first, second=second, scores=np.ones(len(first)))


def sequential(
    sequence: IndexArray, *, overlap: int, quadratic: bool = False, loop: bool = False
) -> Selection:
    """Images that follow each other, score 1 / steps between them.

    Args:
        sequence: (N,) indices in order of time.
        overlap: most steps between two images.
        quadratic: also 2, 4, 8, ... 2 ** (overlap - 1) steps.
        loop: the first image follows the last.

    Returns:
        Pairs, earlier image first; with ``loop`` a pair may occur both ways.
    """
    count = len(sequence)
    steps = set(range(1, min(overlap, count - 1) + 1))
    if quadratic:
        steps |= {2**k for k in range(min(overlap, count.bit_length()))}
    first, second, scores = [], [], []
    for step in sorted(step for step in steps if step < count):
        start = np.arange(count if loop else count - step)
        first.append(sequence[start])
        second.append(sequence[(start + step) % count])
        scores.append(np.full(len(start), 1 / step))
    return concatenate(
        Selection(first=a, second=b, scores=c) for a, b, c in zip(first, second, scores)
    )


def concatenate(parts: Iterable[Selection]) -> Selection:
    """Several selections one after another."""
    listed = list(parts)
    none = np.zeros(0, np.int64)
    return Selection(
        first=np.concatenate([none, *(part.first for part in listed)]),
        second=np.concatenate([none, *(part.second for part in listed)]),
        scores=np.concatenate([np.zeros(0), *(part.scores for part in listed)]),
    )


def best_partners(
    blocks: Iterable[Scores], *, top_k: int = 0, min_score: float | None = None
) -> Selection:
    """The best columns of each row; of equal scores the lower column comes first.

    Args:
        blocks: (B, M) scores of consecutive rows; -inf is no pair.
        top_k: partners of a row at most; 0 for all.
        min_score: least score; None takes all that are pairs.

    Returns:
        Pairs of row and column by row, best first.
    """
    parts = []
    start = 0
    for block in blocks:
        part = _best_of_block(block, top_k or block.shape[1], min_score)
        parts.append(
            Selection(first=part.first + start, second=part.second, scores=part.scores)
        )
        start += len(block)
    return concatenate(parts)


def _best_of_block(block: Scores, top_k: int, min_score: float | None) -> Selection:
    keep = block > -np.inf
    if min_score is not None:
        keep &= block >= min_score
    if top_k < block.shape[1]:
        place = block.shape[1] - top_k
        keep &= block >= np.partition(block, place, axis=1)[:, place, None]
    rows, columns = np.nonzero(keep)
    scores = block[rows, columns].astype(np.float64)
    order = np.lexsort((columns, -scores, rows))
    rows = rows[order]
    # more than top_k pass the partition where scores are equal
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    order = order[rank < top_k]
    return Selection(
        first=rows[rank < top_k], second=columns[order], scores=scores[order]
    )


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive rows of a matrix, as many at a time as may be held."""
    step = max(BLOCK_VALUES // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def without_same(blocks: Iterable[Scores], same_column: IndexArray) -> Iterator[Scores]:
    """Scores in which no image is its own partner.

    Args:
        blocks: (B, M) scores of consecutive rows.
        same_column: (N,) for each row the column of the same image; -1 for none.
    """
    start = 0
    for block in blocks:
        columns = same_column[start : start + len(block)]
        rows = np.flatnonzero(columns >= 0)
        block[rows, columns[rows]] = -np.inf
        yield block
        start += len(block)


def cosine_blocks(queries: FloatArray, others: FloatArray) -> Iterator[Scores]:
    """Cosines of all rows of one matrix with all of another; -inf for rows of zeros."""
    normed1, normed2 = unit_rows(queries), unit_rows(others)
    for rows in row_blocks(len(queries), len(others)):
        block = normed1[rows] @ normed2.T
        block[~np.any(normed1[rows], axis=1)] = -np.inf
        block[:, ~np.any(normed2, axis=1)] = -np.inf
        yield block


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to unit L2 norm; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), rows.dtype)


def pose_blocks(
    poses: DoubleArray,
    others: DoubleArray,
    *,
    min_distance: float = 0.0,
    max_distance: float | None,
    max_angle: float,
) -> Iterator[Scores]:
    """Scores 1 / (1 + distance) of cameras that look the same way from near by.

    Args:
        poses, others: (N, 3, 4) and (M, 3, 4) cam_from_world.
        min_distance, max_distance: see distance_blocks.
        max_angle: between optical axes, in degrees.
    """
    centres1, axes1 = centres_and_axes(poses)
    centres2, axes2 = centres_and_axes(others)
    # a hair below, so that equal directions pass at any angle
    least_cosine = np.cos(np.radians(max_angle)) - 1e-9
    blocks = distance_blocks(
        centres1, centres2, min_distance=min_distance, max_distance=max_distance
    )
    for rows, block in zip(row_blocks(len(poses), len(others)), blocks):
        yield np.where(axes1[rows] @ axes2.T >= least_cosine, block, -np.inf)


def distance_blocks(
    centres: DoubleArray,
    others: DoubleArray,
    *,
    min_distance: float = 0.0,
    max_distance: float | None = None,
) -> Iterator[Scores]:
    """Scores 1 / (1 + distance) of positions; -inf for those out of reach.

    Args:
        centres, others: (N, 3) and (M, 3) positions, in one unit.
        min_distance, max_distance: between the two, both included; None for any.
    """
    for rows in row_blocks(len(centres), len(others)):
        distances = cdist(centres[rows], others)
        within = distances >= min_distance
        if max_distance is not None:
            within &= distances <= max_distance
        yield np.where(within, 1 / (1 + distances), -np.inf)


def centres_and_axes(poses: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """(N, 3) camera centres and (N, 3) unit viewing directions, in the world."""
    rotations, translations = poses[:, :, :3], poses[:, :, 3]
    # x_cam = R x + t: the centre is -R^T t, the optical axis R^T (0, 0, 1)
    return -np.einsum("nij,ni->nj", rotations, translations), rotations[:, 2]


def covisibility_blocks(
    points_of_images: list[IndexArray], *, over_union: bool = False
) -> Iterator[Scores]:
    """Numbers of points that each two images both see; -inf for none.

    Args:
        points_of_images: for each image the indices of its points, repeats count once.
        over_union: divide by the number of points that at least one of the two sees.
    """
    unique = [np.unique(points) for points in points_of_images]
    counts = np.array([len(points) for points in unique], np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *unique])
    seen = csr_array(
        (np.ones(len(columns)), columns, np.cumsum([0, *counts])),
        shape=(len(unique), int(columns.max(initial=-1)) + 1),
    )
    for rows in row_blocks(len(unique), len(unique)):
        common = (seen[rows] @ seen.T).toarray()
        scores = common
        if over_union:
            union = counts[rows, None] + counts - common
            scores = common / np.maximum(union, 1)
        yield np.where(common > 0, scores, -np.inf)
