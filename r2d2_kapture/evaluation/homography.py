"""Matching accuracy on image sequences related by known homographies.

The protocol of D2-Net (Dusmanu et al., CVPR 2019) on HPatches (Balntas et al., CVPR
2017), which R2D2 (Revaud et al., NeurIPS 2019) follows: mutual nearest neighbours
between image 1 and each other image of a sequence; a match is correct within a
threshold in pixels of the point that the homography predicts; every pair has the same
weight in the means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.evaluation.curves import share_within
from r2d2_kapture.evaluation.homography_accuracy import corner_error
from r2d2_kapture.evaluation.matched_points import MatchedPoints
from r2d2_kapture.evaluation.matching_score import matching_score
from r2d2_kapture.evaluation.projection import transfer_errors
from r2d2_kapture.evaluation.repeatability import repeatability
from r2d2_kapture.evaluation.sequences import HomographySequence, Kind
from r2d2_kapture.matching.matcher import Matcher, match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]

THRESHOLDS = tuple(float(pixels) for pixels in range(1, 11))
"""Pixels, of the accuracy, the repeatability and the matching score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairResult:
    """How image 1 of a sequence and another match.

    Attributes:
        sequence: name of the sequence.
        kind: what changes in it.
        image: number of the second image, 2 to n.
        features: number of features in image 1 and in the second image.
        matches: number of matches.
        mma: (T,) float64, share of correct matches at each threshold.
        repeatability: (T,) float64, share of keypoints found again.
        matching_score: (T,) float64, share of keypoints matched correctly.
        corner_error: pixels, of the homography estimated from the matches; infinite
            where there is none.
    """

    sequence: str
    kind: Kind
    image: int
    features: tuple[int, int]
    matches: int
    mma: Array
    repeatability: Array
    matching_score: Array
    corner_error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedPair(PairResult, MatchedPoints):
    """A result with the matches it comes from."""


def evaluate_sequence(
    sequence: HomographySequence,
    features: Callable[[Path], LocalFeatures],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    matcher: Matcher = MutualNearest(),
    ransac_error: float = 3.0,
    seed: int = 0,
) -> list[MatchedPair]:
    """Match image 1 with every other image of a sequence and measure everything.

    Args:
        sequence: images with their homographies.
        features: extracts or loads the features of an image; called once per image.
        thresholds: T thresholds in pixels.
        matcher: on the CPU.
        ransac_error: residual in pixels of an inlier of the estimated homography.
        seed: of its random sampling.

    Returns:
        One result per pair, images 2 to n in order.

    Raises:
        FeatureFormatError: the descriptors of two images have different dimensions.
    """
    first = features(sequence.images[0])
    return [
        _evaluate_pair(
            sequence,
            number,
            (first, features(image)),
            thresholds,
            matcher,
            ransac_error,
            seed,
        )
        for number, image in enumerate(sequence.images[1:], start=2)
    ]


def _evaluate_pair(
    sequence: HomographySequence,
    image: int,
    features: tuple[LocalFeatures, LocalFeatures],
    thresholds: Sequence[float],
    matcher: Matcher,
    ransac_error: float,
    seed: int,
) -> MatchedPair:
    features1, features2 = features
    H_2_from_1 = sequence.homographies[image - 2]
    names = str(sequence.images[0]), str(sequence.images[image - 1])
    matches = match_features(matcher, features1, features2, images=names).indices
    points1 = features1.keypoints[matches[:, 0]]
    points2 = features2.keypoints[matches[:, 1]]
    errors = transfer_errors(points1, points2, H_2_from_1)
    return MatchedPair(
        sequence=sequence.name,
        kind=sequence.kind,
        image=image,
        features=(len(features1), len(features2)),
        matches=len(matches),
        mma=share_within(errors, thresholds),
        repeatability=repeatability(features1, features2, H_2_from_1, thresholds),
        matching_score=matching_score(
            features1, features2, matches, H_2_from_1, thresholds
        ),
        corner_error=corner_error(
            points1,
            points2,
            H_2_from_1,
            features1.image_size,
            max_error=ransac_error,
            seed=seed,
        ),
        points1=points1,
        points2=points2,
        errors=errors,
    )
