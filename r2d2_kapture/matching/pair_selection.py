"""Which of many images to match: by order, by score, or all; on indices alone.

Scores are higher for likelier pairs. There is never a matrix of all images with all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]

BLOCK_PAIRS = 1 << 20
"""Pairs held at a time, of which the best are kept."""


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
    later = np.arange(count - 1, -1, -1)
    first = np.repeat(np.arange(count), later)
    second = np.arange(len(first)) - np.repeat(np.cumsum(later) - count, later)
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


def best_of(pairs: Selection, top_k: int = 0) -> Selection:
    """The best pairs of each first image; of equal scores the lower second comes first.

    Args:
        pairs: in any order, each once.
        top_k: pairs of an image at most; 0 for all.

    Returns:
        Pairs by first image, best first.
    """
    order = np.lexsort((pairs.second, -pairs.scores, pairs.first))
    first = pairs.first[order]
    if top_k:
        kept = np.arange(len(first)) - np.searchsorted(first, first) < top_k
        first, order = first[kept], order[kept]
    return Selection(
        first=first, second=pairs.second[order], scores=pairs.scores[order]
    )


def chosen(pairs: Selection, rows: npt.NDArray[np.bool_]) -> Selection:
    """Some of the pairs."""
    return Selection(
        first=pairs.first[rows], second=pairs.second[rows], scores=pairs.scores[rows]
    )


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to unit L2 norm; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), rows.dtype)


def covisible(
    points_of_images: Sequence[IndexArray],
    *,
    top_k: int = 0,
    min_score: float | None = None,
    over_union: bool = False,
) -> Selection:
    """Pairs of images that see points in common, scores the numbers of these points.

    Only such pairs are visited, so the cost is that of the longest tracks.

    Args:
        points_of_images: for each image the indices of its points, repeats count once.
        top_k: pairs of an image at most; 0 for all.
        min_score: least score; None takes all.
        over_union: divide by the number of points that at least one of the two sees.
    """
    unique = [np.unique(points) for points in points_of_images]
    counts = np.array([len(points) for points in unique], np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *unique])
    seen = csr_array(
        (np.ones(len(columns), np.int32), columns, np.cumsum([0, *counts])),
        shape=(len(unique), int(columns.max(initial=-1)) + 1),
    )
    seeing = seen.T.tocsr()
    # pairs of each image and an image of each of its points, those met often too
    met = seen @ np.bincount(columns, minlength=seen.shape[1])
    parts = []
    for rows in _blocks(met, BLOCK_PAIRS):
        common = (seen[rows] @ seeing).tocoo()
        first, second = common.row + rows.start, common.col
        scores = common.data.astype(np.float64)
        if over_union:
            scores /= counts[first] + counts[second] - scores
        kept = first != second
        if min_score is not None:
            kept &= scores >= min_score
        found = Selection(
            first=first[kept].astype(np.int64),
            second=second[kept].astype(np.int64),
            scores=scores[kept],
        )
        parts.append(best_of(found, top_k))
    return concatenate(parts)


def _blocks(sizes: IndexArray, most: int) -> Iterator[slice]:
    """Consecutive items whose sizes sum to no more, or single ones."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start] - sizes[start]
        stop = max(int(np.searchsorted(ends, before + most, "right")), start + 1)
        yield slice(start, stop)
        start = stop
