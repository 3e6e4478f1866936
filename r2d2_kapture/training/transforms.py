"""Random pairs of views: scale, rotation and tilt, from mild to strong.

Revaud et al., NeurIPS 2019, section 4.1, train on pictures and their random
homographies. That the pairs start mild and widen, and the night, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.pairs import Flow, RawPair, pixel_grid
from r2d2_kapture.training.photometry import Photometry, random_photometry
from r2d2_kapture.training.views import (
    DoubleArray,
    Picture,
    WarpedView,
    apply_homography,
    flow_between,
)

FOCAL_RANGE = (0.9, 1.6)
"""Focal length of the camera that sees a tilted picture, in its longer sides."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far two views may differ.

    Attributes:
        scale: largest factor between their scales.
        rotation: standard deviation of the rotation, radians.
        tilt: largest slant of the picture plane, radians.
    """

    scale: float
    rotation: float
    tilt: float

    def softened(self) -> Strength:
        """Half of it and no tilt: for pictures whose viewpoints differ already."""
        return Strength(
            scale=float(np.sqrt(self.scale)), rotation=self.rotation / 2, tilt=0.0
        )


def strength_at(config: PairConfig, difficulty: float) -> Strength:
    """Between mild (difficulty 0) and strong (1); scales grow by equal factors."""

    def between(mild: float, strong: float) -> float:
        return mild + difficulty * (strong - mild)

    return Strength(
        scale=config.mild_scale ** (1 - difficulty) * config.strong_scale**difficulty,
        rotation=float(
            np.radians(between(config.mild_rotation, config.strong_rotation))
        ),
        tilt=float(np.radians(between(config.mild_tilt, config.strong_tilt))),
    )


def random_pair(
    name: str,
    pictures: tuple[Picture, Picture],
    flow: Flow | None,
    config: PairConfig,
    strength: Strength,
    rng: np.random.Generator,
) -> RawPair:
    """Two random views of two pictures whose flow is known.

    Args:
        name: of the pair.
        pictures: the same one twice for a synthetic pair.
        flow: from pixels of the first to those of the second; None where both have the
            same pixels.
        config: bounds of scales and colours.
        strength: bounds of the warp of the second picture.
        rng: source of everything random.
    """
    factors = random_scales(
        (pictures[0].size, pictures[1].size), config, strength.scale, rng
    )
    night = rng.random() < config.night
    photometry = random_photometry(config, rng)  # drawn in any case: the rest follows
    view1 = scaled_view(
        pictures[0], factors[0], Photometry() if config.plain_first else photometry
    )
    view2 = tilted_view(
        pictures[1],
        factors[1],
        rotation=rng.normal(0, strength.rotation),
        tilt=rng.uniform(0, strength.tilt),
        tilt_axis=rng.uniform(0, 2 * np.pi),
        focal=rng.uniform(*FOCAL_RANGE) * max(pictures[1].size),
        photometry=random_photometry(config, rng, night=night),
    )
    return RawPair(
        name=name, view1=view1, view2=view2, flow=flow_between(view1, view2, flow)
    )


def random_scales(
    sizes: tuple[tuple[int, int], tuple[int, int]],
    config: PairConfig,
    largest_change: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Factors for both pictures, uniform on a logarithmic scale.

    Each shorter side becomes ``min_side`` to ``max_side`` as far as ``max_upscale``
    allows, and the factors differ by at most ``largest_change``, unless pictures of
    very unlike sizes leave no such choice.

    Args:
        sizes: (W, H) of both pictures in pixels.
    """
    order = rng.permutation(2)  # so that neither is the larger one more often
    bounds = [_log_factor_bounds(sizes[i], config) for i in order]
    first = rng.uniform(*bounds[0])
    change = np.log(largest_change)
    low, high = np.clip((first - change, first + change), *bounds[1])
    logs = np.empty(2)
    logs[order] = first, rng.uniform(low, high)
    return float(np.exp(logs[0])), float(np.exp(logs[1]))


def scaled_view(
    picture: Picture, factor: float, photometry: Photometry = Photometry()
) -> WarpedView:
    """The whole picture, ``factor`` times as large."""
    width, height = (max(1, round(side * factor)) for side in picture.size)
    picture_from_view = (
        _translation(_middle(picture.size))
        @ np.diag([1 / factor, 1 / factor, 1.0])
        @ _translation(-_middle((width, height)))
    )
    return WarpedView(
        picture=picture,
        picture_from_view=picture_from_view,
        size=(width, height),
        photometry=photometry,
    )


def tilted_view(
    picture: Picture,
    factor: float,
    *,
    rotation: float,
    tilt: float,
    tilt_axis: float,
    focal: float,
    photometry: Photometry = Photometry(),
) -> WarpedView:
    """The picture as if it hung on a wall that a camera sees at a slant.

    Args:
        picture: what hangs there.
        factor: of enlargement in the middle of the picture.
        rotation: of the camera about its line of sight, radians.
        tilt: of the wall, radians; below a right angle by enough that no part of the
            wall lies behind a camera of that focal length.
        tilt_axis: direction of the axis of the tilt in the picture, radians.
        focal: length in pixels of the picture; the wall is that far away.
        photometry: of the view.
    """
    turn = Rotation.from_euler("z", rotation)
    axis = np.array([np.cos(tilt_axis), np.sin(tilt_axis), 0])
    wall = (turn * Rotation.from_rotvec(tilt * axis)).as_matrix() / focal
    wall[:, 2] = (0, 0, 1)
    centred_from_picture = (
        np.diag([factor * focal, factor * focal, 1.0])
        @ wall
        @ _translation(-_middle(picture.size))
    )
    right, bottom = picture.size[0] - 1, picture.size[1] - 1
    corners = apply_homography(
        centred_from_picture, pixel_grid([0, right], [0, bottom])
    )
    low = corners.min(axis=0)
    width, height = np.floor(corners.max(axis=0) - low).astype(int).tolist()
    return WarpedView(
        picture=picture,
        picture_from_view=np.linalg.inv(_translation(-low) @ centred_from_picture),
        size=(width + 1, height + 1),
        photometry=photometry,
    )


def _log_factor_bounds(
    size: tuple[int, int], config: PairConfig
) -> tuple[float, float]:
    side = min(size)
    high = min(config.max_side / side, config.max_upscale)
    low = min(config.min_side / side, high)
    return float(np.log(low)), float(np.log(high))


def _middle(size: tuple[int, int]) -> DoubleArray:
    return (np.array(size, dtype=np.float64) - 1) / 2


def _translation(shift: DoubleArray) -> DoubleArray:
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return matrix
