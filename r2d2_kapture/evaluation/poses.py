"""Errors of estimated camera poses, and how many are small enough.

The measures of visuallocalization.net (Sattler et al., CVPR 2018): the position error
is the distance between camera centres, the rotation error the angle between
orientations, and recall the share of images that are within a position threshold and
the rotation threshold paired with it. An image without estimate is outside of every
threshold.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.evaluate import DEFAULT_THRESHOLDS
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.alignment import (
    Alignment,
    align_poses,
    box_diagonal,
    camera_set,
)

Array = npt.NDArray[np.float64]
Thresholds = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class PoseError:
    """Error of one image.

    Attributes:
        name: of the image.
        position: distance of the camera centres in the dataset's unit (metres);
            infinite where there is no estimate.
        rotation: angle between the orientations in degrees; infinite likewise.
    """

    name: str
    position: float
    rotation: float

    @property
    def localized(self) -> bool:
        """Whether the image has an estimate."""
        return math.isfinite(self.position)


@dataclass(frozen=True, kw_only=True)
class PoseSummary:
    """Errors of a set of images in a few numbers; metres and degrees.

    Attributes:
        images: how many have a true pose.
        localized: how many of these have an estimate.
        median_position, median_rotation, mean_position, mean_rotation: over the
            localized images; None where there are none.
        median_position_of_all, median_rotation_of_all: missing images count as
            infinitely far; None where that is infinite.
        recall: share of all images within each pair of thresholds, 0 to 1.
    """

    images: int
    localized: int
    median_position: float | None
    median_rotation: float | None
    mean_position: float | None
    mean_rotation: float | None
    median_position_of_all: float | None
    median_rotation_of_all: float | None
    recall: tuple[float, ...]

    @property
    def missing(self) -> int:
        """How many images have no estimate."""
        return self.images - self.localized

    def to_json(self, thresholds: Thresholds) -> dict[str, Any]:
        """Plain values, with the thresholds and their recall."""
        return {
            "images": self.images,
            "localized": self.localized,
            "missing": self.missing,
            "median_position": self.median_position,
            "median_rotation": self.median_rotation,
            "mean_position": self.mean_position,
            "mean_rotation": self.mean_rotation,
            "median_position_of_all": self.median_position_of_all,
            "median_rotation_of_all": self.median_rotation_of_all,
            "recall": [
                {"position": position, "rotation": rotation, "share": share}
                for (position, rotation), share in zip(thresholds, self.recall)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class PoseEvaluation:
    """What an estimate is worth.

    Attributes:
        errors: of every image with a true pose, in order of names.
        thresholds: pairs of metres and degrees.
        total: of all images.
        conditions: of groups of images, by name of the group.
        extent: length of the diagonal of the box around the true camera centres.
        alignment: how the estimate was moved before it was compared, if it was.
        estimated: cam_from_world as compared, by name of the localized images.
    """

    errors: tuple[PoseError, ...]
    thresholds: tuple[tuple[float, float], ...]
    total: PoseSummary
    conditions: Mapping[str, PoseSummary]
    extent: float
    alignment: Alignment | None
    estimated: Mapping[str, pycolmap.Rigid3d] = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, infinities as None, without the errors of single images."""
        return {
            "total": self.total.to_json(self.thresholds),
            "conditions": {
                name: summary.to_json(self.thresholds)
                for name, summary in self.conditions.items()
            },
            "extent": self.extent,
            "alignment": None if self.alignment is None else self.alignment.to_json(),
        }


def evaluate_poses(
    true: Mapping[str, pycolmap.Rigid3d],
    estimated: Mapping[str, pycolmap.Rigid3d],
    *,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    conditions: Mapping[str, Collection[str]] | None = None,
    align: bool = False,
) -> PoseEvaluation:
    """Compare estimated camera poses with the true ones.

    Args:
        true: cam_from_world by image name; these images are evaluated.
        estimated: the same; images that ``true`` lacks are left out.
        thresholds: pairs of metres and degrees; on the threshold is within.
        conditions: names of images by name of a group; names that ``true`` lacks are
            left out, and an image may be in several groups.
        align: move the estimate onto the truth by a similarity first. Without any
            estimate there is nothing to move, and all images are missing.

    Raises:
        DatasetError: no true pose.
        ReconstructionError: the estimate cannot be aligned, see ``align_poses``.
    """
    if not true:
        raise DatasetError("evaluation: found no true pose, expected at least one")
    common = {name: estimated[name] for name in sorted(true) if name in estimated}
    alignment = align_poses(true, common) if align and common else None
    if alignment is not None:
        move = alignment.truth_from_estimate.transform_camera_world
        common = {name: move(pose) for name, pose in common.items()}
    errors = pose_errors(true, common)
    error_of = {error.name: error for error in errors}
    groups = {
        condition: [error_of[name] for name in sorted(error_of.keys() & set(names))]
        for condition, names in (conditions or {}).items()
    }
    return PoseEvaluation(
        errors=errors,
        thresholds=tuple(thresholds),
        total=summarize(errors, thresholds),
        conditions={
            condition: summarize(group, thresholds)
            for condition, group in groups.items()
        },
        extent=box_diagonal(camera_set(list(true.values())).centers),
        alignment=alignment,
        estimated=common,
    )


def pose_errors(
    true: Mapping[str, pycolmap.Rigid3d], estimated: Mapping[str, pycolmap.Rigid3d]
) -> tuple[PoseError, ...]:
    """The error of each image of ``true``, in order of names."""
    names = [name for name in sorted(true) if name in estimated]
    found: dict[str, PoseError] = {}
    if names:
        truth = camera_set([true[name] for name in names])
        estimate = camera_set([estimated[name] for name in names])
        distances = np.linalg.norm(estimate.centers - truth.centers, axis=1)
        turns = truth.world_from_cam.inv() * estimate.world_from_cam
        found = {
            name: PoseError(name=name, position=position, rotation=rotation)
            for name, position, rotation in zip(
                names, distances.tolist(), np.degrees(turns.magnitude()).tolist()
            )
        }
    missing = {"position": math.inf, "rotation": math.inf}
    return tuple(
        found.get(name, PoseError(name=name, **missing)) for name in sorted(true)
    )


def summarize(errors: Sequence[PoseError], thresholds: Thresholds) -> PoseSummary:
    """Medians, means and recall of a set of images, which may be empty."""
    position = np.array([error.position for error in errors])
    rotation = np.array([error.rotation for error in errors])
    localized = np.isfinite(position)
    recall = [
        float(np.mean((position <= near) & (rotation <= straight))) if errors else 0.0
        for near, straight in thresholds
    ]
    return PoseSummary(
        images=len(errors),
        localized=int(localized.sum()),
        median_position=_finite(np.median, position[localized]),
        median_rotation=_finite(np.median, rotation[localized]),
        mean_position=_finite(np.mean, position[localized]),
        mean_rotation=_finite(np.mean, rotation[localized]),
        median_position_of_all=_finite(np.median, position),
        median_rotation_of_all=_finite(np.median, rotation),
        recall=tuple(recall),
    )


def _finite(statistic: Any, values: Array) -> float | None:
    """The statistic, or None where it is infinite or there are no values."""
    value = float(statistic(values)) if len(values) else math.inf
    return value if math.isfinite(value) else None


def conditions_by_folder(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Group image names, at least one, by the first sub-folder in which they differ.

    Names in the deepest folder that holds them all are the group ``.``.
    """
    common = posixpath.commonpath([posixpath.dirname(name) for name in names])
    depth = len(common.split("/")) if common else 0
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        folders = name.split("/")[depth:-1]
        groups.setdefault(folders[0] if folders else ".", []).append(name)
    return {condition: tuple(groups[condition]) for condition in sorted(groups)}
