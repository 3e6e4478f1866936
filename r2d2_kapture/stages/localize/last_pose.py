"""The last pose of a frame, from all that its first pose lets be found."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.stages.localize.cameras import QueryImage
from r2d2_kapture.stages.localize.matches import QueryMatches
from r2d2_kapture.stages.localize.point_search import PointSearch
from r2d2_kapture.stages.localize.pose_estimation import (
    FramePose,
    View,
    estimate_pose,
    refine_pose,
)
from r2d2_kapture.stages.localize.registration import RegisteredView, Registrar
from r2d2_kapture.stages.localize.results import Refinement
from r2d2_kapture.stages.localize.solution import Solution, agreeing

DoubleArray = npt.NDArray[np.float64]

KEPT = 0.9
"""Share of the inliers of a first pose that agree with the last one too."""
LOSS_PER_ERROR = 0.7
"""Scale of the loss in units of the median error of keypoints that moved."""
LEAST_LOSS_SCALE = 0.05
"""Pixels; registration is not more exact."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Helpers:
    """What finds more than a first pose was estimated from.

    Attributes:
        search: for more correspondences; None without descriptors.
        registrar: of keypoints; None without patches.
    """

    search: PointSearch | None = None
    registrar: Registrar | None = None

    def identify(self, image: QueryImage) -> str:
        """Says what of an image and of the map determines what is found."""
        return ", ".join(
            one.identify(image)
            for one in (self.search, self.registrar)
            if one is not None
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LastPose:
    """A pose that was estimated again.

    Attributes:
        pose: of the frame.
        added: by image, correspondences that the search added; None without it.
        refinements: by image, what registration did; None without it, and where the
            image cannot be read.
    """

    pose: FramePose
    added: tuple[int | None, ...]
    refinements: tuple[Refinement | None, ...]


def last_pose(
    helpers: Helpers,
    first: Solution,
    matches: Sequence[QueryMatches],
    config: LocalizeConfig,
) -> LastPose:
    """Search near a first pose, register keypoints, and estimate the pose again.

    Args:
        helpers: what finds more.
        first: pose of a frame.
        matches: of its images.
        config: settings.

    Returns:
        The first pose where nothing is found, and where the last one is worse: it must
        agree with what agreed with the first one, and explain the positions found at
        least as well as that one did the keypoints.
    """
    nothing = (None,) * len(first.views)
    kept = LastPose(pose=first.pose, added=nothing, refinements=nothing)
    search, registrar = helpers.search, helpers.registrar
    searched = first.views if search is None else search(first, matches)
    before = Solution(pose=first.pose, views=searched)
    found = nothing if registrar is None else registrar(before, config.max_error)
    views = tuple(one.view if one else view for one, view in zip(found, searched))
    if all(map(operator.is_, views, first.views)):
        return kept
    pose = estimate_pose(views, config)
    if pose is None or pose.doubt is not None:
        return kept
    pose = _weighed(Solution(pose=pose, views=views), found, config)
    least = max(KEPT * first.inliers, config.min_inliers)
    if agreeing(first.views, pose, config.max_error) < least:
        return kept
    after = Solution(pose=pose, views=views)
    if _is_worse(before, after, found):
        return kept
    return LastPose(
        pose=pose,
        added=nothing if search is None else _added(searched, first.views),
        refinements=_refinements(before, after, found),
    )


def _weighed(
    solution: Solution,
    found: Sequence[RegisteredView | None],
    config: LocalizeConfig,
) -> FramePose:
    """The pose by a loss as sharp as keypoints that moved are exact.

    Those that stayed lie farther off, and would outweigh them. The pose given, if too
    few moved to determine one.
    """
    errors = _errors_of_moved(solution, found)
    errors = errors[errors <= config.max_error]
    if len(errors) < config.min_inliers:
        return solution.pose
    scale = max(LOSS_PER_ERROR * float(np.median(errors)), LEAST_LOSS_SCALE)
    if scale >= config.loss_scale:
        return solution.pose
    return refine_pose(solution.views, solution.pose, scale)


def _errors_of_moved(
    solution: Solution, found: Sequence[RegisteredView | None]
) -> DoubleArray:
    """(M,) reprojection errors of the keypoints of a frame that moved."""
    errors = [solution.errors(i)[one.moved] for i, one in enumerate(found) if one]
    return np.concatenate([np.zeros(0), *errors])


def _added(searched: Sequence[View], known: Sequence[View]) -> tuple[int, ...]:
    return tuple(
        len(_pairs(view) - _pairs(before)) for view, before in zip(searched, known)
    )


def _pairs(view: View) -> set[tuple[int, int]]:
    both = view.correspondences
    return set(zip(both.keypoints.tolist(), both.points.tolist()))


def _is_worse(
    before: Solution, after: Solution, found: Sequence[RegisteredView | None]
) -> bool:
    """Whether keypoints that moved are farther from their points than they were."""
    errors = [_errors_of_moved(one, found) for one in (before, after)]
    return bool(len(errors[0])) and bool(np.median(errors[1]) > np.median(errors[0]))


def _refinements(
    before: Solution, after: Solution, found: Sequence[RegisteredView | None]
) -> tuple[Refinement | None, ...]:
    return tuple(
        (
            Refinement(
                registered=view.registered,
                moved=len(view.moved),
                median_step=_median(view.steps),
                before=_median(before.errors(index)[view.moved]),
                after=_median(after.errors(index)[view.moved]),
            )
            if view
            else None
        )
        for index, view in enumerate(found)
    )


def _median(values: DoubleArray) -> float:
    return round(float(np.median(values)), 4) if len(values) else 0.0
