"""Matches of two images and their two-view geometry."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import kapture
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.match import MATCHERS
from r2d2_kapture.config.settings import make_settings, refuse_unknown
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.io.colmap.cameras import UNKNOWN_CAMERA, colmap_camera
from r2d2_kapture.matching.matcher import Matcher, build_matcher, match_features
from r2d2_kapture.stages.verify import add_guided, verify_matches
from r2d2_kapture.types import LocalFeatures, PairMatches

Cameras = tuple[pycolmap.Camera, pycolmap.Camera]

MODEL_OF_KIND = {
    "planar": "homography",
    "panoramic": "homography",
    "planar_or_panoramic": "homography",
    "uncalibrated": "fundamental matrix",
    "calibrated": "essential matrix",
    "calibrated_rig": "essential matrix",
}
"""The model of each of COLMAP's configurations."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedMatches:
    """Matches with a two-view geometry.

    Attributes:
        matches: all given matches, then those found by guided matching.
        inliers: (K,) bool, which matches agree with the geometry.
        geometry: pycolmap's, in COLMAP's pixel origin: configuration, F, E, H and, of
            known cameras, cam2_from_cam1.
    """

    matches: PairMatches
    inliers: npt.NDArray[np.bool_]
    geometry: pycolmap.TwoViewGeometry

    @property
    def kind(self) -> str:
        """COLMAP's name of the geometry: ``planar``, ``uncalibrated``, ..."""
        return str(
            pycolmap.TwoViewGeometryConfiguration(self.geometry.config).name
        ).lower()

    @property
    def model(self) -> str | None:
        """The estimated model: ``homography``, ``fundamental matrix`` or ``essential
        matrix``; None without an estimate."""
        return MODEL_OF_KIND.get(self.kind)

    @property
    def homography(self) -> npt.NDArray[np.float64] | None:
        """(3, 3), from image 1 to image 2 in COLMAP's pixel origin, for planar scenes
        and pure rotation; else None."""
        return self.geometry.H if self.model == "homography" else None

    @property
    def inlier_matches(self) -> PairMatches:
        """The matches that are inliers."""
        return PairMatches(
            indices=self.matches.indices[self.inliers],
            scores=self.matches.scores[self.inliers],
        )

    def __repr__(self) -> str:
        """Counts and the geometry, not the arrays."""
        return (
            f"VerifiedMatches({len(self)} inliers of {len(self.matches)} matches, "
            f"{self.model or 'no geometry'})"
        )

    def __len__(self) -> int:
        return int(self.inliers.sum())


def match(
    features1: LocalFeatures,
    features2: LocalFeatures,
    *,
    matcher: str | Matcher = "mutual_nearest",
    device: str = "cpu",
    **settings: Any,
) -> PairMatches:
    """Match two images.

    Args:
        features1, features2: of the images, from the same extractor.
        matcher: name of a matcher of docs/python.md, or a matcher on that device.
        device: torch device of the matcher.
        settings: of the named matcher, as ``ratio=0.9`` of mutual_nearest or
            ``temperature=0.02`` of dual_softmax.

    Raises:
        ConfigError: no such matcher, or a setting out of its range.
        FeatureFormatError: descriptors of different lengths.
    """
    if isinstance(matcher, str):
        made: Any = make_settings(MATCHERS.settings_of(matcher), settings)
        matcher = build_matcher(made, device)
    else:
        refuse_unknown(settings, [])
    return match_features(matcher, features1, features2, device=device)


def verify(
    features1: LocalFeatures,
    features2: LocalFeatures,
    matches: PairMatches,
    *,
    cameras: Cameras | None = None,
    max_error: float = 4.0,
    min_inliers: int = 15,
    seed: int = 0,
    guided: bool = False,
) -> VerifiedMatches:
    """Estimate the two-view geometry of matches by RANSAC, with its inliers.

    Args:
        features1, features2: of the images.
        matches: between them.
        cameras: in COLMAP's pixel origin; None estimates a fundamental matrix or a
            homography, known cameras an essential matrix and the relative pose.
        max_error: greatest distance in pixels of a match to its epipolar line, or to
            its position under a homography.
        min_inliers: with fewer inliers, none is kept.
        seed: of the sampling; results are reproducible.
        guided: match once more near epipolar lines, see ``--guided`` of
            kapture_r2d2_verify; these matches follow the given ones.

    Raises:
        ConfigError: a setting out of its range, or a camera of another size.
        FeatureFormatError: matches of keypoints that do not exist.
    """
    config = VerifyConfig(
        max_error=max_error, min_inliers=min_inliers, seed=seed, guided=guided
    )
    return verify_by(config, features1, features2, matches, cameras)


def verify_by(
    config: VerifyConfig,
    features1: LocalFeatures,
    features2: LocalFeatures,
    matches: PairMatches,
    cameras: Cameras | None,
) -> VerifiedMatches:
    """As ``verify``, with all settings of verification."""
    matches.check_counts(("image 1", "image 2"), (len(features1), len(features2)))
    first, second = _cameras(cameras, features1, features2)
    xy1, xy2 = (
        colmap_from_kapture(features.keypoints).astype(np.float32)
        for features in (features1, features2)
    )
    rows = matches.indices.astype(np.uint32)
    found = verify_matches((first, second), (xy1, xy2), rows, None, config)
    if config.guided and len(found.inlier_matches):
        found, matches = add_guided(
            (first, second),
            (xy1, xy2),
            (features1.unit_descriptors, features2.unit_descriptors),
            matches,
            found,
            None,
            config,
        )
    if cameras is not None and len(found.inlier_matches):
        pycolmap.estimate_two_view_geometry_pose(
            first, xy1.astype(np.float64), second, xy2.astype(np.float64), found
        )
    return with_geometry(matches, found)


def with_geometry(
    matches: PairMatches, geometry: pycolmap.TwoViewGeometry
) -> VerifiedMatches:
    """Matches with a geometry estimated from them, which lists the inliers."""
    kept = set(map(tuple, geometry.inlier_matches.tolist()))
    inliers = np.array([tuple(row) in kept for row in matches.indices.tolist()], bool)
    return VerifiedMatches(matches=matches, inliers=inliers, geometry=geometry)


def _cameras(
    known: Cameras | None,
    features1: LocalFeatures,
    features2: LocalFeatures,
) -> Cameras:
    """Known cameras, marked as such for COLMAP; else guesses."""
    cameras = known or (guessed_camera(features1), guessed_camera(features2))
    for camera, features in zip(cameras, (features1, features2)):
        require_size("cameras", camera, features)
    first, second = map(copy.deepcopy, cameras)
    first.has_prior_focal_length = second.has_prior_focal_length = known is not None
    return first, second


def require_size(name: str, camera: pycolmap.Camera, features: LocalFeatures) -> None:
    """Refuse a camera of images of another size.

    Raises:
        ConfigError: naming the argument.
    """
    size = (camera.width, camera.height)
    require(
        size == features.image_size,
        f"{name}: found one of {size[0]} x {size[1]} pixels for an image of "
        f"{features.image_size[0]} x {features.image_size[1]}, expected one size",
    )


def guessed_camera(features: LocalFeatures) -> pycolmap.Camera:
    """COLMAP's guess of an unknown camera, in its pixel origin."""
    return colmap_camera(
        kapture.Camera(UNKNOWN_CAMERA, list(features.image_size)), 1, "corner"
    )
