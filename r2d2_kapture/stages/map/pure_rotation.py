"""Detection of pure rotation: no depth, although guessed cameras can suggest some.

Where a camera only turns, a rotation explains all matches, and bundle adjustment of
unknown focal lengths finds depths that fit as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycolmap

from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.stages.map.calibration import Array, VerifiedPair

FOCAL_LENGTHS = np.geomspace(0.3, 4.0, 24)
"""Focal lengths to try, in units of the longest side."""
MAX_RESIDUAL = 4e-3
"""Median distance in units of the longest side at which a rotation explains matches:
more than the noise of keypoints. Of video frames over 2 s, 6 % of the pairs are below
it; of photographs from several places, 0 to 8 %."""
MIN_SHARE = 0.75
"""Share of the pairs that must be explained."""
MAX_PAIRS, MAX_MATCHES = 200, 200
"""Greatest number of pairs tested."""


def refuse_pure_rotation(
    model: pycolmap.Reconstruction, pairs: Sequence[VerifiedPair]
) -> None:
    """Refuse a map of guessed cameras if rotations alone explain its matches.

    Args:
        model: the map.
        pairs: of its database; pairs of images outside the map are ignored.

    Raises:
        ReconstructionError: rotations alone explain the matches.
    """
    images = {i.image_id: i for i in model.images.values() if i.has_pose}
    inside = [pair for pair in pairs if images.keys() >= set(pair.image_ids)]
    inside = inside[:: 1 + len(inside) // MAX_PAIRS]
    turned = sum(
        rotation_residual(pair, *(images[i].camera for i in pair.image_ids))
        < MAX_RESIDUAL
        for pair in inside
    )
    if inside and turned >= MIN_SHARE * len(inside):
        raise ReconstructionError(
            f"no depth: rotation of the camera alone explains the matches of {turned} "
            f"of {len(inside)} pairs; move sideways between images, or give known "
            "cameras in sensors.txt if the camera did move"
        )


def rotation_residual(
    pair: VerifiedPair, first: pycolmap.Camera, second: pycolmap.Camera
) -> float:
    """Median distance of matches from their position under the best rotation.

    Both cameras are assumed to have the same unknown focal length in units of their
    longest side, and no distortion.

    Returns:
        The distance in units of the longest side of the second image.
    """
    step = 1 + len(pair.xy[0]) // MAX_MATCHES
    xy1, xy2 = (
        (xy[::step] - [camera.principal_point_x, camera.principal_point_y])
        / max(camera.width, camera.height)
        for xy, camera in zip(pair.xy, (first, second))
    )
    return min(_residual(xy1, xy2, focal) for focal in FOCAL_LENGTHS)


def _residual(xy1: Array, xy2: Array, focal: float) -> float:
    rays1, rays2 = (np.column_stack([xy, np.full(len(xy), focal)]) for xy in (xy1, xy2))
    rays1 /= np.linalg.norm(rays1, axis=1, keepdims=True)
    rays2 /= np.linalg.norm(rays2, axis=1, keepdims=True)
    kept = np.ones(len(xy1), bool)
    for _ in range(3):
        u, _, v = np.linalg.svd(rays2[kept].T @ rays1[kept])
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
        x, y, z = (rays1 @ rotation.T).T
        z = np.where(z > 0, z, np.nan)
        errors = np.linalg.norm(focal * np.column_stack([x / z, y / z]) - xy2, axis=1)
        errors = np.nan_to_num(errors, nan=np.inf)
        middle = float(np.median(errors))
        kept = errors <= 2 * middle
    return middle
