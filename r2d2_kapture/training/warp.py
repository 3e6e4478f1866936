"""Warps a map of the second image onto the first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp_map(values: Tensor, aflow: Tensor) -> tuple[Tensor, Tensor]:
    """Read a map, bilinearly, where the pixels of another image come to lie.

    Args:
        values: (B, C, H2, W2) map of image 2.
        aflow: (B, 2, H, W) position (x, y) in image 2 of each pixel of image 1, in
            pixels whose centre is the origin; NaN where unknown.

    Returns:
        (B, C, H, W) the map as seen from image 1: outside image 2 its nearest pixel,
        where unknown its last; and (B, 1, H, W) 1 where the position is known and lies
        inside image 2, else 0. Both of the type of ``values``.
    """
    last = aflow.new_tensor([values.shape[3] - 1, values.shape[2] - 1])
    xy = aflow.permute(0, 2, 3, 1)
    # a comparison with NaN is false
    known = ((xy >= 0) & (xy <= last)).all(dim=3)
    xy = torch.where(torch.isnan(xy), last, xy)
    # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's
    grid = (2 * xy / last.clamp(min=1) - 1).to(values.dtype)
    warped = F.grid_sample(values, grid, padding_mode="border", align_corners=True)
    return warped, known[:, None].to(values.dtype)
