"""Similarity between the frame of an estimated map and that of the true poses.

Camera centres alone leave a rotation open where they are nearly on a line, so the
orientations of the cameras count too. A similarity follows from two cameras: the
rotation from one, the scale from their distance. The best of many such guesses, and of
the one from all centres (Umeyama 1991), by the median distance over all cameras (least
median of squares, Rousseeuw 1984), is refined over centres and orientations with a
robust loss: nearly half of the cameras may be grossly wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import ReconstructionError

Array = npt.NDArray[np.float64]

MAX_GUESSES = 200
REFINEMENTS = 3
CAUCHY_95_PERCENT = 2.385
"""Scale at which the Cauchy loss is 95 % as efficient as squares on Gaussian noise."""
MEDIAN_OF_NORM = 1.538
"""Median length of three Gaussian numbers of standard deviation 1."""
SMALLEST_NOISE = 1e-9
"""Radians, and share of the extent: keeps exact data from a division by zero."""


@dataclass(frozen=True, kw_only=True)
class CameraSet:
    """Cameras as arrays.

    Attributes:
        centers: (N, 3) float64, positions in the world.
        world_from_cam: N rotations.
    """

    centers: Array
    world_from_cam: Rotation

    def __len__(self) -> int:
        return len(self.centers)


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How an estimate was moved onto the true poses, and what remained.

    Attributes:
        truth_from_estimate: the similarity.
        images: how many cameras it was found from.
        extent: length of the diagonal of the box around the true centres of these.
        position_median: of the distances between centres after alignment.
        position_rms: root of the mean of the squared distances.
        rotation_median: of the angles between orientations, degrees.
    """

    truth_from_estimate: pycolmap.Sim3d
    images: int
    extent: float
    position_median: float
    position_rms: float
    rotation_median: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; the rotation as a quaternion qw, qx, qy, qz."""
        x, y, z, w = self.truth_from_estimate.rotation.quat.tolist()
        return {
            "scale": float(self.truth_from_estimate.scale),
            "rotation": [w, x, y, z],
            "translation": self.truth_from_estimate.translation.tolist(),
            "images": self.images,
            "extent": self.extent,
            "position_median": self.position_median,
            "position_rms": self.position_rms,
            "rotation_median": self.rotation_median,
        }


def camera_set(cam_from_world: list[pycolmap.Rigid3d]) -> CameraSet:
    """The centres and orientations of poses; at least one."""
    quaternions = np.array([pose.rotation.quat for pose in cam_from_world])
    translations = np.array([pose.translation for pose in cam_from_world])
    world_from_cam = Rotation.from_quat(quaternions).inv()
    return CameraSet(
        centers=-world_from_cam.apply(translations), world_from_cam=world_from_cam
    )


def box_diagonal(points: Array) -> float:
    """Length of the diagonal of the axis-parallel box around (N, 3) points, N >= 1."""
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def align_poses(
    true: Mapping[str, pycolmap.Rigid3d], estimated: Mapping[str, pycolmap.Rigid3d]
) -> Alignment:
    """Find the similarity that brings estimated cameras onto the true ones.

    Args:
        true: cam_from_world by image name.
        estimated: the same, in a frame and a scale of its own.

    Raises:
        ReconstructionError: fewer than two common images, or all of them at one place.
    """
    names = sorted(true.keys() & estimated.keys())
    if len(names) < 2:
        raise ReconstructionError(
            f"alignment: found {len(names)} images with a true and an estimated pose, "
            "expected 2 or more; evaluate without alignment, or localize more images"
        )
    truth = camera_set([true[name] for name in names])
    estimate = camera_set([estimated[name] for name in names])
    extent = box_diagonal(truth.centers)
    similarity = min(
        _guesses(truth, estimate),
        key=lambda guess: _median_offset(guess, truth, estimate),
        default=None,
    )
    if similarity is None:
        raise ReconstructionError(
            f"alignment: the centres of all {len(names)} cameras are at one place, "
            "expected some distance to find the scale from; evaluate without alignment"
        )
    for _ in range(REFINEMENTS):
        similarity = _refined(similarity, truth, estimate, extent)
    offsets, turns = _residuals(similarity, truth, estimate)
    distances = np.linalg.norm(offsets, axis=1)
    angles = np.degrees(np.linalg.norm(turns, axis=1))
    return Alignment(
        truth_from_estimate=similarity,
        images=len(names),
        extent=extent,
        position_median=float(np.median(distances)),
        position_rms=float(np.sqrt(np.mean(distances**2))),
        rotation_median=float(np.median(angles)),
    )


def _guesses(truth: CameraSet, estimate: CameraSet) -> Iterator[pycolmap.Sim3d]:
    """Similarities from pairs of cameras, and one from all centres."""
    for i, j in _pairs(len(truth)):
        rotation = truth.world_from_cam[i] * estimate.world_from_cam[i].inv()
        length = np.linalg.norm(estimate.centers[j] - estimate.centers[i])
        true_length = np.linalg.norm(truth.centers[j] - truth.centers[i])
        if min(length, true_length) > 0:
            scale = float(true_length / length)
            moved = scale * rotation.apply(estimate.centers[i])
            yield _similarity(scale, rotation, truth.centers[i] - moved)
    if len(truth) >= 3:
        umeyama = pycolmap.estimate_sim3d(estimate.centers, truth.centers)
        if umeyama is not None:
            yield umeyama


def _pairs(count: int) -> list[tuple[int, int]]:
    """All ordered pairs of cameras, or the same random ones in each run."""
    if count * (count - 1) <= MAX_GUESSES:
        return list(itertools.permutations(range(count), 2))
    rng = np.random.default_rng(0)
    first = rng.integers(count, size=MAX_GUESSES)
    second = (first + rng.integers(1, count, size=MAX_GUESSES)) % count
    return list(zip(first.tolist(), second.tolist()))


def _similarity(scale: float, rotation: Rotation, translation: Array) -> pycolmap.Sim3d:
    return pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation.as_quat()), translation)


def _residuals(
    similarity: pycolmap.Sim3d, truth: CameraSet, estimate: CameraSet
) -> tuple[Array, Array]:
    """(N, 3) offsets of centres in true units and (N, 3) rotation vectors, radians."""
    rotation = Rotation.from_quat(similarity.rotation.quat)
    moved = similarity.scale * rotation.apply(estimate.centers) + similarity.translation
    turned = rotation * estimate.world_from_cam
    return moved - truth.centers, (truth.world_from_cam.inv() * turned).as_rotvec()


def _median_offset(
    similarity: pycolmap.Sim3d, truth: CameraSet, estimate: CameraSet
) -> float:
    """Orientations do not count here: they may all be off by a convention of axes."""
    offsets, _ = _residuals(similarity, truth, estimate)
    return float(np.median(np.linalg.norm(offsets, axis=1)))


def _refined(
    start: pycolmap.Sim3d, truth: CameraSet, estimate: CameraSet, extent: float
) -> pycolmap.Sim3d:
    """Minimise a Cauchy loss of offsets and turns, each in units of its own noise."""
    offsets, turns = _residuals(start, truth, estimate)
    position_noise = max(_noise(offsets), SMALLEST_NOISE * extent)
    rotation_noise = max(_noise(turns), SMALLEST_NOISE)
    middle = estimate.centers.mean(axis=0)
    start_rotation = Rotation.from_quat(start.rotation.quat)
    start_middle = start.scale * start_rotation.apply(middle) + start.translation

    def similarity(change: Array) -> pycolmap.Sim3d:
        rotation = Rotation.from_rotvec(change[:3]) * start_rotation
        scale = float(start.scale * np.exp(change[3]))
        moved_middle = start_middle + extent * change[4:]
        return _similarity(
            scale, rotation, moved_middle - scale * rotation.apply(middle)
        )

    def errors(change: Array) -> Array:
        offsets, turns = _residuals(similarity(change), truth, estimate)
        stacked: Array = np.concatenate(
            [offsets.ravel() / position_noise, turns.ravel() / rotation_noise]
        )
        return stacked

    found = least_squares(errors, np.zeros(7), loss="cauchy", f_scale=CAUCHY_95_PERCENT)
    return similarity(found.x)


def _noise(residuals: Array) -> float:
    """Standard deviation of each coordinate, from the median length of (N, 3)."""
    lengths = np.linalg.norm(residuals, axis=1)
    return float(np.median(lengths) / MEDIAN_OF_NORM)
