"""Settings of geometric verification."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.checks import bounded
from r2d2_kapture.config.origins import OriginConfig

GeometrySource = Literal["estimate", "known_poses"]


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(OriginConfig):
    """Settings of geometric verification.

    Attributes:
        geometry: ``estimate`` estimates each pair's geometry from its matches by
            RANSAC; ``known_poses`` computes it from the poses and cameras of the
            dataset.
        max_error: greatest distance in pixels of a match to its epipolar line (or to
            its position under a homography).
        min_inliers: least number of inliers of a pair; with fewer it keeps no match.
        max_trials: greatest number of RANSAC trials for a pair.
        seed: random seed of RANSAC; the result is the same for any number of workers.
        camera_mode: which images of unknown cameras (UNKNOWN_CAMERA, such as
            photographs without EXIF data) share one: ``auto`` those of the same sensor
            of the dataset; ``single`` all of the same size; ``per-folder`` those of the
            same folder and size; ``per-image`` none. Known cameras, and those of rigs,
            are never merged.
        guided: match the keypoints of pairs that have a geometry once more, by their
            descriptors within a band around epipolar lines (or a radius around
            projections by a homography), and estimate the geometry again from these
            matches too; it is kept if it has more inliers.
        guided_error: distance in pixels of that band, by Sampson's approximation.
    """

    geometry: GeometrySource = "estimate"
    max_error: float = bounded(4.0, above=0)
    min_inliers: int = bounded(15, at_least=1)
    max_trials: int = bounded(10_000, at_least=1)
    seed: int = bounded(0, at_least=0, below=2**31, note="0 to 2^31 - 1")
    camera_mode: CameraMode = "auto"
    guided: bool = False
    guided_error: float = bounded(1.0, above=0)

    def record(self) -> dict[str, Any]:
        """The settings that decide results: of guided matching only where it is on."""
        settings = dataclasses.asdict(self)
        if not self.guided:
            del settings["guided"], settings["guided_error"]
        return settings
