"""Settings of geometric verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.checks import require, require_choice
from r2d2_kapture.coordinates import CameraOrigin

GeometrySource = Literal["estimate", "known_poses"]


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Which matches agree with one geometry of their two images.

    Attributes:
        geometry: ``estimate`` finds each pair's geometry from its matches by RANSAC;
            ``known_poses`` takes it from the poses and cameras of the dataset.
        max_error: greatest distance in pixels of a match to its epipolar line
            (or from where a homography puts it).
        min_inliers: matches that a pair must keep; with fewer it keeps none.
        max_trials: most samples that RANSAC draws for a pair.
        seed: random seed of RANSAC; the result is the same for any number of workers.
        camera_mode: which images of unknown cameras (UNKNOWN_CAMERA, as photographs
            without EXIF data have) share one: ``auto`` those of one sensor of the
            dataset; ``single`` all of one size; ``per-folder`` those of one folder and
            size; ``per-image`` none. Cameras that are known, and those of rigs, are
            never joined.
        camera_origin: where principal points count from: the ``center`` of the first
            pixel (kapture) or its ``corner`` (COLMAP); ``auto`` takes what files say,
            and else looks for (W / 2, H / 2) and for names of COLMAP's import.
        keypoint_origin: where the pixels of third-party keypoints count from: the
            ``center`` of the first one (R2D2, hloc) or its ``corner`` (COLMAP);
            ``auto`` takes what files say, and else where the cameras count from.
    """

    geometry: GeometrySource = "estimate"
    max_error: float = 4.0
    min_inliers: int = 15
    max_trials: int = 10_000
    seed: int = 0
    camera_mode: CameraMode = "auto"
    camera_origin: CameraOrigin = "auto"
    keypoint_origin: CameraOrigin = "auto"

    def __post_init__(self) -> None:
        require_choice("--geometry", self.geometry, GeometrySource)
        require_choice("--camera-mode", self.camera_mode, CameraMode)
        require_choice("--camera-origin", self.camera_origin, CameraOrigin)
        require_choice("--keypoint-origin", self.keypoint_origin, CameraOrigin)
        require(
            self.max_error > 0, f"--max-error: found {self.max_error}, expected > 0"
        )
        require(
            self.min_inliers >= 1,
            f"--min-inliers: found {self.min_inliers}, expected 1 or more",
        )
        require(
            self.max_trials >= 1,
            f"--max-trials: found {self.max_trials}, expected 1 or more",
        )
        require(self.seed >= 0, f"--seed: found {self.seed}, expected 0 or more")
