"""Pairs of photographs of one place whose poses and depths are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.training.loading import PairSource, PictureLoader
from r2d2_kapture.training.lookups import DepthMap, FloatArray
from r2d2_kapture.training.pairs import Flow, Points, RawPair, inside, pixel_grid
from r2d2_kapture.training.transforms import random_pair, strength_at
from r2d2_kapture.training.views import Picture, flow_of_pictures

DoubleArray = npt.NDArray[np.float64]

NEIGHBOURS = 20
LARGEST_ANGLE = np.radians(70.0)
OVERLAP_PROBES = 24
LEAST_OVERLAP = 0.1


class CameraModel(Protocol):
    """Maps pixels, (0, 0) at the centre of the first one, to viewing rays and back."""

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) in pixels."""

    def rays(self, pixels: Points) -> Points:
        """(N, 2) x / z and y / z of what is seen at (N, 2) pixels."""

    def pixels(self, rays: Points) -> Points:
        """(N, 2) pixels at which (N, 2) x / z and y / z are seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PinholeModel:
    """A camera without distortion.

    Attributes:
        size: (W, H) in pixels.
        intrinsics: (3, 3); its principal point counts from the centre of the first
            pixel.
    """

    size: tuple[int, int]
    intrinsics: DoubleArray

    def rays(self, pixels: Points) -> Points:
        """(N, 2) x / z and y / z of what is seen at (N, 2) pixels."""
        inverse = np.linalg.inv(self.intrinsics)
        return np.asarray(pixels @ inverse[:2, :2].T + inverse[:2, 2])

    def pixels(self, rays: Points) -> Points:
        """(N, 2) pixels at which (N, 2) x / z and y / z are seen."""
        return np.asarray(rays @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2])


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPicture:
    """A photograph with its pose and depth.

    Attributes:
        name: of the picture, as reported.
        path: of the photograph.
        camera: of the photograph as stored.
        cam_from_world: (4, 4) rigid transform.
        read_inverse_depth: gives (h, w) float32, 1 / depth along the camera's z axis
            in units of the world, NaN where unknown, of the same proportions as the
            photograph; raises DatasetError where it cannot.
    """

    name: str
    path: Path
    camera: CameraModel
    cam_from_world: DoubleArray
    read_inverse_depth: Callable[[], FloatArray]


def depth_flow(
    pictures: tuple[PosedPicture, PosedPicture],
    depths: tuple[DepthMap, DepthMap],
    tolerance: float,
) -> Flow:
    """The flow between the photographs as stored, where depth shows that it is visible.

    A pixel is lifted to space by its depth and projected to the other photograph. It is
    visible there if the depth of the other photograph at that place is its own.

    Args:
        pictures: two views of the same things.
        depths: of both.
        tolerance: largest relative difference of the depths of the same thing.
    """
    first, second = pictures
    second_from_first = second.cam_from_world @ np.linalg.inv(first.cam_from_world)
    rotation, translation = second_from_first[:3, :3], second_from_first[:3, 3]

    def flow(points: Points) -> Points:
        found = np.full_like(points, np.nan)
        depth = 1 / depths[0](points)
        rays = first.camera.rays(points)
        there = np.column_stack([rays, np.ones(len(rays))]) * depth[:, None]
        there = there @ rotation.T + translation
        known = np.flatnonzero(there[:, 2] > 0)
        there = there[known]
        targets = second.camera.pixels(there[:, :2] / there[:, 2:])
        ratio = there[:, 2] * depths[1](targets)
        seen = np.abs(ratio - 1) <= tolerance
        found[known[seen]] = targets[seen]
        return found

    return flow


def neighbouring_pairs(poses: Sequence[DoubleArray]) -> list[tuple[int, int]]:
    """Pairs of cameras that stand close together and look in about one direction.

    Args:
        poses: (4, 4) cam_from_world of each.

    Returns:
        Indices (i, j), i < j, each pair once, sorted.
    """
    if len(poses) < 2:
        return []
    centres = np.array([-pose[:3, :3].T @ pose[:3, 3] for pose in poses])
    directions = np.array([pose[2, :3] for pose in poses])
    count = min(NEIGHBOURS + 1, len(poses))
    _, nearest = cKDTree(centres).query(centres, k=count)
    pairs = {
        (min(i, int(j)), max(i, int(j)))
        for i, row in enumerate(nearest)
        for j in row
        if i != j and directions[i] @ directions[j] > np.cos(LARGEST_ANGLE)
    }
    return sorted(pairs)


class PosedPairSource(PairSource):
    """Pairs of photographs of one place.

    A pair whose photographs have become unreadable, or that turn out to show different
    things, is left to the next draw.

    Args:
        name: of the source, as reported.
        pictures: of the place.
        pairs: of indices into them.
        config: of the pairs.
        load: decodes photographs; its cache also keeps depths.
        tolerance: largest relative difference of the depths of the same thing.

    Raises:
        DatasetError: no pair.
    """

    def __init__(
        self,
        name: str,
        pictures: Sequence[PosedPicture],
        pairs: Sequence[tuple[int, int]],
        config: PairConfig,
        load: PictureLoader,
        tolerance: float,
    ) -> None:
        if not pairs:
            raise DatasetError(
                f"{name}: found no two of {len(pictures)} posed images that may show "
                "the same place, expected at least one pair"
            )
        names = [picture.name for picture in pictures]
        super().__init__(name, len(pairs), names, config, load)
        self._pictures = tuple(pictures)
        self._pairs = tuple(pairs)
        self._tolerance = tolerance

    def pair(
        self, index: int, rng: np.random.Generator, difficulty: float
    ) -> RawPair | None:
        """Make pair ``index``, either photograph first.

        Returns:
            None where a photograph is unreadable, or the two overlap too little.
        """
        first, second = rng.permutation(self._pairs[index]).tolist()
        pictures = self._pictures[first], self._pictures[second]
        depths = self._depth(first), self._depth(second)
        if depths[0] is None or depths[1] is None:
            return None
        flow = depth_flow(pictures, (depths[0], depths[1]), self._tolerance)
        if _overlap(flow, pictures) < LEAST_OVERLAP:
            return None
        decoded = self._picture(first), self._picture(second)
        if decoded[0] is None or decoded[1] is None:
            return None
        return random_pair(
            f"{pictures[0].name} - {pictures[1].name}",
            (decoded[0], decoded[1]),
            flow_of_pictures(flow, decoded[0], decoded[1]),
            self._config,
            strength_at(self._config, difficulty).softened(),
            rng,
        )

    def _depth(self, index: int) -> DepthMap | None:
        picture = self._pictures[index]
        key = (self.name, picture.name)
        inverse_depth = self._load.cache.get(key)
        if inverse_depth is None:
            try:
                inverse_depth = picture.read_inverse_depth()
            except DatasetError:
                self._unusable[index] = True
                return None
            self._load.cache.offer(key, inverse_depth, inverse_depth.nbytes)
        return DepthMap(inverse_depth, picture.camera.size)

    def _picture(self, index: int) -> Picture | None:
        try:
            return self._load(self._pictures[index].path)
        except ImageError:
            self._unusable[index] = True
            return None


def _overlap(flow: Flow, pictures: tuple[PosedPicture, PosedPicture]) -> float:
    """Share of the first photograph that the second one shows."""
    width, height = pictures[0].camera.size
    probes = pixel_grid(
        np.linspace(0, width - 1, OVERLAP_PROBES),
        np.linspace(0, height - 1, OVERLAP_PROBES),
    )
    return float(inside(flow(probes), pictures[1].camera.size).mean())
