"""Where the keypoints of both images of a pair lie, to a fraction of a pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from r2d2_kapture.core.selection import local_maxima, subpixel_offsets

SEARCH = 1
"""Pixels along each axis from where a keypoint should be to its maximum."""


def reprojection_loss(
    repeatability1: Tensor,
    repeatability2: Tensor,
    aflow: Tensor,
    *,
    least: float,
    border: int,
) -> tuple[Tensor, int]:
    """Mean distance between keypoints of image 2 and those of image 1, carried there.

    The reprojection loss of Zhao et al., "ALIKE: Accurate and Lightweight Keypoint
    Detection and Descriptor Extraction", IEEE TMM 2022, section III-C, of the sub-pixel
    fit of the extractor. Keypoints with none nearby in image 2 do not count.

    Args:
        repeatability1: (B, 1, H, W) of the first images, 0 to 1.
        repeatability2: (B, 1, H, W) of the second images.
        aflow: (B, 2, H, W) position in image 2 of each pixel of image 1, or NaN.
        least: repeatability of a keypoint.
        border: pixels along the border without keypoints, 2 at least.

    Returns:
        The mean, in pixels of image 2, 0 where no keypoint counts, and their number.
    """
    height, width = repeatability1.shape[2:]
    # one tall map of all images: what lies at their borders does not count
    tall1, tall2 = repeatability1.flatten(0, 2), repeatability2.flatten(0, 2)
    rows, columns = local_maxima(
        tall1.detach(), tall1.detach(), reliability_thr=0, repeatability_thr=least
    )
    pixels = torch.stack([columns, rows % height], dim=1)
    inside = _inside(pixels, (width, height), border)
    rows, columns, pixels = rows[inside], columns[inside], pixels[inside]
    images = rows.div(height, rounding_mode="floor")
    points = pixels + subpixel_offsets(tall1, rows, columns)
    # first without slopes: 0 times the slope of what is unknown would be NaN
    targets = sample_rows(aflow, images, points.detach())
    seen = _inside(targets, (width, height), border + SEARCH)
    images = images[seen]
    targets = sample_rows(aflow, images, points[seen])

    nearest, found = _nearest_maxima(tall2.detach(), images * height, targets, least)
    nearest, targets = nearest[found], targets[found]
    y = nearest[:, 1] + (images * height)[found]
    offsets = subpixel_offsets(tall2, y, nearest[:, 0])
    squared = ((nearest + offsets - targets) ** 2).sum(dim=1)
    # the root of 0 has no slope
    distances = torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)
    return distances.sum() / max(len(distances), 1), len(distances)


@torch.no_grad()
def best_maxima(
    repeatability: Tensor,
    per_image: int,
    border: int,
    *,
    scores: Tensor | None = None,
) -> Tensor:
    """Where the best maxima of each image are, to a fraction of a pixel.

    Args:
        repeatability: (B, 1, H, W), 0 to 1.
        per_image: how many, at most H * W.
        border: pixels along the border without any, 2 at least.
        scores: (B, 1, H, W), 0 to 1, the higher the better; by default the
            repeatability.

    Returns:
        (B, per_image, 2) positions (x, y); NaN where an image has fewer.
    """
    batch, _, height, width = repeatability.shape
    tall = repeatability.flatten(0, 2)
    rows, columns = local_maxima(tall, tall, reliability_thr=0, repeatability_thr=0)
    pixels = torch.stack([columns, rows % height], dim=1)
    inside = _inside(pixels, (width, height), border)
    rows, columns = rows[inside], columns[inside]
    heights = torch.zeros_like(tall)
    worth = tall if scores is None else scores.flatten(0, 2)
    heights[rows, columns] = worth[rows, columns]
    found, place = heights.view(batch, -1).topk(per_image)
    y, x = place.div(width, rounding_mode="floor"), place % width
    tops = torch.arange(batch, device=y.device)[:, None] * height
    offsets = subpixel_offsets(tall, (y + tops).flatten(), x.flatten())
    points = torch.stack([x, y], dim=2) + offsets.view(batch, per_image, 2)
    return torch.where(found[..., None] > 0, points, torch.nan)


def sample_rows(maps: Tensor, images: Tensor, points: Tensor) -> Tensor:
    """Read maps bilinearly at points.

    Args:
        maps: (B, C, H, W), fastest when channels-last.
        images: (N,) int64, the map of each point.
        points: (N, 2) positions (x, y) between the outermost pixels' centres.

    Returns:
        (N, C) in the precision of the points; NaN where a neighbour is NaN.
    """
    _, channels, height, width = maps.shape
    flat = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    last = points.new_tensor([width - 2, height - 2])
    corner = torch.minimum(points.detach().floor(), last)
    right, down = (points - corner)[:, :, None].unbind(dim=1)
    x, y = corner.long().unbind(dim=1)
    first = (images * height + y) * width + x

    def at(step: int) -> Tensor:
        return flat.index_select(0, first + step).to(points.dtype)

    top = torch.lerp(at(0), at(1), right)
    return torch.lerp(top, torch.lerp(at(width), at(width + 1), right), down)


def _inside(points: Tensor, size: tuple[int, int], border: int) -> Tensor:
    """(N,) bool; NaN is not."""
    last = points.new_tensor(size) - 1 - border
    return ((points >= border) & (points <= last)).all(dim=1)


def _nearest_maxima(
    tall: Tensor, tops: Tensor, targets: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """The maximum next to each target.

    Args:
        tall: (B * H, W) maps of all images.
        tops: (N,) int64, first row of the image of each target.
        targets: (N, 2) positions (x, y) in their image.
        least: value of a maximum.

    Returns:
        (N, 2) int64 pixels (x, y) of the image, and (N,) bool, whether there is one.
    """
    rows, columns = local_maxima(tall, tall, reliability_thr=0, repeatability_thr=least)
    is_maximum = torch.zeros_like(tall, dtype=torch.bool)
    is_maximum[rows, columns] = True
    steps = torch.arange(-SEARCH, SEARCH + 1, device=targets.device)
    shifts = torch.cartesian_prod(steps, steps)
    around = targets.detach().round().long()[:, None] + shifts
    distances = (around - targets.detach()[:, None]).norm(dim=2)
    there = is_maximum[around[..., 1] + tops[:, None], around[..., 0]]
    best, choice = distances.masked_fill(~there, torch.inf).min(dim=1)
    chosen = around.gather(1, choice[:, None, None].expand(-1, 1, 2))[:, 0]
    return chosen, best.isfinite()
