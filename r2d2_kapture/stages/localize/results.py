"""Outcomes of queries: a JSON file each, and the dataset of their poses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.config.evaluate import PoseFormat
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.io.kapture.pose_files import write_submission
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import write_camera_poses
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic

QUERIES_FOLDER = "queries"
POSES_NAME = "poses.txt"
OPTIONAL = ("added", "refined", "wgs84", "gnss_distance")
"""What only the outcomes in a map with descriptors, with patches, or on Earth, have."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """Support of a pose by map images.

    Attributes:
        map_images: number of images.
        correspondences: of keypoints with points that these images observe.
        inliers: of the pose estimated from them, as pose_estimation.count_inliers
            counts; 0 without a pose.
    """

    map_images: int
    correspondences: int
    inliers: int


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What the registration of an image's keypoints did.

    Attributes:
        registered: correspondences that agree with the first pose and whose point has
            a patch.
        moved: those of them whose keypoint got another position.
        median_step: of these, in pixels.
        before: their median distance in pixels from their points, by the first pose.
        after: the same of the positions found, by the final pose.
    """

    registered: int
    moved: int
    median_step: float
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The outcome of one query image.

    Attributes:
        image: its name.
        reason: why there is no pose; None if there is one.
        inputs: SHA-256 of all inputs of the outcome.
        paired: number of images that it is paired with.
        matches: with those that are in the map.
        correspondences: of its keypoints with map points.
        inliers: that agree with the pose, as pose_estimation.count_inliers counts.
        tried: sets of map images used: first all of them, then each covisible group if
            there are several; for a rig, those of all its images.
        rig: images that share a pose with this one; empty without a rig.
        cam_from_world: qw, qx, qy, qz, tx, ty, tz; None without a pose.
        covariance: (6, 6) of cam_from_world for keypoint errors of 1 px, see
            pose_estimation.FramePose; None if inliers do not determine the pose.
        position_std: standard deviation of the camera centre from the covariance, root
            of the sum over the axes, in units of the map.
        coverage: share of the image that the inliers cover, see pose_verdict.coverage.
        verdict: ``good`` or ``doubtful``; None without a pose. One for all images of a
            frame.
        doubts: why it is doubtful.
        focal_length: ``fixed``, ``refined`` or ``estimated``.
        camera: kapture's sensor parameters: model, width, height, and so on.
        added: correspondences that a search near the first pose added; None without.
            They do not count as inliers, nor in the verdict.
        refined: what registration did to its keypoints; None where it was not done, or
            the pose was no better.
        wgs84: latitude and longitude in degrees and altitude in metres of the camera,
            if it is known where the map lies on Earth.
        gnss_distance: in metres from the query's own GNSS position, if it has one.
    """

    image: str
    reason: str | None = None
    inputs: str = ""
    paired: int = 0
    matches: int = 0
    correspondences: int = 0
    inliers: int = 0
    tried: tuple[Support, ...] = ()
    rig: tuple[str, ...] = ()
    cam_from_world: tuple[float, ...] | None = None
    covariance: tuple[tuple[float, ...], ...] | None = None
    position_std: float | None = None
    coverage: float | None = None
    verdict: Literal["good", "doubtful"] | None = None
    doubts: tuple[str, ...] = ()
    focal_length: str = "fixed"
    camera: tuple[str, ...] = ()
    added: int | None = None
    refined: Refinement | None = None
    wgs84: tuple[float, ...] | None = None
    gnss_distance: float | None = None

    @property
    def localized(self) -> bool:
        """Whether there is a pose."""
        return self.cam_from_world is not None

    @property
    def pose(self) -> pycolmap.Rigid3d:
        """cam_from_world as pycolmap has it, of a localized query."""
        w, x, y, z, *translation = self.cam_from_world or ()
        rotation = pycolmap.Rotation3d(np.array([x, y, z, w]))
        return pycolmap.Rigid3d(rotation, np.array(translation))

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON values, exact when read back."""
        status = "localized" if self.localized else "failed"
        values = dataclasses.asdict(self)
        optional = {name: values.pop(name) for name in OPTIONAL}
        known = {name: value for name, value in optional.items() if value is not None}
        return {"status": status, **values, **known}


def result_path(output: Path, image: str) -> Path:
    """File of the outcome of a query."""
    return output / QUERIES_FOLDER / f"{image}.json"


def write_result(output: Path, result: QueryResult) -> None:
    """Write the outcome of a query.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json_atomic(result_path(output, result.image), result.to_json())


def read_localized(output: Path, image: str) -> QueryResult | None:
    """Read the outcome of a localized query; None if there is none.

    A file that cannot be read or has another format counts as missing.
    """
    result = read_result(output, image)
    return result if result is not None and result.localized else None


def read_result(output: Path, image: str) -> QueryResult | None:
    """Read the outcome of a query, also of one without a pose, as read_localized."""
    try:
        content = read_json(result_path(output, image))
        status = content.pop("status")
        content["tried"] = tuple(Support(**tried) for tried in content["tried"])
        for name in ("rig", "cam_from_world", "camera", "doubts"):
            content[name] = content[name] and tuple(content[name])
        content["wgs84"] = tuple(content.get("wgs84", ())) or None
        refined = content.get("refined")
        content["refined"] = refined and Refinement(**refined)
        if content["covariance"] is not None:
            content["covariance"] = tuple(map(tuple, content["covariance"]))
        result = QueryResult(**content)
    except (ValueError, TypeError, KeyError):
        return None
    if status == "failed":
        return result if not result.localized and result.reason else None
    whole = len(result.cam_from_world or ()) == 7 and len(result.camera) > 3
    return result if status == "localized" and whole else None


def read_reason(output: Path, image: str) -> str | None:
    """Why a query has no pose; None if it has one, or has no outcome."""
    reason = read_json(result_path(output, image)).get("reason")
    return None if reason is None else str(reason)


def write_localized(
    output: Path,
    dataset: Dataset,
    results: Iterable[QueryResult],
    form: PoseFormat,
    origin: PixelOrigin,
) -> None:
    """Write the poses of localized queries as a kapture dataset and as text.

    Args:
        output: folder of the dataset and of the text.
        dataset: of the queries.
        results: their outcomes.
        form: format of the text.
        origin: pixel origin of the dataset's principal points.

    Raises:
        DatasetError: names that the text format cannot distinguish.
        OutputError: the file cannot be written.
    """
    localized = {result.image: result for result in results if result.localized}
    poses = {name: result.pose for name, result in localized.items()}
    write_camera_poses(output, with_found_cameras(dataset, localized), poses)
    write_origin(output / "sensors", origin)
    write_submission(output / POSES_NAME, dataset, poses, form)


def with_found_cameras(
    dataset: Dataset, localized: Mapping[str, QueryResult]
) -> Dataset:
    """The dataset with the cameras estimated by localization.

    The sensor of a single image gets its estimated camera; a sensor of several images
    stays, and each image with an estimated focal length gets its own sensor,
    ``ID@TIMESTAMP``.
    """
    data = dataset.data
    records = image_records(data)
    images_of = Counter(record.sensor_id for record in records.values())
    sensors = kapture.Sensors()
    for sensor_id, sensor in data.sensors.items():
        sensors[sensor_id] = sensor
    camera_records = kapture.RecordsCamera()
    for timestamp, sensor_id, name in records.values():
        result = localized.get(name)
        if result is not None and result.focal_length != "fixed":
            label = sensors[sensor_id].name
            if images_of[sensor_id] > 1:
                sensor_id = f"{sensor_id}@{timestamp}"
            model, *parameters = result.camera
            sensors[sensor_id] = kapture.Camera(model, parameters, name=label)
        camera_records[timestamp, sensor_id] = name
    changed = kapture.Kapture(
        sensors=sensors,
        rigs=data.rigs,
        records_camera=camera_records,
    )
    return dataclasses.replace(dataset, data=changed)
