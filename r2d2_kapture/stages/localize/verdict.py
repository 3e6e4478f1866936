"""Verdict on the reliability of a pose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.stages.localize.pose_estimation import (
    BoolArray,
    FramePose,
    View,
    centre_deviation,
    count_inliers,
    estimate_pose,
)

RIVAL_ANGLE = 5.0
"""Degrees from which two poses are different."""
MOST_OUTLIERS = 5
"""Correspondences per inlier up to which a second pose is searched for."""


def pose_doubts(
    views: Sequence[View], pose: FramePose, extent: float, config: LocalizeConfig
) -> tuple[str, ...]:
    """Reasons why a pose may be wrong although inliers agree; empty for a good one.

    Args:
        views: that it was estimated from.
        pose: of the frame.
        extent: of the map, in its units.
        config: thresholds.
    """
    found = []
    inliers = count_inliers(views, pose.inliers)
    total = sum(len(view.correspondences) for view in views)
    # a few random ones agree with any pose, but not half of them
    if inliers < config.doubt_inliers and inliers < total / 2:
        found.append(
            f"{inliers} inliers of {total} correspondences, expected at least "
            f"{config.doubt_inliers} or half of them (--doubt-inliers)"
        )
    elif inliers < config.doubt_ratio * total:
        found.append(
            f"{inliers} inliers of {total} correspondences, expected at least a share "
            f"of {config.doubt_ratio:g} (--doubt-ratio)"
        )
    covered = max(map(coverage, views, pose.inliers))
    if covered < config.doubt_coverage:
        found.append(
            f"inliers cover {100 * covered:.2g} % of the image, expected at least "
            f"{100 * config.doubt_coverage:g} % (--doubt-coverage)"
        )
    reach = min(_distance(views, pose), extent)
    deviation = (
        float("inf")
        if pose.covariance is None
        else centre_deviation(pose.rig_from_world, pose.covariance)
    )
    if not deviation <= config.doubt_deviation * reach:
        found.append(
            f"position deviation {deviation:.3g}, expected up to "
            f"{config.doubt_deviation * reach:.3g}, {config.doubt_deviation:g} of the "
            "distance to the points or of the map's extent (--doubt-deviation)"
        )
    rival = _rival(views, pose, inliers, reach, config)
    if rival:
        found.append(
            f"another pose has {rival} inliers among the other correspondences, this "
            f"one {inliers}; the scene may have repeated structure"
        )
    return tuple(found)


def coverage(view: View, inliers: BoolArray) -> float:
    """Share of the image that inliers cover, by their spread.

    It is the area of a rectangle with the same second moments: 1 for inliers all over
    the image, 0 for inliers on a line.
    """
    xy = np.unique(view.xy[inliers], axis=0)
    if len(xy) < 3:
        return 0.0
    camera = view.image.camera
    spread = np.sqrt(max(np.linalg.det(np.cov(xy.T, bias=True)), 0.0))
    return float(12 * spread / (camera.width * camera.height))


def _distance(views: Sequence[View], pose: FramePose) -> float:
    """Median distance of the inliers' points from the rig, in the map's units."""
    seen = np.concatenate(
        [view.points[mask] for view, mask in zip(views, pose.inliers)]
    )
    centre = pose.rig_from_world.inverse().translation
    return float(np.median(np.linalg.norm(seen - centre, axis=1)))


def _rival(
    views: Sequence[View],
    pose: FramePose,
    inliers: int,
    reach: float,
    config: LocalizeConfig,
) -> int:
    """Inliers of another pose that the other correspondences agree with, if enough."""
    others = tuple(_without(view, mask) for view, mask in zip(views, pose.inliers))
    outliers = sum(len(view.correspondences) for view in others)
    needed = max(config.doubt_rival * inliers, config.min_inliers)
    if not needed <= outliers <= MOST_OUTLIERS * inliers:
        return 0
    second = estimate_pose(others, config, min_inlier_ratio=needed / outliers)
    if second is None or second.doubt is not None:
        return 0
    count = count_inliers(others, second.inliers)
    centres = [each.rig_from_world.inverse().translation for each in (pose, second)]
    turn = (second.rig_from_world * pose.rig_from_world.inverse()).rotation.angle()
    moved = float(np.linalg.norm(centres[0] - centres[1]))
    apart = np.degrees(turn) > RIVAL_ANGLE or moved > config.doubt_deviation * reach
    return count if apart and count >= needed else 0


def _without(view: View, mask: BoolArray) -> View:
    return dataclasses.replace(
        view,
        xy=view.xy[~mask],
        points=view.points[~mask],
        correspondences=view.correspondences.take(~mask),
    )
