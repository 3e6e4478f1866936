"""From the matches of a query frame to its pose."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.io.colmap.cameras import kapture_camera
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.stages.localize.cameras import QueryFrame
from r2d2_kapture.stages.localize.correspondences import (
    covisible_groups,
    gather_correspondences,
)
from r2d2_kapture.stages.localize.last_pose import Helpers, last_pose
from r2d2_kapture.stages.localize.matches import QueryMatches
from r2d2_kapture.stages.localize.pose_estimation import (
    FramePose,
    View,
    camera_covariance,
    centre_deviation,
    count_inliers,
    estimate_pose,
)
from r2d2_kapture.stages.localize.results import QueryResult, Support
from r2d2_kapture.stages.localize.solution import Solution
from r2d2_kapture.stages.localize.verdict import coverage, pose_doubts

LATER = ("second_pass", "refine")
"""Settings that earlier versions did not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Map images that are used together.

    Attributes:
        map_images: their names.
        views: correspondences of each image of the frame with them.
    """

    map_images: tuple[str, ...]
    views: tuple[View, ...]

    @property
    def correspondences(self) -> int:
        """Number of correspondences of all views."""
        return sum(len(view.correspondences) for view in self.views)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All inputs of the pose of a frame, except the settings.

    Attributes:
        frame: its images and cameras.
        matches: of its images, in their order.
        candidates: first all map images, then each covisible group if there are
            several.
        extent: of the map, in its units.
        helpers: what finds more than the first pose was estimated from.
        made_of: says what these find it in, by image.
    """

    frame: QueryFrame
    matches: tuple[QueryMatches, ...]
    candidates: tuple[Candidate, ...]
    extent: float
    helpers: Helpers
    made_of: tuple[str, ...]


def gather_evidence(
    frame: QueryFrame,
    matches: Sequence[QueryMatches],
    sparse_map: SparseMap,
    config: LocalizeConfig,
    helpers: Helpers,
) -> Evidence:
    """Follow the matches of a frame's images to the points of the map."""
    retrieved = tuple(dict.fromkeys(name for m in matches for name in m.retrieved))
    sets = [retrieved]
    if config.covisibility_clustering:
        groups = covisible_groups(sparse_map, retrieved)
        sets += groups if len(groups) > 1 else ()
    return Evidence(
        frame=frame,
        matches=tuple(matches),
        candidates=tuple(
            Candidate(
                map_images=names, views=_views(frame, matches, sparse_map, set(names))
            )
            for names in sets
        ),
        extent=sparse_map.extent,
        helpers=helpers,
        made_of=tuple(map(helpers.identify, frame.images)),
    )


def localize_frame(
    evidence: Evidence, config: LocalizeConfig, origin: PixelOrigin
) -> tuple[QueryResult, ...]:
    """Find the pose of a frame.

    The pose is estimated from all retrieved map images, and from each covisible group;
    the pose with most inliers is kept, the first of equals. It is then estimated again
    from what is found with its help, see ``last_pose``. An image whose keypoints or
    matches cannot be read is left out, and fails.

    Args:
        evidence: inputs of the frame.
        config: settings.
        origin: pixel origin of the principal points of the results.

    Returns:
        The outcome of each image, in the order of the frame.
    """
    lacks = [matches.lack() for matches in evidence.matches]
    if None not in lacks:
        return failed_results(evidence, lacks, config)
    poses = [(_estimate(item, config), item) for item in evidence.candidates]
    tried = tuple(
        Support(
            map_images=len(item.map_images),
            correspondences=item.correspondences,
            inliers=inliers,
        )
        for (_, inliers), item in poses
    )
    (pose, inliers), best = max(poses, key=lambda each: each[0][1])
    if pose is None or inliers < config.min_inliers:
        reason = (pose.doubt if pose is not None else None) or (
            f"{evidence.candidates[0].correspondences} correspondences with the map, "
            f"{inliers} of them inliers of a pose, expected at least "
            f"{config.min_inliers} (--min-inliers)"
        )
        reasons = [lack or reason for lack in lacks]
        return failed_results(evidence, reasons, config, tried)
    first = Solution(pose=pose, views=best.views)
    return _localized_results(evidence, config, origin, first, tried)


def failed_results(
    evidence: Evidence,
    reasons: Iterable[str | None],
    config: LocalizeConfig,
    tried: tuple[Support, ...] = (),
) -> tuple[QueryResult, ...]:
    """Outcomes of a frame without a pose."""
    return tuple(
        dataclasses.replace(result, reason=reason, tried=tried)
        for result, reason in zip(_plain_results(evidence, config), reasons)
    )


def _plain_results(evidence: Evidence, config: LocalizeConfig) -> list[QueryResult]:
    """The outcome of each image before a pose is estimated."""
    inputs = inputs_digest(evidence, config)
    names = tuple(image.name for image in evidence.frame.images)
    return [
        QueryResult(
            image=view.image.name,
            inputs=inputs,
            paired=len(matches.retrieved) + matches.absent,
            matches=matches.count,
            correspondences=len(view.correspondences),
            rig=names if evidence.frame.rig_id is not None else (),
            focal_length=view.image.focal_length,
        )
        for view, matches in zip(evidence.candidates[0].views, evidence.matches)
    ]


def _localized_results(
    evidence: Evidence,
    config: LocalizeConfig,
    origin: PixelOrigin,
    first: Solution,
    tried: tuple[Support, ...],
) -> tuple[QueryResult, ...]:
    results = []
    # what was searched for near a pose does not speak for it
    doubts = pose_doubts(first.views, first.pose, evidence.extent, config)
    last = last_pose(evidence.helpers, first, evidence.matches, config)
    pose = last.pose
    plain = _plain_results(evidence, config)
    for result, matches, view, camera, mask, added, refined in zip(
        plain,
        evidence.matches,
        first.views,
        pose.cameras,
        first.pose.inliers,
        last.added,
        last.refinements,
    ):
        if matches.error is not None:
            results.append(
                dataclasses.replace(result, reason=matches.error, tried=tried)
            )
            continue
        cam_from_rig = view.image.cam_from_rig
        cam_from_world = cam_from_rig * pose.rig_from_world
        x, y, z, w = cam_from_world.rotation.quat.tolist()
        covariance = deviation = None
        if pose.covariance is not None:
            matrix = camera_covariance(pose.covariance, cam_from_rig)
            covariance = tuple(map(tuple, matrix.tolist()))
            deviation = centre_deviation(cam_from_world, matrix)
        results.append(
            dataclasses.replace(
                result,
                inliers=count_inliers([view], [mask]),
                tried=tried,
                cam_from_world=(w, x, y, z, *cam_from_world.translation.tolist()),
                covariance=covariance,
                position_std=deviation,
                coverage=coverage(view, mask),
                verdict="doubtful" if doubts else "good",
                doubts=doubts,
                camera=tuple(kapture_camera(camera, origin).sensor_params),
                added=added,
                refined=refined,
            )
        )
    return tuple(results)


def _estimate(
    candidate: Candidate, config: LocalizeConfig
) -> tuple[FramePose | None, int]:
    """The pose of a candidate and its number of inliers; None and 0 if it is not
    reliable."""
    # fewer are not enough, and pycolmap crashes without any
    if candidate.correspondences < config.min_inliers:
        return None, 0
    pose = estimate_pose(candidate.views, config)
    if pose is None or pose.doubt is not None:
        return pose, 0
    return pose, count_inliers(candidate.views, pose.inliers)


def _views(
    frame: QueryFrame,
    matches: Sequence[QueryMatches],
    sparse_map: SparseMap,
    map_images: set[str],
) -> tuple[View, ...]:
    views = []
    for image, of_image in zip(frame.images, matches):
        chosen = {
            name: indices
            for name, indices in of_image.matches.items()
            if name in map_images
        }
        correspondences = gather_correspondences(sparse_map, chosen)
        views.append(
            View(
                image=image,
                xy=of_image.xy[correspondences.keypoints],
                points=sparse_map.points[correspondences.points],
                correspondences=correspondences,
            )
        )
    return tuple(views)


def inputs_digest(evidence: Evidence, config: LocalizeConfig) -> str:
    """SHA-256 of the settings and inputs that determine the pose."""
    settings = dataclasses.asdict(config) | {"format": None}
    for name in LATER:  # what they find says whether
        del settings[name]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update("".join(evidence.made_of).encode())
    for candidate in evidence.candidates:
        for view in candidate.views:
            image = view.image
            described = [image.name, image.camera.model_name, image.focal_length]
            digest.update(json.dumps([*candidate.map_images, *described]).encode())
            for array in (
                image.camera.params,
                image.cam_from_rig.matrix(),
                view.xy,
                view.points,
                view.correspondences.keypoints,
                view.correspondences.points,
            ):
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
