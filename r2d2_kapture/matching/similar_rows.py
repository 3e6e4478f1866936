"""The most similar rows of matrices that need not fit into memory.

Cosines of blocks are computed in float32, by the fastest matrix product there is. Its
rounding depends on the sizes of blocks, the processor and its library; but not by how
much: cosines that could be among the best, by a bound on its error, are computed again
in float64, row by row. So the result is that of float64 whatever the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from r2d2_kapture.matching.pair_selection import (
    DoubleArray,
    Selection,
    best_of,
    chosen,
    concatenate,
)
from r2d2_kapture.types import FloatArray, IndexArray

Apart = Callable[[slice, slice], npt.NDArray[np.bool_]]
"""Of a block of rows and one of others, (B, M) which are no pair."""

ROUNDING = 2.0**-24
"""Largest relative error of one operation in float32."""
TILE_HEIGHT = 1024
TILE_WIDTH = 8192
"""Rows and, at most, others that are multiplied at a time."""
PAIRS_VALUES = 1 << 20
"""Values of rows in float64 at a time."""


class UnitRows(Protocol):
    """Rows of unit L2 norm, or zeros, which are read as they are needed.

    Attributes:
        count, dim: number of rows, and of values of each.
    """

    @property
    def count(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def read(self, rows: slice) -> FloatArray:
        """(B, dim) float32 consecutive rows."""


def most_similar(
    rows: UnitRows,
    others: UnitRows,
    *,
    top_k: int = 0,
    min_score: float | None = None,
    apart: Apart | None = None,
    memory: float,
) -> Selection:
    """The others with the highest cosines of each row; of equal ones the lower first.

    Args:
        rows, others: rows of zeros have no pair.
        top_k: others of a row at most; 0 for all.
        min_score: least cosine; None takes all.
        apart: what is no pair; None for nothing.
        memory: bytes of the rows and cosines held at a time; the others are read once
            for each block of rows.
    """
    # two blocks and a copy of one are a third of the memory, a tile a tenth with copies
    height = max(int(memory / 9 / (4 * rows.dim)), 1)
    width = max(min(int(memory / 40 / (4 * TILE_HEIGHT)), TILE_WIDTH), 1)
    parts = []
    for block1 in _slices(0, rows.count, height):
        values1 = rows.read(block1)
        tiles = list(_slices(block1.start, block1.stop, TILE_HEIGHT))
        best: list[list[Selection]] = [[] for _ in tiles]
        for block2 in _slices(0, others.count, height):
            values2 = others.read(block2)
            for found, tile1 in zip(best, tiles):
                for tile2 in _slices(block2.start, block2.stop, width):
                    found[:] = _with_tile(
                        found,
                        values1[_within(tile1, block1)],
                        values2[_within(tile2, block2)],
                        (tile1, tile2),
                        None if apart is None else apart(tile1, tile2),
                        top_k,
                        min_score,
                    )
        parts += [best_of(concatenate(found), top_k) for found in best]
    return concatenate(parts)


def _with_tile(
    found: list[Selection],
    values1: FloatArray,
    values2: FloatArray,
    tile: tuple[slice, slice],
    apart: npt.NDArray[np.bool_] | None,
    top_k: int,
    min_score: float | None,
) -> list[Selection]:
    """The best pairs up to here and those of a tile, of which some may not be best.

    Args:
        found: of the rows of the tile, with others before it.
        values1, values2: rows and others of the tile.
        tile: their indices.
        apart, top_k, min_score: see most_similar.
    """
    cosines = values1 @ values2.T
    cosines[~values1.any(axis=1)] = -np.inf
    cosines[:, ~values2.any(axis=1)] = -np.inf
    if apart is not None:
        np.copyto(cosines, -np.inf, where=apart)
    # |error| <= dim * rounding * |a| |b| (Higham, Accuracy and Stability, 3.5)
    error = (values1.shape[1] + 2) * ROUNDING
    start1, start2 = tile[0].start, tile[1].start
    least = np.full(len(cosines), -2.0 if min_score is None else min_score) - error
    if top_k:
        worst = _worst_of_best(found, tile[0], top_k)
        least = np.maximum(least, worst - error)
        if top_k < cosines.shape[1]:
            few = np.flatnonzero(worst == -np.inf)
            place = cosines.shape[1] - top_k
            of_tile = np.partition(cosines[few], place, axis=1)[:, place]
            least[few] = np.maximum(least[few], of_tile - 2 * error)
    first, second = np.nonzero(cosines >= least[:, None].astype(np.float32))
    scores = exact_cosines(values1, values2, first, second)
    added = Selection(first=first + start1, second=second + start2, scores=scores)
    if min_score is not None:
        added = chosen(added, scores >= min_score)
    if not top_k:
        return [*found, added]
    return [best_of(concatenate([*found, added]), top_k)] if len(added) else found


def exact_cosines(
    rows: FloatArray, others: FloatArray, first: IndexArray, second: IndexArray
) -> DoubleArray:
    """(K,) float64 products of pairs of rows, each the same whatever the others are.

    Args:
        rows, others: (N, D) and (M, D) of unit norm.
        first, second: (K,) indices of the two.
    """
    scores = np.empty(len(first))
    for part in _slices(0, len(first), max(PAIRS_VALUES // rows.shape[1], 1)):
        products = rows[first[part]].astype(np.float64)
        products *= others[second[part]]
        scores[part] = products.sum(axis=1)
    return scores


def _worst_of_best(found: list[Selection], rows: slice, top_k: int) -> DoubleArray:
    """The last of the ``top_k`` best scores of each row; -inf where there are fewer."""
    worst = np.full(rows.stop - rows.start, -np.inf)
    for best in found:
        ends = np.searchsorted(best.first, np.arange(rows.start, rows.stop), "right")
        full = np.diff(ends, prepend=0) == top_k
        worst[full] = best.scores[ends[full] - 1]
    return worst


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
