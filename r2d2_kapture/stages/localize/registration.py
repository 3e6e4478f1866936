"""Keypoints of queries, registered against the patches of the points that they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.coordinates import colmap_from_kapture, kapture_from_colmap
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.io.images.decoding import RGBArray, read_rgb
from r2d2_kapture.io.map_patches import MapPatches, open_patches
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.refinement.patches import Templates, config_of, grey_image
from r2d2_kapture.refinement.registration import register
from r2d2_kapture.stages.localize.cameras import QueryImage
from r2d2_kapture.stages.localize.pose_estimation import (
    FramePose,
    View,
    count_inliers,
    estimate_pose,
)
from r2d2_kapture.stages.localize.results import Refinement
from r2d2_kapture.stages.surfaces import project, surface_frames
from r2d2_kapture.types import IndexArray

DoubleArray = npt.NDArray[np.float64]


SHAPE_PRIOR = 0.03
"""See RefineConfig: a surface says more of how a patch appears than a match does."""
MIN_INLIERS = 0.9
"""Of those of the first pose, which the final one must keep."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Registrar:
    """Registers the keypoints of queries against the patches of a map.

    May be used by several threads.

    Attributes:
        patches: of the map.
        read: gives the (H, W, 3) uint8 pixels of a query as stored; raises ImageError.
        identify: says what determines these pixels, and the patches.
    """

    patches: MapPatches
    read: Callable[[QueryImage], RGBArray]
    identify: Callable[[QueryImage], str]

    @cached_property
    def config(self) -> RefineConfig:
        """The one that the patches were cut with, for frames of surfaces."""
        config = config_of(self.patches.patch_shape)
        return dataclasses.replace(config, shape_prior=SHAPE_PRIOR)

    def register(
        self,
        view: View,
        camera: pycolmap.Camera,
        cam_from_world: pycolmap.Rigid3d,
        max_error: float,
    ) -> RegisteredView:
        """Register the keypoints of a view that agree with a pose.

        Args:
            view: of an image.
            camera: of the image.
            cam_from_world: its pose, which says how it shows the patches.
            max_error: pixels between a keypoint and the projection of its point.

        Raises:
            ImageError: the image cannot be read.
        """
        image = grey_image(self.read(view.image))
        points = view.correspondences.points
        near = distances(view, camera, cam_from_world) <= max_error
        rows = np.flatnonzero(near & self.patches.known(points, view.points))
        patches = self.patches.take(points[rows])
        frames = surface_frames(
            camera, cam_from_world.matrix(), view.points[rows], patches.tangents
        )
        shown = np.flatnonzero(np.isfinite(frames).all(axis=(1, 2)))
        rows = rows[shown]
        found = register(
            Templates(pixels=patches.pixels, zooms=patches.zooms).take(shown),
            image,
            kapture_from_colmap(view.xy[rows]).astype(np.float64),
            frames[shown],
            self.config,
        )
        xy = view.xy.copy()
        moved = rows[found.moved]
        xy[moved] = colmap_from_kapture(found.keypoints[found.moved])
        return RegisteredView(
            view=dataclasses.replace(view, xy=xy),
            registered=len(rows),
            moved=moved,
            steps=found.steps[found.moved],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisteredView:
    """A view whose keypoints were registered.

    Attributes:
        view: with the positions found; refused keypoints stay as they were, to the bit.
        registered: number of correspondences that were tried.
        moved: (M,) rows of those that got another position.
        steps: (M,) pixels from the former one.
    """

    view: View
    registered: int
    moved: IndexArray
    steps: DoubleArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The pose of a frame, and what it was estimated from.

    Attributes:
        pose: of the frame.
        views: of its images.
        refinements: what registration did in each; None where it did nothing.
    """

    pose: FramePose
    views: tuple[View, ...]
    refinements: tuple[Refinement | None, ...]

    @property
    def inliers(self) -> int:
        """See ``count_inliers``."""
        return count_inliers(self.views, self.pose.inliers)


def refine_pose(
    registrar: Registrar, first: Solution, config: LocalizeConfig
) -> Solution:
    """Register the keypoints of a frame, and estimate its pose again.

    Args:
        registrar: of the map.
        first: pose of the frame.
        config: settings.

    Returns:
        The first one if images cannot be read, nothing moved, or the pose is no better:
        it must keep the inliers of the first one, and explain the positions found at
        least as well as that one did the keypoints.
    """
    try:
        found = [
            registrar.register(
                view,
                camera,
                view.image.cam_from_rig * first.pose.rig_from_world,
                config.max_error,
            )
            for view, camera in zip(first.views, first.pose.cameras)
        ]
    except ImageError:
        return first
    views = tuple(one.view for one in found)
    if not any(len(one.moved) for one in found):
        return first
    pose = estimate_pose(views, config)
    if pose is None or pose.doubt is not None:
        return first
    before = _distances_of_moved(found, first.views, first.pose)
    after = _distances_of_moved(found, views, pose)
    refined = Solution(
        pose=pose,
        views=views,
        refinements=tuple(map(_refinement, found, before, after)),
    )
    least = max(MIN_INLIERS * first.inliers, config.min_inliers)
    worse = np.median(np.concatenate(after)) > np.median(np.concatenate(before))
    return first if worse or refined.inliers < least else refined


def _distances_of_moved(
    found: Sequence[RegisteredView], views: Sequence[View], pose: FramePose
) -> list[DoubleArray]:
    """By view, (M,) pixels between the keypoints that moved and their points."""
    return [
        distances(view, camera, view.image.cam_from_rig * pose.rig_from_world)[
            one.moved
        ]
        for one, view, camera in zip(found, views, pose.cameras)
    ]


def _refinement(
    found: RegisteredView, before: DoubleArray, after: DoubleArray
) -> Refinement:
    def median(values: DoubleArray) -> float:
        return round(float(np.median(values)), 4) if len(values) else 0.0

    return Refinement(
        registered=found.registered,
        moved=len(found.moved),
        median_step=median(found.steps),
        before=median(before),
        after=median(after),
    )


def distances(
    view: View, camera: pycolmap.Camera, cam_from_world: pycolmap.Rigid3d
) -> DoubleArray:
    """(N,) pixels between keypoints and the projections of their points; infinite
    behind the camera."""
    projected = project(camera, cam_from_world * view.points)
    away = np.linalg.norm(projected - view.xy, axis=1)
    found: DoubleArray = np.where(np.isnan(away), np.inf, away)
    return found


def open_registrar(map_path: Path, sparse_map: SparseMap) -> Registrar | None:
    """The registrar of a map whose queries are files; None if it has no patches.

    Raises:
        DatasetError: patches are broken, or of another map.
    """
    patches = open_patches(map_path, len(sparse_map.points))
    if patches is None:
        return None
    of_patches = sha256_of(patches.path)

    def identify(image: QueryImage) -> str:
        return of_patches + (sha256_of(image.path) if image.path.is_file() else "")

    return Registrar(
        patches=patches, read=lambda image: read_rgb(image.path), identify=identify
    )
