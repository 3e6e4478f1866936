"""From dense maps to keypoints: local maxima, thresholds, sub-pixel fit, top-k."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.coordinates import HALF_PIXEL, image_from_level, pixel_that_holds

FIT_RADIUS = 2
"""Pixels along each axis that the sub-pixel fit reads around a maximum."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Keypoints found so far in one image.

    Attributes:
        xy: (N, 2) float32, pixels of the image, origin at the first pixel's centre.
        scales: (N,) float32, scale of the level each was found on.
        scores: (N,) float32.
        descriptors: (N, D) float32, unit L2 norm.
        order: (N,) int64, rank of the place (level, row, column); breaks ties.
    """

    xy: Tensor
    scales: Tensor
    scores: Tensor
    descriptors: Tensor
    order: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Tensor) -> Candidates:
        """The candidates at the given positions, in that order."""
        return Candidates(
            **{name: value[index] for name, value in vars(self).items()}  # noqa: C416
        )


def no_candidates(descriptor_dim: int, device: torch.device) -> Candidates:
    """Zero keypoints, with the right shapes."""
    return Candidates(
        xy=torch.zeros(0, 2, device=device),
        scales=torch.zeros(0, device=device),
        scores=torch.zeros(0, device=device),
        descriptors=torch.zeros(0, descriptor_dim, device=device),
        order=torch.zeros(0, dtype=torch.int64, device=device),
    )


def concatenate(parts: list[Candidates]) -> Candidates:
    """Join candidates of several levels or tiles of one image."""
    names = vars(parts[0])
    return Candidates(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


def best_first(scores: Tensor, order: Tensor, top_k: int) -> Tensor:
    """Positions of the ``top_k`` best scores (0: all), ties by ``order``.

    Args:
        scores: (N,) float.
        order: (N,) int64, distinct.

    Returns:
        (min(N, top_k),) int64.
    """
    by_place = torch.argsort(order)
    by_score = torch.argsort(scores[by_place], descending=True, stable=True)
    return by_place[by_score][: top_k or None]


def local_maxima(
    reliability: Tensor,
    repeatability: Tensor,
    *,
    reliability_thr: float,
    repeatability_thr: float,
) -> tuple[Tensor, Tensor]:
    """Find 3x3 maxima of repeatability where both maps reach their thresholds.

    Args:
        reliability, repeatability: (H, W) float32.

    Returns:
        rows and columns, (N,) int64 each, in raster order.
    """
    mask = maxima_mask(
        reliability,
        repeatability,
        reliability_thr=reliability_thr,
        repeatability_thr=repeatability_thr,
    )
    found_rows, found_columns = torch.nonzero(mask, as_tuple=True)
    return found_rows, found_columns


def maxima_mask(
    reliability: Tensor,
    repeatability: Tensor,
    *,
    reliability_thr: float,
    repeatability_thr: float,
) -> Tensor:
    """Where local_maxima are: (..., H, W) bool of (..., H, W) float32 maps."""
    padded = F.pad(repeatability, (1, 1, 1, 1), value=-torch.inf)
    rows = torch.maximum(
        torch.maximum(padded[..., :-2, :], padded[..., 1:-1, :]), padded[..., 2:, :]
    )
    neighbourhood = torch.maximum(
        torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:]
    )
    mask = repeatability >= neighbourhood
    mask &= repeatability >= repeatability_thr
    mask &= reliability >= reliability_thr
    return mask


def subpixel_offsets(repeatability: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Fit a quadratic surface around each maximum and find its peak.

    A weighted least-squares fit over 5x5 pixels (a Gaussian of 1 pixel), in place of
    the central differences of Brown and Lowe, "Invariant features from interest point
    groups", BMVC 2002, eq. 3: the peak is at -H^-1 g. The surface is that of the odds
    q / (1 - q), because q itself saturates towards 1 just where its peak is. Where
    there is no peak the offset is 0; it is held to half a pixel along each axis, and
    the map is continued by its border.

    Args:
        repeatability: (H, W) or (B, H, W) float32, 0 to 1.
        rows, columns: (N,) or (B, N) int64 positions of the maxima.

    Returns:
        (N, 2) or (B, N, 2) float32, x then y, in pixels of the map.
    """
    dx, dy, weights = quadratic_fit(repeatability.device)
    height, width = repeatability.shape[-2:]
    near_rows = (rows[..., None] + dy).clamp(0, height - 1)
    near_columns = (columns[..., None] + dx).clamp(0, width - 1)
    near = near_rows * width + near_columns
    window = repeatability.flatten(-2).gather(-1, near.flatten(-2)).view(near.shape)
    odds = window / (1 - window).clamp_min(torch.finfo(window.dtype).eps)
    # exactly flat where the map is
    odds = odds - odds[..., odds.shape[-1] // 2, None]
    # a product in float32 would round a row differently in another number of rows
    fit = odds.double() @ weights
    gx, gy, hxx, hxy, hyy = fit.float().unbind(dim=-1)
    determinant = hxx * hyy - hxy * hxy
    peak = (hxx < 0) & (hyy < 0) & (determinant > 1e-3 * hxx * hyy)
    peak &= determinant > 1e-5 * (hxx + hyy) ** 2  # a ridge has curvature across only
    safe = torch.where(peak, determinant, torch.ones_like(determinant))
    offsets = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1)
    offsets = (offsets / safe[..., None]).clamp(-HALF_PIXEL, HALF_PIXEL)
    return torch.where(peak[..., None], offsets, 0.0)


@functools.cache
def quadratic_fit(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the 5x5 samples of a fit are, and what makes a surface of them.

    Returns:
        (25,) int64 columns and rows relative to the maximum, and (25, 5) float64
        weights that turn the samples into gx, gy, hxx, hxy, hyy.
    """
    # made once: solving on a GPU takes longer than a level's maxima
    with torch.inference_mode(False):
        steps = torch.arange(-FIT_RADIUS, FIT_RADIUS + 1)
        dy, dx = (g.flatten() for g in torch.meshgrid(steps, steps, indexing="ij"))
        x, y = dx.double(), dy.double()
        ones = torch.ones_like(x)
        terms = torch.stack([ones, x, y, x * x / 2, x * y, y * y / 2], dim=1)
        weighted = terms * torch.exp(-(x * x + y * y) / 2)[:, None]
        solution = torch.linalg.solve(terms.T @ weighted, weighted.T)
        return dx.to(device), dy.to(device), solution[1:].T.to(device)


def unmasked(xy: Tensor, keep: Tensor) -> Tensor:
    """Whether points lie on pixels that a mask keeps.

    Args:
        xy: (N, 2) float, pixels of the image; beyond its border the nearest one counts.
        keep: (H, W) bool, of the image.

    Returns:
        (N,) bool.
    """
    height, width = keep.shape
    columns, rows = pixel_that_holds(xy.double()).long().unbind(dim=1)
    return keep[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]


def sample_descriptors(
    features: Tensor, x: Tensor, y: Tensor, doubled: bool = False
) -> Tensor:
    """Read and normalise descriptors at sub-pixel positions, by bilinear weights.

    Args:
        features: (h, w, D) or (B, h, w, D), any float type.
        x, y: (N,) or (B, N) float32 positions in pixels of the map, which has (h, w)
            pixels or, if ``doubled``, is this one enlarged twofold: bilinearly, borders
            aligned.

    Returns:
        (N, D) or (B, N, D) float32, unit L2 norm.
    """
    height, width, dim = features.shape[-3:]
    flat = features.reshape(-1, dim)
    above: Tensor | int = 0
    if features.dim() > 3:
        images = torch.arange(len(features), device=features.device)
        above = images[:, None] * (height * width)
    weights = _weights_of_doubled if doubled else _weights
    columns, rows = weights(x, width), weights(y, height)
    total = torch.zeros(*x.shape, dim, device=features.device)
    for row, down in rows:
        line = torch.zeros_like(total)
        for column, along in columns:
            index = above + row * width + column
            values = flat.index_select(0, index.flatten()).view(line.shape)
            line += values.float() * along[..., None]
        total += line * down[..., None]
    return F.normalize(total, dim=-1)


Weighted = list[tuple[Tensor, Tensor]]
"""Places along an axis, (..., N) int64, and their weights, (..., N) float32."""


def _weights(position: Tensor, length: int) -> Weighted:
    """The pixels that positions lie between; beyond the border the nearest counts."""
    first = position.floor().clamp(0, max(length - 2, 0))
    fraction = (position - first).clamp(0, 1)
    before = first.to(torch.int64)
    after = (before + 1).clamp_max(length - 1)
    return [(before, 1 - fraction), (after, fraction)]


def _weights_of_doubled(position: Tensor, length: int) -> Weighted:
    """The cells that the pixels are made of which positions lie between."""
    pixels = _weights(position, 2 * length)
    first = (pixels[0][0] - 1).div(2, rounding_mode="floor")
    found = []
    for cell in (first, first + 1, first + 2):
        weight = torch.zeros_like(position, dtype=torch.float32)
        for pixel, share in pixels:
            centre = image_from_level(pixel.float(), 2, 1, "corrected")
            weight += share * (1 - (centre - cell).abs()).clamp_min(0)
        found.append((cell.clamp(0, length - 1), weight))
    return found
