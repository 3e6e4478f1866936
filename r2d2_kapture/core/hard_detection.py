"""Hard detection of D2-Net: maxima across channels and across the image, refined.

Dusmanu et al., "D2-Net", CVPR 2019, section 3.1 and equation 3; the edge test and the
localization are those of Lowe, "Distinctive Image Features from Scale-Invariant
Keypoints", IJCV 2004, section 4, on the map of the detecting channel.

Second derivatives are taken where a maximum was found and in its channel only: those of
all channels, as the published extractor has them, are maps 5 times as large as the
features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r2d2_kapture.coordinates import HALF_PIXEL

EDGE_THRESHOLD = 5.0
"""Largest ratio of the principal curvatures of a keypoint."""

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Maxima of a feature map.

    Attributes:
        rows, columns: (N,) int64, cell of the map.
        channels: (N,) int64, the channel that detects.
        patches: (N, 3, 3) float32, that channel around the cell; 0 outside of the map.
    """

    rows: Tensor
    columns: Tensor
    channels: Tensor
    patches: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def values(self) -> Tensor:
        """(N,) float32, the maxima."""
        return self.patches[:, 1, 1]

    def take(self, index: Tensor) -> Peaks:
        """Some of the peaks, by positions or by a mask."""
        return Peaks(
            **{name: value[index] for name, value in vars(self).items()}  # noqa: C416
        )


def find_peaks(features: Tensor) -> Peaks:
    """Find cells whose largest channel is largest among the 8 neighbours, and no edge.

    Of channels that tie at a cell the first one counts.

    Args:
        features: (H, W, D), any float type.

    Returns:
        The peaks in raster order.
    """
    height, width, _ = features.shape
    values, channels = features.max(dim=2)
    is_peak = torch.ones_like(values, dtype=torch.bool)
    for dy, dx in NEIGHBOURS:
        here = _overlap(height, -dy), _overlap(width, -dx)
        there = _overlap(height, dy), _overlap(width, dx)
        neighbours = features[there].gather(2, channels[here][:, :, None])[:, :, 0]
        is_peak[here] &= values[here] >= neighbours
    rows, columns = torch.nonzero(is_peak, as_tuple=True)
    detecting = channels[rows, columns]
    peaks = Peaks(
        rows=rows,
        columns=columns,
        channels=detecting,
        patches=_patches(features, rows, columns, detecting),
    )
    return peaks.take(_is_blob(peaks.patches))


def _overlap(length: int, step: int) -> slice:
    """Cells that remain within ``length`` when moved back by ``step``."""
    return slice(max(step, 0), length + min(step, 0))


def _patches(
    features: Tensor, rows: Tensor, columns: Tensor, channels: Tensor
) -> Tensor:
    """(N, 3, 3) float32 values of one channel each; 0 outside of the map."""
    height, width, dim = features.shape
    step = torch.arange(-1, 2, device=features.device)
    y = (rows[:, None] + step)[:, :, None]
    x = (columns[:, None] + step)[:, None, :]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    cells = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    index = cells * dim + channels[:, None, None]
    return torch.where(inside, features.reshape(-1)[index].float(), 0.0)


def strongest_patches(features: Tensor) -> Tensor:
    """Of every cell, its largest channel in the 3x3 cells around it.

    Args:
        features: (H, W, D), any float type.

    Returns:
        (H, W, 3, 3) float32, 0 outside of the map.
    """
    height, width, _ = features.shape
    cells = torch.arange(height * width, device=features.device)
    channels = features.argmax(dim=2).flatten()
    patches = _patches(features, cells // width, cells % width, channels)
    return patches.view(height, width, 3, 3)


def localize(peaks: Peaks) -> tuple[Peaks, Tensor]:
    """Move peaks to the extremum of the quadratic through their patch: -H^-1 g.

    Those whose extremum is half a cell away or more are left out: it belongs to another
    cell. So is the second of two that tie side by side: neighbours that are maxima of
    one channel both have the same value. In float32 that does not happen but on flat
    areas; values of 16 bits tie often, and would give two keypoints of one place.

    Args:
        peaks: in raster order.

    Returns:
        The peaks that stay, and their offsets in cells, (N, 2) float32, row then
        column.
    """
    patches = peaks.patches
    dii, djj, dij = _second_derivatives(patches)
    di = (patches[:, 2, 1] - patches[:, 0, 1]) / 2
    dj = (patches[:, 1, 2] - patches[:, 1, 0]) / 2
    steps = torch.stack([dij * dj - djj * di, dij * di - dii * dj], dim=1)
    offsets = steps / (dii * djj - dij * dij)[:, None]
    near = (offsets.abs() < HALF_PIXEL).all(dim=1)
    peaks, offsets = peaks.take(near), offsets[near]
    alone = ~_follows_a_twin(peaks)
    return peaks.take(alone), offsets[alone]


def _follows_a_twin(peaks: Peaks) -> Tensor:
    """Whether a neighbour before a peak in the raster is one of its channel: (N,)."""
    rows, columns, channels = peaks.rows, peaks.columns, peaks.channels
    if not len(peaks):
        return torch.zeros_like(rows, dtype=torch.bool)
    # a border of one cell all around, where nothing is
    size = int(rows.max()) + 3, int(columns.max()) + 3
    taken = torch.full(size, -1, device=rows.device)
    taken[rows + 1, columns + 1] = channels
    before = [
        taken[rows + 1 + dy, columns + 1 + dx]
        for dy, dx in NEIGHBOURS
        if (dy, dx) < (0, 0)
    ]
    return (torch.stack(before) == channels).any(dim=0)


def _is_blob(patches: Tensor) -> Tensor:
    """Whether a patch curves alike in both directions, unlike one on an edge: (N,)."""
    dii, djj, dij = _second_derivatives(patches)
    determinant = dii * djj - dij * dij
    trace = dii + djj
    limit = (EDGE_THRESHOLD + 1) ** 2 / EDGE_THRESHOLD
    return (determinant > 0) & (trace * trace / determinant <= limit)


def _second_derivatives(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along rows, along columns, and across; (N,) each."""
    centre = patches[:, 1, 1]
    dii = patches[:, 0, 1] - 2 * centre + patches[:, 2, 1]
    djj = patches[:, 1, 0] - 2 * centre + patches[:, 1, 2]
    corners = patches[:, 0, 0] - patches[:, 0, 2] - patches[:, 2, 0] + patches[:, 2, 2]
    return dii, djj, corners / 4
