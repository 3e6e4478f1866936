"""ALIKED, whose free weights a network may learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.core.pyramid import DEVIATION, MEAN
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.aliked import load_aliked
from r2d2_kapture.models.files import sha256_of

RADIUS = 2
"""Pixels around a keypoint in which it is the maximum, as published."""
NO_THRESHOLD = -1.0
"""Keeps all maxima above the mean score of their image."""
AROUND = 4
"""Pixels around a point in which the best score counts."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a teacher says of some points.

    Attributes:
        images: (N,) int64, the image of each.
        points: (N, 2) float32 positions (x, y), sub-pixel, (0, 0) at the centre of the
            top-left pixel.
        descriptors: (N, E) float32, unit L2 norm.
        scores: (N,) float32, the best score within a few pixels of the point, 0 to 1.
    """

    images: Tensor
    points: Tensor
    descriptors: Tensor
    scores: Tensor


Teacher = Callable[[Tensor, int, Tensor], Taught]
"""A network that detects and describes, and does not learn; see AlikedTeacher."""


class AlikedTeacher:
    """ALIKED (Zhao et al., IEEE TIM 2023) in kornia's implementation.

    Args:
        network: a kornia.feature.ALIKED without threshold, in evaluation mode.
        sha256: of its weights.
    """

    def __init__(self, network: nn.Module, sha256: str) -> None:
        self._network: Any = network
        self.sha256 = sha256

    @torch.no_grad()
    def __call__(self, images: Tensor, per_image: int, extra: Tensor) -> Taught:
        """Its best keypoints, and what it makes of the extra points.

        Args:
            images: (B, 3, H, W) float32 RGB, normalised by normalize_rgb.
            per_image: most keypoints of each.
            extra: (B, R, 2) further points to describe.
        """
        network = self._network.to(images.device)
        mean, deviation = images.new_tensor([MEAN, DEVIATION])[:, :, None, None]
        with torch.autocast(images.device.type, enabled=False):
            features, score_map = network.extract_dense_map(images * deviation + mean)
            keypoints, found_scores, _ = network.dkd(score_map)
            last = images.new_tensor([images.shape[3] - 1, images.shape[2] - 1])
            best = [
                found.argsort(descending=True)[:per_image] for found in found_scores
            ]
            points = [
                torch.cat([found[rank], 2 * more / last - 1])
                for found, rank, more in zip(keypoints, best, extra)
            ]
            descriptors, _ = network.desc_head(features, points)
        counts = torch.tensor([len(places) for places in points], device=last.device)
        image = torch.arange(len(points), device=last.device).repeat_interleave(counts)
        places = (torch.cat(points) + 1) / 2 * last
        x, y = places.round().long().unbind(dim=1)
        around = F.max_pool2d(score_map, 2 * AROUND + 1, stride=1, padding=AROUND)
        return Taught(
            images=image,
            points=places,
            descriptors=torch.cat(descriptors),
            scores=around[image, 0, y, x],
        )


def load_teacher(path: Path) -> AlikedTeacher:
    """Load weights of ALIKED-n16 or n32.

    Raises:
        ConfigError: kornia, which has the network, is not installed.
        CheckpointError: the file is not there, or holds no such weights.
    """
    try:
        network = load_aliked(
            path,
            f"--teacher {path}",
            detection_threshold=NO_THRESHOLD,
            nms_radius=RADIUS,
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"--teacher {path}: found no weights of ALIKED, expected aliked-n16.pth "
            "or aliked-n32.pth as published"
        ) from error
    return AlikedTeacher(network, sha256_of(path))
