"""The matcher ``mutual_nearest``, at the cost of one matrix product.

The similarity matrix is made a few rows at a time, small enough to stay in the
processor's cache, and each part is read for its row and column maxima before the next
overwrites it. Plain maxima are several times faster than arg-maxes, so the index of a
row's maximum is looked up in one group of columns, and that of a column's maximum only
where a row points back at it.

Everything is float32. bfloat16 was measured and left out (benchmarks/match_speed.py):
the similarities of R2D2 lie so close together that its error of 0.007 leaves 60 to 90 %
of the rows undecided, which would have to be scored again in float32; without that, 10
to 20 % of the matches change.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from r2d2_kapture.config.match import MutualNearestConfig
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.types import PairMatches

GROUP = 32
"""Columns that share one maximum before the index is looked up."""
BLOCK_VALUES = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Similarities held at a time: 4 MiB, about a core's cache, and 256 MiB."""
MIN_BLOCK_ROWS = 32


class MutualNearest(Matcher):
    """Descriptors that are each other's most similar; see match_mutual_nearest."""

    settings_class: ClassVar[type] = MutualNearestConfig
    needs_keypoints: ClassVar[bool] = False

    def __init__(
        self,
        settings: MutualNearestConfig = MutualNearestConfig(),
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self.settings = settings

    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; scores are cosine similarities."""
        return match_mutual_nearest(
            features1.descriptors,
            features2.descriptors,
            min_similarity=self.settings.min_similarity,
            ratio=self.settings.ratio,
        )


@torch.inference_mode()
def match_mutual_nearest(
    descriptors1: Tensor,
    descriptors2: Tensor,
    *,
    min_similarity: float = -1.0,
    ratio: float = 1.0,
) -> PairMatches:
    """Match descriptors that are each other's most similar.

    A row of zeros matches nothing. Of equal similarities the lower index counts, as
    with numpy's argmax. Matching the
    images in the other order gives the same matches but for such ties.

    Args:
        descriptors1: (N, D) float32, unit L2 norm.
        descriptors2: (M, D) float32, unit L2 norm, on the same device.
        min_similarity: least cosine similarity of a match; -1 keeps all.
        ratio: largest ratio of the distance to the nearest and to the second nearest
            descriptor (Lowe, IJCV 2004, section 7.1), demanded in both directions;
            1 keeps all.

    Returns:
        Matches by rising index of the first image; scores are cosine similarities.
    """
    rows, columns, similarities = mutual_maxima(descriptors1, descriptors2)
    keep = similarities >= min_similarity
    if (similarities == 0).any():
        keep &= descriptors1[rows].any(1) & descriptors2[columns].any(1)
    rows, columns, similarities = rows[keep], columns[keep], similarities[keep]
    if ratio < 1 and len(rows):
        forward = _second_best(descriptors1[rows], descriptors2, columns)
        backward = _second_best(descriptors2[columns], descriptors1, rows)
        # squared distances of unit vectors are 2 - 2 similarity
        second = 1 - torch.maximum(forward, backward).double()
        keep = 1 - similarities.double() <= ratio**2 * second
        rows, columns, similarities = rows[keep], columns[keep], similarities[keep]
    return PairMatches(
        indices=torch.stack([rows, columns], dim=1).cpu().numpy(),
        scores=similarities.cpu().numpy().astype(np.float32, copy=False),
    )


def mutual_maxima(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of first @ second.T that are the largest of their row and column.

    Args:
        first: (N, D) float32.
        second: (M, D) float32.

    Returns:
        Rows, columns and values, by rising row; of equal values the lower index counts.
    """
    count = len(second)
    best = first.new_full((count,), -torch.inf)
    row_of_column = torch.full((count,), -1, device=first.device)
    if len(first) and count:
        search = _search_plainly if first.is_cuda else _search_in_cache
        search(first, second, best, row_of_column)
    columns = (row_of_column >= 0).nonzero()[:, 0]
    columns = columns[row_of_column[columns].argsort()]
    return row_of_column[columns], columns, best[columns]


def _search_in_cache(
    first: Tensor, second: Tensor, best: Tensor, row_of_column: Tensor
) -> None:
    """Fill (M,) maxima of the columns, and which row each holds, or -1."""
    buffer = _block_buffer(first, len(second))
    start = 0
    for block in first.tensor_split(-(-len(first) // len(buffer))):
        padded = buffer[: len(block)]
        similarity = padded[:, : len(second)]
        torch.mm(block, second.T, out=similarity)
        _take_block(padded, similarity, start, best, row_of_column)
        start += len(block)


def _search_plainly(
    first: Tensor, second: Tensor, best: Tensor, row_of_column: Tensor
) -> None:
    """Do the same by arg-maxes, which are fast on a GPU and wait for nothing."""
    nearest = []
    start = 0
    for block in first.tensor_split(-(-len(first) // block_rows(first, len(second)))):
        similarity = block @ second.T
        nearest.append(similarity.argmax(1))
        block_best, row = similarity.max(0)
        # strictly: of equal maxima the earlier block's stays
        row_of_column[:] = torch.where(block_best > best, row + start, row_of_column)
        torch.maximum(best, block_best, out=best)
        start += len(block)
    columns = torch.arange(len(second), device=first.device)
    one_way = torch.cat(nearest)[row_of_column] != columns
    row_of_column.masked_fill_(one_way, -1)


def _block_buffer(first: Tensor, count: int) -> Tensor:
    """Room for as many rows as a block has, columns filled up to whole groups."""
    width = -(-count // GROUP) * GROUP
    rows = min(block_rows(first, width), len(first))
    return first.new_full((rows, width), -torch.inf)


def block_rows(first: Tensor, columns: int) -> int:
    """Rows of similarities to that many columns that are held at a time."""
    return max(BLOCK_VALUES[first.device.type] // max(columns, 1), MIN_BLOCK_ROWS)


def _take_block(
    padded: Tensor,
    similarity: Tensor,
    start: int,
    best: Tensor,
    row_of_column: Tensor,
) -> None:
    """Bring the maxima of all columns, and who holds them, up to this block.

    Args:
        padded: (B, W) similarities, -inf beyond the last column.
        similarity: (B, M) the same without the padding.
        start: index of the block's first row.
        best: (M,) maxima so far, updated.
        row_of_column: (M,) the row that holds the maximum, if that is the row's own
            maximum too, else -1, updated.
    """
    row_best, row_column = _row_maxima(padded)
    block_best = similarity.amax(0)
    # strictly: of equal maxima the earlier block's stays
    better = block_best > best
    torch.maximum(best, block_best, out=best)
    row_of_column[better] = -1
    points_back = better[row_column] & (row_best == block_best[row_column])
    rows = points_back.nonzero()[:, 0]
    columns = row_column[rows]
    # several rows may share the maximum of a column: its first row counts
    first = similarity[:, columns].argmax(0) == rows if len(rows) else points_back[:0]
    row_of_column[columns[first]] = rows[first] + start


def _row_maxima(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of each row and its first index."""
    groups = padded.view(len(padded), -1, GROUP)
    best, group = groups.amax(2).max(1)
    rows = torch.arange(len(padded), device=padded.device)
    return best, group * GROUP + groups[rows, group].argmax(1)


def _second_best(queries: Tensor, others: Tensor, nearest: Tensor) -> Tensor:
    """Similarity of each query to its best among others but the nearest; else -inf."""
    parts = -(-len(queries) // block_rows(queries, len(others)))
    results = []
    for block, excluded in zip(
        queries.tensor_split(parts), nearest.tensor_split(parts)
    ):
        similarity = block @ others.T
        similarity.scatter_(1, excluded[:, None], -torch.inf)
        results.append(similarity.amax(1))
    return torch.cat(results)
