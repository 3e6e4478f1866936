"""Settings of mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import require, require_choice

MapMethod = Literal["auto", "triangulate", "incremental", "global"]
Calibration = Literal["auto", "none", "view_graph"]
Switch = bool | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """Settings of mapping.

    Attributes:
        method: ``triangulate`` keeps the poses of the dataset fixed, and leaves out
            images without a pose; ``incremental`` and ``global`` estimate all poses;
            ``auto`` triangulates if every image with verified matches has a pose, and
            is incremental if none has one.
        refine_intrinsics: let bundle adjustment change focal lengths and distortion;
            ``auto`` does so for cameras that the dataset does not know
            (UNKNOWN_CAMERA), or knows from EXIF only. ``global`` cannot hold single
            cameras, and refines all if there is one to refine.
        calibration: what guessed cameras begin with: ``none``, the guess (1.2 times the
            longest side); ``view_graph``, focal lengths that their pairs agree on, and
            only matches that agree with those; ``auto`` maps both ways (of more than
            100 images, those that connect best) and keeps what registers more images,
            then what more verified matches agree with.
        refine_rigs: if poses are unknown, let bundle adjustment refine the poses of
            cameras in their rig.
        two_view_tracks: keep points observed by only two keypoints; ``auto`` does so if
            poses are known.
        min_matches: least number of verified matches of a pair that is used.
        max_reprojection_error: largest reprojection error in pixels of an observation
            that is kept.
        min_angle: smallest angle in degrees between the rays of a point.
        min_model_size: least number of images of a model, if poses are unknown.
        seed: random seed.
        threads: threads of COLMAP, which affect the map as the seed does: results with
            another number may differ in the last digits, and in ``global`` they differ
            from run to run with more than 1.
    """

    method: MapMethod = "auto"
    refine_intrinsics: Switch = "auto"
    calibration: Calibration = "auto"
    refine_rigs: bool = False
    two_view_tracks: Switch = "auto"
    min_matches: int = 15
    max_reprojection_error: float = 4.0
    min_angle: float = 1.5
    min_model_size: int = 3
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        require_choice("--method", self.method, MapMethod)
        require_choice("--calibration", self.calibration, Calibration)
        for name in ("refine_intrinsics", "two_view_tracks"):
            value = getattr(self, name)
            require(
                value == "auto" or isinstance(value, bool),
                f"--{name.replace('_', '-')}: found {value!r}, expected true, false or "
                "auto",
            )
        for name in ("min_matches", "threads"):
            value = getattr(self, name)
            require(
                value >= 1,
                f"--{name.replace('_', '-')}: found {value}, expected 1 or more",
            )
        for name in ("max_reprojection_error", "min_angle"):
            value = getattr(self, name)
            require(
                value > 0, f"--{name.replace('_', '-')}: found {value}, expected > 0"
            )
        require(
            self.min_model_size >= 2,
            f"--min-model-size: found {self.min_model_size}, expected 2 or more",
        )
        require(self.seed >= 0, f"--seed: found {self.seed}, expected 0 or more")
