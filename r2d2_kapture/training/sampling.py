"""Reads maps between their pixels."""

from __future__ import annotations

import torch
from torch import Tensor


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
