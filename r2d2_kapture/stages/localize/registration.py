"""Keypoints of queries, registered against the patches of the points that they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
from r2d2_kapture.stages.localize.pose_estimation import View
from r2d2_kapture.stages.localize.solution import Solution
from r2d2_kapture.stages.surfaces import surface_frames
from r2d2_kapture.types import IndexArray

DoubleArray = npt.NDArray[np.float64]


SHAPE_PRIOR = 0.03
"""See RefineConfig: a surface says more of how a patch appears than a match does."""


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

    def __call__(
        self, solution: Solution, max_error: float
    ) -> tuple[RegisteredView | None, ...]:
        """Register the keypoints of a frame that agree with its pose.

        Args:
            solution: the pose, which says how images show the patches.
            max_error: pixels between a keypoint and the projection of its point.

        Returns:
            By image; None where it cannot be read.
        """
        return tuple(
            self._register(solution, index, max_error)
            for index in range(len(solution.views))
        )

    def _register(
        self, solution: Solution, index: int, max_error: float
    ) -> RegisteredView | None:
        view, pose = solution.views[index], solution.pose
        try:
            image = grey_image(self.read(view.image))
        except ImageError:
            return None
        points = view.correspondences.points
        near = solution.errors(index) <= max_error
        rows = np.flatnonzero(near & self.patches.known(points, view.points))
        patches = self.patches.take(points[rows])
        cam_from_world = view.image.cam_from_rig * pose.rig_from_world
        frames = surface_frames(
            pose.cameras[index],
            cam_from_world.matrix(),
            view.points[rows],
            patches.tangents,
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
            view=dataclasses.replace(view, xy=xy) if len(moved) else view,
            registered=len(rows),
            moved=moved,
            steps=found.steps[found.moved],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisteredView:
    """A view whose keypoints were registered.

    Attributes:
        view: with the positions found; refused keypoints stay as they were, to the bit;
            the one given, if nothing moved.
        registered: number of correspondences that were tried.
        moved: (M,) rows of those that got another position.
        steps: (M,) pixels from the former one.
    """

    view: View
    registered: int
    moved: IndexArray
    steps: DoubleArray


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
