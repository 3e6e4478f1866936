"""Resizing of a fixed size as sums of a few rows: the same weights in every runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """What each sample along an axis is the sum of.

    Attributes:
        indices: (N, K) int64, of the samples before.
        weights: (N, K) float32.
    """

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


def resizing_taps(length: int, target: int, *, antialias: bool) -> Taps:
    """The taps with which torch resizes one axis bilinearly, read off an identity.

    Args:
        length: samples before.
        target: samples after.
        antialias: whether the filter is as wide as the samples after.
    """
    identity = torch.eye(length)[None, None]
    resized = F.interpolate(
        identity, (length, target), mode="bilinear", antialias=antialias
    )
    matrix = resized[0, 0].T.numpy()
    used = matrix != 0
    first = used.argmax(axis=1)
    width = int((length - used[:, ::-1].argmax(axis=1) - first).max())
    indices = np.minimum(first, length - width)[:, None] + np.arange(width)
    return Taps(
        indices=indices.astype(np.int64),
        weights=np.take_along_axis(matrix, indices, axis=1),
    )
