"""The cameras of the 3D view, mapping images and queries, with their facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.evaluation.map_statistics import MapStatistics
from r2d2_kapture.evaluation.poses import conditions_by_folder, pose_errors
from r2d2_kapture.stages.localize import read_reason
from r2d2_kapture.stages.report.subject import QuerySet, Subject
from r2d2_kapture.types import IndexArray

Array = npt.NDArray[np.float64]

MOST_CAMERAS = 4000
"""Greatest number drawn of mapping images, and of queries of each dataset."""
MOST_CONDITIONS = 20
"""Greatest number of conditions of a query dataset; more folders are not conditions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewCamera:
    """A camera that users can click.

    Attributes:
        name: of its image.
        group: the cameras that are shown and hidden together.
        size: (W, H) of its image in pixels.
        facts: labels and values in its panel.
        pose: (3, 4) cam_from_world in the map; None for queries without a pose.
        truth: (3, 4) true cam_from_world of a query, if it is known.
    """

    name: str
    group: str
    size: tuple[int, int]
    facts: tuple[tuple[str, str], ...]
    pose: Array | None
    truth: Array | None = None


def mapping_cameras(
    model: pycolmap.Reconstruction, statistics: MapStatistics
) -> Iterator[ViewCamera]:
    """In order of names; an even sample if there are too many."""
    for row in sampled(len(statistics.images), MOST_CAMERAS):
        one = statistics.images[row]
        image = model.find_image_with_name(one.name)
        camera = model.camera(one.camera_id)
        seen = f"{one.observations:,} of {one.keypoints:,}"
        facts = [("keypoints with a map point", seen)]
        if one.mean_error is not None:
            facts.append(("mean reprojection error", f"{one.mean_error:.2f} px"))
        yield ViewCamera(
            name=one.name,
            group="mapping images",
            size=(camera.width, camera.height),
            facts=(*facts, ("camera", _camera_text(camera))),
            pose=image.cam_from_world().matrix(),
        )


def _camera_text(camera: pycolmap.Camera) -> str:
    return (
        f"{camera.model_name}, {camera.width} x {camera.height} px, focal length "
        f"{camera.mean_focal_length():.0f} px"
    )


def query_cameras(query: QuerySet, subject: Subject) -> Iterator[ViewCamera]:
    names = sorted(query.cameras)
    condition_of = _conditions(query.name, names)
    truth = query.truth if subject.true_frame else {}
    estimated = {name: result.pose for name, result in query.results.items()}
    errors = {error.name: error for error in pose_errors(truth, estimated)}
    for row in sampled(len(names), MOST_CAMERAS):
        name = names[row]
        result = query.results.get(name)
        facts = [("query of", query.name)]
        if result is None:
            reason = read_reason(query.localized, name) or "not found"
            facts.append(("pose", reason))
        else:
            inliers = f"{result.inliers:,} of {result.correspondences:,} matches"
            facts += [("verdict", result.verdict or ""), ("inliers", inliers)]
        if name in errors and errors[name].localized:
            error = errors[name]
            facts.append(
                (
                    "error",
                    f"{error.position:.3g} m, {error.rotation:.3g}\N{DEGREE SIGN}",
                )
            )
        width, height, *_ = query.cameras[name].camera_params
        yield ViewCamera(
            name=name,
            group=condition_of[name],
            size=(int(width), int(height)),
            facts=tuple(facts),
            pose=None if result is None else result.pose.matrix(),
            truth=truth[name].matrix() if name in truth else None,
        )


def _conditions(dataset: str, names: Sequence[str]) -> dict[str, str]:
    """The group of each query: its dataset, and its condition if there are several."""
    groups = conditions_by_folder(names) if names else {}
    if len(groups) > MOST_CONDITIONS:
        groups = {"": tuple(names)}
    return {
        name: f"{dataset}: {condition}" if len(groups) > 1 else dataset
        for condition, members in groups.items()
        for name in members
    }


def sampled(count: int, most: int) -> IndexArray:
    """Evenly spread rows below ``count``, at most ``most``."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)
