"""The cameras of queries: which images share a rig, and what their intrinsics are."""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.io.colmap.cameras import (
    UNKNOWN_CAMERA,
    camera_sensors,
    image_cameras,
    photograph_camera,
)
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.rigs import rig_cameras
from r2d2_kapture.io.kapture.tables import image_records

FocalKnowledge = Literal["fixed", "refined", "estimated"]


@dataclass(frozen=True, kw_only=True)
class QueryImage:
    """A query image.

    Attributes:
        name: of the image.
        path: its file, which may be missing.
        sensor_id: the camera that took it.
        camera: in COLMAP's pixel origin; must be copied, because pycolmap modifies
            cameras whose focal length it refines.
        focal_length: ``fixed`` if known, ``refined`` if approximate, ``estimated`` if
            unknown.
        refine_distortion: whether the distortion is unknown too.
        cam_from_rig: identity for an image without a rig.
    """

    name: str
    path: Path
    sensor_id: str
    camera: pycolmap.Camera
    focal_length: FocalKnowledge
    refine_distortion: bool
    cam_from_rig: pycolmap.Rigid3d


@dataclass(frozen=True, kw_only=True)
class QueryFrame:
    """Images that share a pose: a single image, or those of a rig at one time.

    Attributes:
        rig_id: None for a single image.
        images: in order of names.
    """

    rig_id: str | None
    images: tuple[QueryImage, ...]


def query_frames(
    dataset: Dataset, origin: PixelOrigin, config: LocalizeConfig
) -> list[QueryFrame]:
    """Group the images of a dataset into frames, in order of their first names.

    Images of unknown focal length form frames of their own: pycolmap does not return
    the focal lengths that it estimates for a rig.

    Raises:
        DatasetError: inconsistent rigs or records, a camera without size, or an image
            recorded twice.
    """
    sensors = camera_sensors(dataset.data)
    of_image = image_cameras(dataset.data, origin)
    unknown = {
        sensor_id
        for sensor_id, sensor in sensors.items()
        if sensor.camera_type.name == UNKNOWN_CAMERA
    }
    rigs = rig_cameras(dataset.data, sensors) if config.rigs == "auto" else {}
    rig_of_camera = {camera: rig for rig, cameras in rigs.items() for camera in cameras}

    frames: defaultdict[tuple[str, int] | str, list[QueryImage]] = defaultdict(list)
    for record in image_records(dataset.data).values():
        sensor_id = record.sensor_id
        image = QueryImage(
            name=record.name,
            path=dataset.image_path(record.name),
            sensor_id=sensor_id,
            camera=of_image[record.name],
            focal_length=_knowledge(sensor_id in unknown, config),
            refine_distortion=sensor_id in unknown,
            cam_from_rig=pycolmap.Rigid3d(),
        )
        rig_id = rig_of_camera.get(sensor_id)
        if rig_id is None or image.focal_length != "fixed":
            frames[record.name].append(image)
        else:
            cam_from_rig = rigs[rig_id][sensor_id]
            image = dataclasses.replace(image, cam_from_rig=cam_from_rig)
            frames[rig_id, record.timestamp].append(image)
    return [_frame(key, images) for key, images in frames.items()]


def _frame(key: tuple[str, int] | str, images: list[QueryImage]) -> QueryFrame:
    if isinstance(key, tuple) and len(images) > 1:
        return QueryFrame(rig_id=key[0], images=tuple(images))
    alone = dataclasses.replace(images[0], cam_from_rig=pycolmap.Rigid3d())
    return QueryFrame(rig_id=None, images=(alone,))


def _knowledge(unknown: bool, config: LocalizeConfig) -> FocalKnowledge:
    if unknown or config.focal_length == "estimate":
        return "estimated"
    return "refined" if config.focal_length == "refine" else "fixed"


def with_exif(image: QueryImage) -> QueryImage:
    """Take unknown focal lengths from EXIF, if the file has it.

    The focal length is then refined from there; principal point and distortion stay. A
    file that is missing, unreadable or of another size is ignored.
    """
    if image.focal_length != "estimated":
        return image
    size = (image.camera.width, image.camera.height)
    found = photograph_camera(image.path, size)
    if found is None:
        return image
    camera = copy.deepcopy(image.camera)
    set_focal_length(camera, found.mean_focal_length())
    return dataclasses.replace(image, camera=camera, focal_length="refined")


def set_focal_length(camera: pycolmap.Camera, focal_length: float) -> None:
    """Set the focal length of a camera in pixels, equal along both axes."""
    params = camera.params.copy()
    params[list(camera.focal_length_idxs())] = focal_length
    camera.params = params
