"""Windows of feature maps that are enlarged with aligned corners."""

from __future__ import annotations

import torch
from torch import Tensor


def upsample_window(
    features: Tensor, size: tuple[int, int], rows: slice, columns: slice
) -> Tensor:
    """Enlarge maps bilinearly, the centres of their corner cells kept in the corners.

    The same numbers as interpolation of the whole map, without the whole.

    Args:
        features: (B, h, w, D), any float type.
        size: rows and columns of the whole enlarged map.
        rows, columns: the window wanted, with start and stop.

    Returns:
        (B, rows, columns, D) float32.
    """
    top, bottom, down = _neighbours(features.shape[1], size[0], rows, features.device)
    left, right, along = _neighbours(
        features.shape[2], size[1], columns, features.device
    )
    first = int(left.min()) if len(left) else 0
    narrow = features[:, :, first : int(right.max()) + 1 if len(right) else 0]
    above, below = (narrow.index_select(1, i).float() for i in (top, bottom))
    between = above.lerp_(below, down[:, None, None])
    del below
    west, east = (between.index_select(2, i - first) for i in (left, right))
    return west.lerp_(east, along[:, None])


def _neighbours(
    length: int, target: int, window: slice, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every place of a window, the cells on either side and the second's weight."""
    places = torch.arange(window.start, window.stop, device=device)
    source = places.float() * ((length - 1) / (target - 1) if target > 1 else 0.0)
    lower = source.long().clamp_(max=length - 1)
    upper = (lower + 1).clamp_(max=length - 1)
    return lower, upper, source - lower
