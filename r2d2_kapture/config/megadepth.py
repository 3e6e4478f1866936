"""Settings of the preparation of MegaDepth, and of the selection of its pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked, bounded, require


@dataclass(frozen=True, kw_only=True)
class MegadepthConfig(Checked):
    """Settings of the preparation of MegaDepth.

    Attributes:
        max_image_size: longer side in pixels that larger undistorted images are
            downscaled to; 1600 for the published depth maps.
        depth_tolerance: largest relative difference between the depth of a 3D point and
            the depth map at its position; other points are not counted.
    """

    max_image_size: int = bounded(1600, at_least=1)
    depth_tolerance: float = bounded(0.1, above=0, below=math.inf)


@dataclass(frozen=True, kw_only=True)
class MegadepthPairs(Checked):
    """Selection of the training pairs of a prepared scene.

    Attributes:
        min_overlap_ratio: least share of the 3D points of one image that the other one
            observes too, as in D2-Net.
        max_overlap_ratio: largest such share.
        max_scale_ratio: largest change of scale between the two images; 0: any, as in
            D2-Net.
        pairs_per_scene: greatest number of pairs per scene, drawn once; D2-Net draws
            100 in each of 10 epochs.
    """

    min_overlap_ratio: float = 0.5
    max_overlap_ratio: float = 1.0
    max_scale_ratio: float = 0.0
    pairs_per_scene: int = bounded(1000, at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.min_overlap_ratio <= self.max_overlap_ratio <= 1,
            f"--min-overlap-ratio {self.min_overlap_ratio} --max-overlap-ratio "
            f"{self.max_overlap_ratio}: expected 0 < min <= max <= 1",
        )
        require(
            self.max_scale_ratio == 0 or 1 <= self.max_scale_ratio < math.inf,
            f"--max-scale-ratio: found {self.max_scale_ratio}, expected at least 1, or "
            "0 for any",
        )
