"""Where cameras and keypoints count their pixels from, as the user gives it."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked
from r2d2_kapture.coordinates import CameraOrigin


@dataclass(frozen=True, kw_only=True)
class OriginConfig(Checked):
    """Pixel origins.

    Attributes:
        camera_origin: pixel origin of principal points: the ``center`` of the first
            pixel (kapture) or its ``corner`` (COLMAP); ``auto`` takes the origin stated
            in files, else infers it from principal points at (W / 2, H / 2) and from
            names of COLMAP's import.
        keypoint_origin: pixel origin of third-party keypoints: the ``center`` of the
            first pixel (R2D2, hloc) or its ``corner`` (COLMAP); ``auto`` takes the
            origin stated in files, else that of the cameras.
    """

    camera_origin: CameraOrigin = "auto"
    keypoint_origin: CameraOrigin = "auto"
