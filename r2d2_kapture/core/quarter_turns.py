"""Quarter turns of images, and features of a turned image in stored pixels: exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import Turn, stored_from_turned
from r2d2_kapture.types import LocalFeatures

Pixel = TypeVar("Pixel", np.uint8, np.bool_)

NO_TURNS: Mapping[str, Turn] = MappingProxyType({})
"""Of images that are all extracted as stored."""


def turned(pixels: npt.NDArray[Pixel], turn: Turn) -> npt.NDArray[Pixel]:
    """Turn an image or a mask clockwise.

    Args:
        pixels: (H, W, ...) of any channels.
        turn: degrees; 0 returns the same array.

    Returns:
        C-contiguous; (W, H, ...) for 90 and 270.
    """
    if turn == 0:
        return pixels
    return np.ascontiguousarray(np.rot90(pixels, -turn // 90))


def in_stored_pixels(features: LocalFeatures, turn: Turn) -> LocalFeatures:
    """Features of an image that was ``turned``, in pixels of the image as stored.

    Their order, scales, scores and descriptors stay.
    """
    if turn == 0:
        return features
    width, height = features.image_size
    size = (height, width) if turn in (90, 270) else (width, height)
    xy = stored_from_turned(features.keypoints, turn, size)
    return dataclasses.replace(
        features, keypoints=xy.astype(np.float32), image_size=size
    )
