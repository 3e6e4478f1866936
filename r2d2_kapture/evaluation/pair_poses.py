"""Matches and relative poses of image pairs whose true geometry is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.evaluation.curves import share_within
from r2d2_kapture.evaluation.matched_points import MatchedPoints, ransac_options
from r2d2_kapture.evaluation.posed_images import PosedImage
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.matching.matcher import Matcher, match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.refinement.matches import register_matches
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
Points = npt.NDArray[np.float32]

EPIPOLAR_THRESHOLDS = (1.0, 2.0, 3.0)
"""Pixels, of the error to the true epipolar line."""

POSE_THRESHOLDS = (5.0, 10.0, 20.0)
"""Degrees, of the area under the curve of pose errors."""


@dataclass(frozen=True, kw_only=True)
class PairPoseResult:
    """How two images of known pose match.

    Attributes:
        image1, image2: their names.
        features: number of features of each.
        matches: number of matches.
        epipolar: share of matches within each of EPIPOLAR_THRESHOLDS; zeros where
            there are no matches.
        rotation_error: degrees; infinite where no relative pose was found.
        translation_error: degrees between directions, 0 to 90; infinite likewise.
    """

    image1: str
    image2: str
    features: tuple[int, int]
    matches: int
    epipolar: tuple[float, ...]
    rotation_error: float
    translation_error: float

    @property
    def pose_error(self) -> float:
        """The larger of both errors, degrees."""
        return max(self.rotation_error, self.translation_error)

    @property
    def values(self) -> dict[str, float]:
        """All numbers by name, such as ``epipolar@2``."""
        shares = zip(EPIPOLAR_THRESHOLDS, self.epipolar, strict=True)
        return {
            "features1": self.features[0],
            "features2": self.features[1],
            "matches": self.matches,
            **{f"epipolar@{threshold:g}": share for threshold, share in shares},
            "rotation_error": self.rotation_error,
            "translation_error": self.translation_error,
        }


def match_pair(
    image1: PosedImage,
    image2: PosedImage,
    features1: LocalFeatures,
    features2: LocalFeatures,
    matcher: Matcher = MutualNearest(),
    refine: RefineConfig | None = None,
) -> MatchedPoints:
    """Matches, by default mutual nearest neighbours, and their errors.

    With ``refine`` the second point of each is registered against the first.

    Raises:
        FeatureFormatError: the descriptors of the two have different dimensions.
        ImageError: an image to refine in cannot be read.
    """
    names = str(image1.path), str(image2.path)
    matches = match_features(matcher, features1, features2, images=names).indices
    points1 = features1.keypoints[matches[:, 0]]
    points2 = features2.keypoints[matches[:, 1]]
    if refine is not None:
        pixels = read_rgb(image1.path), read_rgb(image2.path)
        found = register_matches(*pixels, features1, features2, matches, refine)
        points2 = found.keypoints.astype(np.float32)
    errors = epipolar_errors(image1, image2, points1, points2)
    return MatchedPoints(points1=points1, points2=points2, errors=errors)


def evaluate_pair_pose(
    image1: PosedImage,
    image2: PosedImage,
    features1: LocalFeatures,
    features2: LocalFeatures,
    *,
    matcher: Matcher = MutualNearest(),
    refine: RefineConfig | None = None,
    ransac_error: float,
    seed: int,
) -> PairPoseResult:
    """Match two images, and measure the matches and the pose estimated from them.

    Args:
        image1, image2: with cameras at different places.
        features1, features2: of these images, centre origin.
        matcher: on the CPU.
        refine: how matches are refined before; None leaves them.
        ransac_error, seed: see relative_pose_errors.

    Raises:
        FeatureFormatError: the descriptors of the two have different dimensions.
        ImageError: an image to refine in cannot be read.
    """
    matched = match_pair(image1, image2, features1, features2, matcher, refine)
    rotation_error, translation_error = relative_pose_errors(
        image1,
        image2,
        matched.points1,
        matched.points2,
        ransac_error=ransac_error,
        seed=seed,
    )
    return PairPoseResult(
        image1=image1.name,
        image2=image2.name,
        features=(len(features1), len(features2)),
        matches=len(matched.errors),
        epipolar=tuple(share_within(matched.errors, EPIPOLAR_THRESHOLDS).tolist()),
        rotation_error=rotation_error,
        translation_error=translation_error,
    )


def epipolar_errors(
    image1: PosedImage, image2: PosedImage, points1: Points, points2: Points
) -> Array:
    """Distance of matched points to each other's true epipolar line.

    Lens distortion bends epipolar lines, so points are first moved to where a lens
    without distortion, of the same focal length and principal point, would see them.
    The error is the mean of the distance in image 2 from point 2 to the line of point
    1 and the distance in image 1 from point 1 to the line of point 2 (Hartley and
    Zisserman, Multiple View Geometry, 2nd edition, section 11.4.3 without the squares).

    Args:
        image1, image2: with cameras at different places.
        points1, points2: (K, 2) pixels, (0, 0) at the centre of the top-left pixel.

    Returns:
        (K,) float64 pixels; infinite where a point is an epipole or has no undistorted
        place.
    """
    x1, x2 = _undistorted(image1, points1), _undistorted(image2, points2)
    cam2_from_cam1 = image2.cam_from_world * image1.cam_from_world.inverse()
    E = _cross_matrix(cam2_from_cam1.translation) @ cam2_from_cam1.rotation.matrix()
    K1, K2 = (image.camera.calibration_matrix() for image in (image1, image2))
    F = np.linalg.inv(K2).T @ E @ np.linalg.inv(K1)
    lines2, lines1 = x1 @ F.T, x2 @ F
    residuals = np.abs((x2 * lines2).sum(axis=1))
    lengths = [np.linalg.norm(lines[:, :2], axis=1) for lines in (lines1, lines2)]
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.mean([residuals / length for length in lengths], axis=0)
    return np.where(np.isnan(errors), np.inf, errors)


def relative_pose_errors(
    image1: PosedImage,
    image2: PosedImage,
    points1: Points,
    points2: Points,
    *,
    ransac_error: float,
    seed: int,
) -> tuple[float, float]:
    """Angles between the estimated and the true relative pose.

    The estimator is pycolmap.estimate_essential_matrix on the matches and the true
    cameras, with ransac_options. The errors are those of SuperGlue (Sarlin et al., CVPR
    2020, section 5.2): the angle of the rotation between both, and the angle between
    the directions of translation, where opposite directions are one, since an essential
    matrix has no sign.

    Args:
        image1, image2: with cameras at different places.
        points1, points2: (K, 2) matched pixels, centre origin.
        ransac_error: distance in pixels to the epipolar line up to which a match is an
            inlier.
        seed: of the random sampling.

    Returns:
        Rotation and translation error in degrees; infinite where there is no estimate.
    """
    estimate = pycolmap.estimate_essential_matrix(
        colmap_from_kapture(points1.astype(np.float64)),
        colmap_from_kapture(points2.astype(np.float64)),
        image1.camera,
        image2.camera,
        ransac_options(ransac_error, seed),
    )
    if estimate is None:
        return float("inf"), float("inf")
    true = image2.cam_from_world * image1.cam_from_world.inverse()
    found = estimate["cam2_from_cam1"]
    turn = found.rotation * true.rotation.inverse()
    return float(np.degrees(turn.angle())), _angle_between_lines(
        found.translation, true.translation
    )


def _undistorted(image: PosedImage, points: Points) -> Array:
    """(K, 3) homogeneous pixels in COLMAP's origin, as without distortion."""
    pixels = colmap_from_kapture(points.astype(np.float64))
    rays = image.camera.cam_from_img(pixels)
    return np.asarray(
        np.column_stack([rays, np.ones(len(rays))])
        @ image.camera.calibration_matrix().T
    )


def _cross_matrix(vector: Array) -> Array:
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _angle_between_lines(first: Array, second: Array) -> float:
    """Degrees, 0 to 90."""
    along = abs(float(first @ second))
    across = float(np.linalg.norm(np.cross(first, second)))
    return float(np.degrees(np.arctan2(across, along)))
