"""The levels of an image pyramid and the pixels on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from r2d2_kapture.config.extract import PyramidConfig
from r2d2_kapture.coordinates import ResizeMap, image_from_level

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of R, G and B in ImageNet."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One scale of the pyramid.

    Attributes:
        scale: size relative to the image, before rounding to whole pixels.
        height: rows of the level.
        width: columns of the level.
        searched: whether keypoints are wanted here, or the level only leads to the
            smaller ones.
    """

    scale: float
    height: int
    width: int
    searched: bool


def plan_levels(height: int, width: int, config: PyramidConfig) -> tuple[Level, ...]:
    """List the levels of an image, the image itself first.

    Scales are 1, 1/f, 1/f^2, ... as in Revaud et al., NeurIPS 2019, section 4.1. Where
    none of them lies within the limits (a small image, or a narrow range), the largest
    scale allowed is searched alone: a small image is searched at its own size.

    Args:
        height, width: of the image, in pixels.
        config: limits of scale and size; the size of a level is its longest side.
    """
    longest = max(height, width)
    tolerance = 0.001
    smallest = max(config.min_scale, config.min_size / longest)
    largest = min(config.max_scale, config.max_size / longest)
    levels = []
    scale = 1.0
    while scale + tolerance >= smallest and round(longest * scale) >= 1:
        searched = scale - tolerance <= largest
        levels.append(_level(height, width, scale, searched))
        scale /= config.scale_f
    if not any(level.searched for level in levels):
        return (
            _level(height, width, 1.0, largest >= 1),
            *([_level(height, width, largest, True)] if largest < 1 else []),
        )
    return tuple(levels)


def _level(height: int, width: int, scale: float, searched: bool) -> Level:
    return Level(
        scale=scale,
        height=max(1, round(height * scale)),
        width=max(1, round(width * scale)),
        searched=searched,
    )


def iterate_levels(
    images: Tensor, levels: tuple[Level, ...], coordinates: ResizeMap
) -> Iterator[tuple[Level, Tensor]]:
    """Yield every searched level with its pixels.

    Args:
        images: (B, 3, H, W) float32, any normalisation that commutes with averaging.
        levels: from plan_levels.
        coordinates: ``corrected`` filters each level from the full image by a triangle
            as wide as its pixels; ``published`` takes bilinear samples of the level
            above, as the published extractor does.

    Yields:
        The level and its (B, 3, height, width) pixels.
    """
    antialias = coordinates == "corrected"
    above = images
    for level in levels:
        if antialias and not level.searched:
            continue
        source = images if antialias else above
        shape = (level.height, level.width)
        above = (
            source
            if source.shape[-2:] == shape
            else F.interpolate(
                source,
                shape,
                mode="bilinear",
                align_corners=False,
                antialias=antialias,
            )
        )
        if level.searched:
            yield level, above


def normalize_rgb(pixels: Tensor) -> Tensor:
    """Turn (B, H, W, 3) uint8 RGB into (B, 3, H, W) float32 for the networks.

    The ImageNet mean and deviation are those the published weights were trained with.
    """
    mean = torch.tensor(MEAN, device=pixels.device)
    deviation = torch.tensor(DEVIATION, device=pixels.device)
    count, height, width, channels = pixels.shape
    images = torch.empty((count, channels, height, width), device=pixels.device)
    images.copy_(pixels.permute(0, 3, 1, 2)).div_(255)
    return images.sub_(mean.view(1, 3, 1, 1)).div_(deviation.view(1, 3, 1, 1))


def subtract_caffe_mean(pixels: Tensor) -> Tensor:
    """Turn (B, H, W, 3) uint8 RGB into (B, 3, H, W) float32 BGR about 0.

    The mean is that of ImageNet in the Caffe models of VGG16, in 0 to 255.
    """
    mean = torch.tensor([103.939, 116.779, 123.68], device=pixels.device)
    images = pixels.flip(3).permute(0, 3, 1, 2).float()
    return images.contiguous().sub_(mean.view(1, 3, 1, 1))


def shrink(
    image: npt.NDArray[np.uint8], max_edge: int, max_sum_edges: int = 0
) -> npt.NDArray[np.uint8]:
    """Shrink an image to limits by Pillow's bilinear filter, as wide as a pixel.

    The filter and its rounding to bytes are those of D2-Net's published extractor,
    which reached Pillow through SciPy; but it shrank twice where both limits apply.

    Args:
        image: (H, W, 3) uint8 RGB.
        max_edge: longest side in pixels; 0 is no limit.
        max_sum_edges: width + height in pixels; 0 is no limit.
    """
    height, width = image.shape[:2]
    limits = ((max_edge, max(height, width)), (max_sum_edges, height + width))
    excess = [(most, found) for most, found in limits if 0 < most < found]
    if not excess:
        return image
    most, found = min(excess, key=lambda limit: limit[0] / limit[1])
    size = max(width * most // found, 1), max(height * most // found, 1)
    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.array(pixels.resize(size, Image.Resampling.BILINEAR))


def to_stored(
    xy: Tensor, network_size: tuple[int, int], image_size: tuple[int, int]
) -> Tensor:
    """Positions in the image that the network was given as those in the stored one."""
    sides = [
        image_from_level(side, seen, stored, "corrected") if seen != stored else side
        for side, seen, stored in zip(xy.unbind(1), network_size, image_size)
    ]
    return torch.stack(sides, dim=1)
