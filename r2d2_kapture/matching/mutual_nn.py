"""The matcher ``mutual_nearest``, at the cost of one matrix product.

The similarity matrix is made a few rows at a time, small enough to stay in the
processor's cache, and each part is read for its row and column maxima before the next
overwrites it. Plain maxima are several times faster than arg-maxes, so the index of a
row's maximum is looked up in one group of columns, and that of a column's maximum only
where a row points back at it.

Everything is float32. Products in bfloat16 and in int8 take half and a quarter of the
time (benchmarks/match_speed.py), but were left out: the similarities of R2D2 lie so
close together that an error of 0.007 or 0.022 leaves 60 to 90 % of the rows undecided,
and to score those again in float32 takes longer than the product; without that, 10 to
20 % of the matches change.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from r2d2_kapture.config.match import MutualNearestConfig
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.types import PairMatches

GROUP = 128
"""Columns that share one maximum before the index is looked up."""
BLOCK_VALUES = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Similarities held at a time: 4 MiB, about a core's cache, and 256 MiB."""
MIN_BLOCK_ROWS = 208
"""Fewer would pack the other image's descriptors too often."""
MOST_FUSED = 1 << 31
"""Similarities of one call of fused_nn, whose maxima take 1 GiB."""
MIN_SIDE, MOST_VALUES = 16, 192
"""Rows and columns, and values of a descriptor, that oneDNN and MKL sum up alike."""


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
    rows, columns, similarities = _mutual_nearest(descriptors1, descriptors2)
    keep = similarities >= min_similarity
    if (similarities == 0).any():
        keep &= _described(descriptors1, rows) & _described(descriptors2, columns)
    rows, columns, similarities = rows[keep], columns[keep], similarities[keep]
    if ratio < 1 and len(rows):
        device = descriptors1.device
        rows, columns, similarities = (
            values.to(device) for values in (rows, columns, similarities)
        )
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


def _mutual_nearest(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As mutual_maxima, for descriptors; on the processor where a GPU fuses it."""
    few = 0 < len(first) * len(second) <= MOST_FUSED
    if not few or not first.is_cuda or not _fuses(first.device):
        return mutual_maxima(first, second)
    from r2d2_kapture.matching import fused_nn

    nearest, back, similarity = fused_nn.nearest_both_ways(
        first.contiguous(), second.contiguous()
    )
    # numpy takes a third of the time of torch here
    rows = np.flatnonzero(back[nearest] == np.arange(len(first)))
    columns = nearest[rows].astype(np.int64)
    return (
        torch.from_numpy(rows),
        torch.from_numpy(columns),
        torch.from_numpy(similarity[rows]),
    )


@functools.cache
def _fuses(device: torch.device) -> bool:
    """Whether fused_nn runs there: torch for CUDA brings Triton on Linux."""
    if importlib.util.find_spec("triton") is None:
        return False
    from r2d2_kapture.matching import fused_nn

    return fused_nn.works_on(device)


def _described(descriptors: Tensor, rows: Tensor) -> Tensor:
    """Whether descriptors are not zero, on the device of the indices."""
    return descriptors[rows.to(descriptors.device)].any(1).to(rows.device)


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
    start = 0
    for block in first.tensor_split(-(-len(first) // block_rows(first, len(second)))):
        _take_block(product(block, second), start, best, row_of_column)
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


def block_rows(first: Tensor, columns: int) -> int:
    """Rows of similarities to that many columns that are held at a time."""
    return max(BLOCK_VALUES[first.device.type] // max(columns, 1), MIN_BLOCK_ROWS)


def product(first: Tensor, second: Tensor) -> Tensor:
    """first @ second.T of (B, D) and (M, D) float32, by the faster library.

    oneDNN takes half the time of MKL on processors of AMD with AVX-512, and where both
    add up in the same order the bytes are the same.
    """
    alike = min(len(first), len(second)) >= MIN_SIDE and first.shape[1] <= MOST_VALUES
    if first.is_cuda or not alike or not _has_onednn():
        return first @ second.T
    result: Tensor = torch.ops.mkldnn._linear_pointwise(
        first, second, None, "none", [], ""
    )
    return result


@functools.cache
def _has_onednn() -> bool:
    """Whether torch was built with oneDNN for x86; on Arm it adds in another order."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return (
        x86 and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _take_block(
    similarity: Tensor, start: int, best: Tensor, row_of_column: Tensor
) -> None:
    """Bring the maxima of all columns, and who holds them, up to this block.

    Args:
        similarity: (B, M), contiguous.
        start: index of the block's first row.
        best: (M,) maxima so far, updated.
        row_of_column: (M,) the row that holds the maximum, if that is the row's own
            maximum too, else -1, updated.
    """
    row_best, row_column = _row_maxima(similarity)
    block_best = similarity.amax(0)
    # strictly: of equal maxima the earlier block's stays
    better = block_best > best
    torch.maximum(best, block_best, out=best)
    row_of_column[better] = -1
    points_back = better[row_column] & (row_best == block_best[row_column])
    rows = points_back.nonzero()[:, 0]
    columns = row_column[rows]
    # several rows may share the maximum of a column: its first row counts
    holds = similarity.index_select(1, columns) == row_best[rows]
    alone = holds.sum(0) == 1
    if not alone.all():
        alone |= holds.int().argmax(0) == rows
    row_of_column[columns[alone]] = rows[alone] + start


def _row_maxima(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of each row and its first index."""
    count, width = similarity.shape
    whole = width // GROUP
    if not whole:
        return similarity.max(1)
    groups = torch.unflatten(similarity[:, : whole * GROUP], 1, (whole, GROUP))
    grouped = groups.amax(2)
    if width % GROUP:
        rest = similarity[:, whole * GROUP :].amax(1, keepdim=True)
        grouped = torch.cat([grouped, rest], dim=1)
    best, group = grouped.max(1)
    # the last group is filled up with columns before it, which are all below
    starts = (group * GROUP).clamp_max_(width - GROUP)
    rows = torch.arange(count, device=similarity.device)
    return best, starts + similarity.unfold(1, GROUP, 1)[rows, starts].argmax(1)


def _second_best(queries: Tensor, others: Tensor, nearest: Tensor) -> Tensor:
    """Similarity of each query to its best among others but the nearest; else -inf."""
    parts = -(-len(queries) // block_rows(queries, len(others)))
    results = []
    for block, excluded in zip(
        queries.tensor_split(parts), nearest.tensor_split(parts)
    ):
        similarity = product(block, others)
        similarity.scatter_(1, excluded[:, None], -torch.inf)
        results.append(similarity.amax(1))
    return torch.cat(results)
