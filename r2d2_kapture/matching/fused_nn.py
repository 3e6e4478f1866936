"""Mutual nearest neighbours on a GPU without the matrix of similarities, in Triton.

A product in float16 on the tensor cores is reduced, tile by tile, to the maximum of
each group of 16 columns (for rows) and of 16 rows (for columns). What float16 makes of
a similarity is off by a bounded error, so the nearest descriptor is in a group whose
maximum is within twice that of the best: those groups, one or two of hundreds, are
scored again in float64. The nearest ones are thus those of exact arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from r2d2_kapture.models.kernels import kernels_work
from r2d2_kapture.types import FloatArray

Indices = npt.NDArray[np.int32]

GROUP = 16
"""Neighbouring descriptors that share one maximum."""
TILE = 128
DEPTH = 32
"""Values of descriptors at a time: more would take more registers than there are."""


def works_on(device: torch.device) -> bool:
    """Whether the kernels run there; see kernels_work."""
    return kernels_work(device, lambda: _are_right(device))


def _are_right(device: torch.device) -> bool:
    values = torch.randn(300, 128, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(values, dim=1)
    exact = rows[:130].double() @ rows[130:].double().T
    found = nearest_both_ways(*rows.to(device).split([130, 170]))
    expected = exact.argmax(1), exact.argmax(0)
    return all(np.array_equal(ours, right) for ours, right in zip(found, expected))


def nearest_both_ways(
    first: Tensor, second: Tensor
) -> tuple[Indices, Indices, FloatArray]:
    """The nearest descriptors of two images in each other, the lower index of equals.

    Args:
        first: (N, D) float32, contiguous, rows of norm 1 or 0, N > 0.
        second: (M, D) likewise; maxima take N * M / 2 bytes.

    Returns:
        On the processor: (N,) int32 columns nearest to the rows, (M,) int32 rows
        nearest to the columns, (N,) float32 similarities of the former.
    """
    rows, columns, dim = len(first), len(second), first.shape[1]
    row_groups, column_groups = triton.cdiv(rows, GROUP), triton.cdiv(columns, GROUP)
    of_rows = first.new_empty(rows, column_groups)
    of_columns = first.new_empty(columns, row_groups)
    with torch.cuda.device_of(first):
        _group_maxima[triton.cdiv(rows, TILE), triton.cdiv(columns, TILE)](
            first.half(),
            second.half(),
            of_rows,
            of_columns,
            rows,
            columns,
            row_groups,
            column_groups,
            DIM=dim,
            TILE=TILE,
            DEPTH=DEPTH,
            GROUP=GROUP,
            num_warps=8,
            num_stages=3,
        )
        found = torch.empty(
            2 * rows + 2 * columns, dtype=torch.int32, device=first.device
        )
        nearest, similarity, back, unused = found.split([rows, rows, columns, columns])
        margin = 2 * product_error(dim)
        for queries, others, maxima, groups, index, value in (
            (first, second, of_rows, column_groups, nearest, similarity),
            (second, first, of_columns, row_groups, back, unused),
        ):
            _exact_nearest[(len(queries),)](
                queries,
                others,
                maxima,
                index,
                value.view(torch.float32),
                len(others),
                groups,
                margin,
                DIM=dim,
                DEPTH=DEPTH,
                GROUP=GROUP,
                GROUPS=max(256, triton.next_power_of_2(groups)),
                num_warps=4,
            )
    # one copy of all
    copied = found[: 2 * rows + columns].cpu().numpy()
    columns_of, similarities, rows_of = np.split(copied, [rows, 2 * rows])
    return columns_of, rows_of, similarities.view(np.float32)


def product_error(dim: int) -> float:
    """Largest error of the similarity of two unit rows in float16.

    Rounding moves either row by 2 ** -11 of its norm. The tensor cores add in float32,
    but cut instead of rounding.
    """
    return 2**-10 * 1.01 + dim * 2**-22


@triton.jit(do_not_specialize=["rows", "columns", "row_groups", "column_groups"])
def _group_maxima(
    first,
    second,
    of_rows,
    of_columns,
    rows,
    columns,
    row_groups,
    column_groups,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Maxima of a tile of first @ second.T: (N, column groups), (M, row groups)."""
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    j = tl.program_id(1) * TILE + tl.arange(0, TILE)
    k = tl.arange(0, DEPTH)
    product = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, DIM, DEPTH):
        inner = start + k
        left = tl.load(
            first + i[:, None] * DIM + inner[None, :],
            mask=(i < rows)[:, None] & (inner < DIM)[None, :],
            other=0.0,
        )
        right = tl.load(
            second + j[None, :] * DIM + inner[:, None],
            mask=(j < columns)[None, :] & (inner < DIM)[:, None],
            other=0.0,
        )
        product = tl.dot(left, right, product)
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    product = tl.where(inside, product, float("-inf"))
    groups: tl.constexpr = TILE // GROUP
    g = tl.arange(0, groups)
    column_group = tl.program_id(1) * groups + g
    tl.store(
        of_rows + i[:, None] * column_groups + column_group[None, :],
        tl.max(tl.reshape(product, (TILE, groups, GROUP)), axis=2),
        mask=(i < rows)[:, None] & (column_group < column_groups)[None, :],
    )
    row_group = tl.program_id(0) * groups + g
    tl.store(
        of_columns + j[None, :] * row_groups + row_group[:, None],
        tl.max(tl.reshape(product, (groups, GROUP, TILE)), axis=1),
        mask=(j < columns)[None, :] & (row_group < row_groups)[:, None],
    )


@triton.jit(do_not_specialize=["count", "groups", "margin"])
def _exact_nearest(
    queries,
    others,
    maxima,
    nearest,
    similarity,
    count,
    groups,
    margin,
    DIM: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """The nearest of others to one query, by float64 where its groups may hold it."""
    query = tl.program_id(0)
    g = tl.arange(0, GROUPS)
    best_of = tl.load(maxima + query * groups + g, mask=g < groups, other=float("-inf"))
    possible = tl.where(best_of >= tl.max(best_of, 0) - margin, g, GROUPS)
    group = tl.min(possible, 0)
    best = tl.full((), float("-inf"), tl.float64)
    index = tl.full((), 0, tl.int32)
    while group < GROUPS:
        j = group * GROUP + tl.arange(0, GROUP)
        score = tl.zeros((GROUP,), tl.float64)
        for start in range(0, DIM, DEPTH):
            inner = start + tl.arange(0, DEPTH)
            row = tl.load(queries + query * DIM + inner, mask=inner < DIM, other=0.0)
            block = tl.load(
                others + j[:, None] * DIM + inner[None, :],
                mask=(j < count)[:, None] & (inner < DIM)[None, :],
                other=0.0,
            )
            score += tl.sum(block.to(tl.float64) * row.to(tl.float64)[None, :], 1)
        score = tl.where(j < count, score, float("-inf"))
        top = tl.max(score, 0)
        at = tl.min(tl.where(score == top, j, 2147483647), 0)
        # strictly: of equal similarities the earlier group's stays
        index = tl.where(top > best, at, index)
        best = tl.maximum(top, best)
        possible = tl.where(g == group, GROUPS, possible)
        group = tl.min(possible, 0)
    tl.store(nearest + query, index)
    tl.store(similarity + query, best.to(tl.float32))
