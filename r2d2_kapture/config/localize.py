"""Settings of localization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import bounded
from r2d2_kapture.config.evaluate import PoseFormat
from r2d2_kapture.config.origins import OriginConfig

FocalLength = Literal["auto", "refine", "estimate"]
RigUse = Literal["auto", "off"]
SecondPassUse = Literal["auto", "on", "off"]
RefinementUse = Literal["auto", "off"]


@dataclass(frozen=True, kw_only=True)
class LocalizeConfig(OriginConfig):
    """Settings of pose estimation and of its output.

    Attributes:
        max_error: largest distance in pixels between a keypoint and the projection of
            its map point of an inlier.
        loss_scale: distance in pixels from which a point loses weight in the refinement
            (the scale of a Cauchy loss); at most: keypoints that were registered set
            their own, 0.7 times the median of their distances.
        min_inliers: distinct map points that must agree with a pose; a query with
            fewer is reported as failed. Of 10 000 correspondences at random, up to 12
            agree with some pose.
        covisibility_clustering: also estimate a pose from each group of covisible map
            images, and keep the one with most inliers.
        rigs: ``auto`` estimates one pose for the images of a rig at one time; ``off``
            localizes each image separately.
        focal_length: ``auto`` keeps those of sensors.txt, and estimates those of
            unknown cameras from EXIF and the map; ``refine`` also refines those of
            sensors.txt; ``estimate`` treats every focal length as unknown.
        second_pass: ``on`` searches for the points of the map again, near where a first
            pose puts them, by the descriptors of its images, and estimates the pose
            again; ``auto`` does so where what is found is refined.
        refine: ``auto`` registers keypoints of queries against the patches of the map's
            points, to parts of a pixel, and estimates the pose again; if the map has
            patches, and the query's image can be read.
        doubt_deviation: a pose is doubtful if the standard deviation of its position is
            larger, in units of the distance to its points, or of the map's extent if
            that is less; for keypoint errors of 1 px.
        doubt_inliers: a pose is doubtful with fewer inliers, unless half of its
            correspondences are inliers.
        doubt_ratio: a pose is doubtful with a smaller share of inliers among its
            correspondences.
        doubt_coverage: a pose is doubtful if its inliers cover a smaller share of the
            image.
        doubt_rival: a pose is doubtful if another pose has this share of its inliers
            among the other correspondences.
        seed: random seed.
        format: how poses.txt names images for visuallocalization.net: aachen
            and extended_cmu by file name, robotcar by the last folder too, gangnam by
            the whole name, eth_ms by timestamp and device; rio10 is the format of
            RIO10, with poses that map the camera to the world.
    """

    max_error: float = bounded(12.0, above=0, below=math.inf, note="pixels above 0")
    loss_scale: float = bounded(0.5, above=0, below=math.inf, note="pixels above 0")
    min_inliers: int = bounded(
        15, at_least=4, note="at least 4: any three points agree with some pose"
    )
    covisibility_clustering: bool = True
    rigs: RigUse = "auto"
    focal_length: FocalLength = "auto"
    second_pass: SecondPassUse = "auto"
    refine: RefinementUse = "auto"
    doubt_deviation: float = bounded(0.05, at_least=0)
    doubt_inliers: int = bounded(30, at_least=0)
    doubt_ratio: float = bounded(0.02, at_least=0)
    doubt_coverage: float = bounded(0.03, at_least=0)
    doubt_rival: float = bounded(0.5, at_least=0)
    seed: int = bounded(0, at_least=0, below=2**31, note="0 to 2^31 - 1")
    format: PoseFormat = "gangnam"
