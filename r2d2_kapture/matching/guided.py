"""Guided matching: nearest neighbours among the keypoints that a geometry allows.

Where two images are known to be related by an epipolar geometry or a homography, each
keypoint is only compared with those near its epipolar line or its projection (Hartley
and Zisserman, Multiple View Geometry, 2nd edition, section 11.6, algorithm 11.4 step
v; COLMAP does so too). All pairs are tested for that, some rows at a time, but few
pass, and only of these the descriptors are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from r2d2_kapture.matching.mutual_nn import block_rows
from r2d2_kapture.types import IndexArray, PairMatches

DoubleArray = npt.NDArray[np.float64]

UNLIKE_INLIERS = 0.3
"""Share of the known matches whose descriptors are less similar than those of any
guided match. With less, wrong ones that confirm an inaccurate geometry cost accuracy of
relative poses (docs/pipeline.md)."""
DENSE = 0.1
"""Share of pairs from which it is faster to compare the descriptors of all."""
COMPARED_AT_ONCE = 1 << 16
"""Descriptors: 32 MiB of 128 values on either side."""


class Geometry(Protocol):
    """Says which keypoints of two images may show one point."""

    def allowed(self, start: int, end: int) -> Tensor:
        """(B, M) bool, for keypoints ``start`` to before ``end`` of the first image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpipolarBand:
    """Keypoints by Sampson's distance to each other's epipolar lines.

    Attributes:
        lines: (N, 3) float32 lines in the second image of the keypoints of the first,
            of unit mean normal.
        points: (3, M) float32 keypoints of the second image, homogeneous.
        limits1, limits2: (N, 1) and (M,) float32; a keypoint is within the band where
            its squared residual is at most the sum of both.
    """

    lines: Tensor
    points: Tensor
    limits1: Tensor
    limits2: Tensor

    @staticmethod
    def of(
        points1: DoubleArray, points2: DoubleArray, F: DoubleArray, max_error: float
    ) -> EpipolarBand:
        """The band of a fundamental matrix, or of an essential one.

        Args:
            points1, points2: (N, 2) and (M, 2) pixels without distortion for a
                fundamental matrix, or on the plane z = 1 for an essential one; NaN is
                in no band.
            F: (3, 3) with x2^T F x1 = 0.
            max_error: Sampson's distance, in units of the points.
        """
        lines2 = _homogeneous(points1) @ F.T
        lines1 = _homogeneous(points2) @ F
        normals1 = (lines2[:, :2] ** 2).sum(axis=1)
        normals2 = (lines1[:, :2] ** 2).sum(axis=1)
        # any multiple of F is the same geometry; float32 needs one of moderate size
        scale = np.nanmean(normals1) if np.isfinite(normals1).any() else 1.0
        return EpipolarBand(
            lines=_tensor(lines2 / np.sqrt(scale)),
            points=_tensor(_homogeneous(points2).T),
            limits1=_tensor(max_error**2 * normals1[:, None] / scale),
            limits2=_tensor(max_error**2 * normals2 / scale),
        )

    def allowed(self, start: int, end: int) -> Tensor:
        """See Geometry."""
        residuals = self.lines[start:end] @ self.points
        return residuals.square_() <= self.limits1[start:end] + self.limits2


@dataclass(frozen=True, kw_only=True, eq=False)
class HomographyRadius:
    """Keypoints by their distance to each other's projection, in both images.

    Attributes:
        projected1, points2: (N, 2) and (M, 2) float32 in the second image.
        points1, projected2: likewise in the first.
        radius: in pixels.
    """

    projected1: Tensor
    points2: Tensor
    points1: Tensor
    projected2: Tensor
    radius: float

    @staticmethod
    def of(
        points1: DoubleArray, points2: DoubleArray, H: DoubleArray, radius: float
    ) -> HomographyRadius:
        """The surroundings of projections.

        Args:
            points1, points2: (N, 2) and (M, 2) pixels.
            H: (3, 3) invertible, with x2 = H x1.
            radius: in pixels.
        """
        return HomographyRadius(
            projected1=_tensor(_projected(points1, H)),
            points2=_tensor(points2),
            points1=_tensor(points1),
            projected2=_tensor(
                _projected(points2, np.linalg.inv(H).astype(np.float64))
            ),
            radius=radius,
        )

    def allowed(self, start: int, end: int) -> Tensor:
        """See Geometry."""
        near = _within(self.projected1[start:end], self.points2, self.radius)
        return near & _within(self.points1[start:end], self.projected2, self.radius)


def match_guided(
    descriptors1: Tensor,
    descriptors2: Tensor,
    geometry: Geometry,
    known: IndexArray,
) -> PairMatches:
    """Match the most similar of the keypoints that a geometry allows.

    A match is one whose descriptors are each other's most similar of those allowed, and
    as similar as most known matches are, if there are any. The memory does not
    depend on the number of keypoints but for their own rows.

    Args:
        descriptors1: (N, D) float32, unit L2 norm; a row of zeros matches nothing.
        descriptors2: (M, D) likewise.
        geometry: of their keypoints.
        known: (K, 2) rows of matches that agree with the geometry.

    Returns:
        Matches by rising index of the first image, without those that share a keypoint
        with a known one; scores are cosine similarities.
    """
    rows, columns, similarities = _mutual_best(descriptors1, descriptors2, geometry)
    order = rows.argsort()
    rows, columns, similarities = rows[order], columns[order], similarities[order]
    pairs = torch.from_numpy(np.ascontiguousarray(known))
    alike = (descriptors1[pairs[:, 0]] * descriptors2[pairs[:, 1]]).sum(1)
    least = alike.quantile(UNLIKE_INLIERS) if len(alike) else -1.0
    keep = similarities >= least
    keep &= ~torch.isin(rows, pairs[:, 0]) & ~torch.isin(columns, pairs[:, 1])
    keep &= descriptors1[rows].any(1) & descriptors2[columns].any(1)
    return PairMatches(
        indices=torch.stack([rows[keep], columns[keep]], dim=1).numpy(),
        scores=similarities[keep].numpy(),
    )


def _mutual_best(
    first: Tensor, second: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and similarities of the pairs allowed that are each other's best.

    They are in order of columns; of equal similarities the lower index counts.
    """
    best = first.new_full((len(second),), -torch.inf)
    row_of_column = torch.full((len(second),), -1)
    step = block_rows(first, len(second))
    for start in range(0, len(first), step):
        block = first[start : start + step]
        allowed = geometry.allowed(start, start + len(block))
        rows, columns = allowed.nonzero(as_tuple=True)
        if len(rows) > DENSE * allowed.numel():
            similarities = (block @ second.T)[allowed]
        else:
            similarities = _similarities(block, second, rows, columns)
        of_row = _first_best(rows, similarities, len(block))
        of_column = _first_best(columns, similarities, len(second))
        pairs = of_column[of_column < len(rows)]
        # strictly: of equal maxima the earlier block's stays
        pairs = pairs[similarities[pairs] > best[columns[pairs]]]
        found = columns[pairs]
        best[found] = similarities[pairs]
        points_back = of_row[rows[pairs]] == pairs
        row_of_column[found] = torch.where(points_back, rows[pairs] + start, -1)
    columns = (row_of_column >= 0).nonzero()[:, 0]
    return row_of_column[columns], columns, best[columns]


def _similarities(
    first: Tensor, second: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """(K,) products of rows of two matrices, some at a time."""
    parts = -(-len(rows) // COMPARED_AT_ONCE) or 1
    indices = zip(rows.tensor_split(parts), columns.tensor_split(parts))
    return torch.cat([(first[i] * second[j]).sum(1) for i, j in indices])


def _first_best(groups: Tensor, values: Tensor, count: int) -> Tensor:
    """(count,) index of the first of the largest values of each group.

    It is the number of values where a group has none.
    """
    largest = values.new_full((count,), -torch.inf)
    largest.scatter_reduce_(0, groups, values, "amax")
    ties = (values == largest[groups]).nonzero()[:, 0]
    first = torch.full((count,), len(values))
    return first.scatter_reduce_(0, groups[ties], ties, "amin")


def _homogeneous(points: DoubleArray) -> DoubleArray:
    return np.column_stack([points, np.ones(len(points))])


def _projected(points: DoubleArray, H: DoubleArray) -> DoubleArray:
    """(N, 2) projections; infinite or NaN for points at infinity."""
    found = _homogeneous(points) @ H.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(found[:, :2] / found[:, 2:])


def _within(points: Tensor, others: Tensor, radius: float) -> Tensor:
    """(B, M) bool; differences first, since products of pixels are too coarse."""
    x = points[:, :1] - others[:, 0]
    y = points[:, 1:] - others[:, 1]
    return x.square_() + y.square_() <= radius**2


def _tensor(values: DoubleArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
