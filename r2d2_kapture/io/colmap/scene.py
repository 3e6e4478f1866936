"""What COLMAP knows of images, of a database, a model, or both: cameras to poses.

COLMAP numbers cameras, rigs and frames, and kapture names sensors and counts time: a
camera becomes ``camera_00001``, a rig of several cameras ``rig_00001``, a frame a
timestamp, which is its place in the order of the names of images. A rig is based on its
reference camera, whose pose in it is none; a rig of one camera is that camera.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import (
    UNKNOWN_CAMERA,
    UNKNOWN_FOCAL_FACTOR,
    kapture_camera,
)
from r2d2_kapture.io.colmap.stored_database import StoredDatabase
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.io.kapture.tables import CameraRecord
from r2d2_kapture.types import some_names

RigMembers = Mapping[int, pycolmap.Rigid3d | None]
"""cam_from_rig of each camera; None where it is unknown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneFrame:
    """Images that a rig took at one time.

    Attributes:
        image_ids: in order of names.
        rig: number of the rig in the scene.
        rig_from_world: None where it is unknown.
    """

    image_ids: tuple[int, ...]
    rig: int
    rig_from_world: pycolmap.Rigid3d | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ColmapScene:
    """Cameras, rigs and images, by COLMAP's ids.

    Attributes:
        cameras: in COLMAP's pixel origin.
        rigs: of all cameras, each in one, the reference first.
        frames: of all images, each in one, in order of their first names.
        names: of images.
        camera_of: the camera of each image.
        guessed: cameras whose parameters COLMAP made up from the image's size.
    """

    cameras: Mapping[int, pycolmap.Camera]
    rigs: Sequence[RigMembers]
    frames: Sequence[SceneFrame]
    names: Mapping[int, str]
    camera_of: Mapping[int, int]
    guessed: frozenset[int] = frozenset()

    @property
    def posed(self) -> int:
        """How many images have a pose."""
        return sum(
            self.rigs[frame.rig][self.camera_of[image_id]] is not None
            for frame in self.frames
            if frame.rig_from_world is not None
            for image_id in frame.image_ids
        )

    @property
    def real_rigs(self) -> dict[int, dict[int, pycolmap.Rigid3d]]:
        """Rigs with several cameras of known place, by number."""
        known = {
            number: {c: pose for c, pose in members.items() if pose is not None}
            for number, members in enumerate(self.rigs)
        }
        return {number: cams for number, cams in known.items() if len(cams) > 1}

    @property
    def unplaced(self) -> list[int]:
        """Cameras of rigs whose place in it is unknown."""
        return [c for rig in self.rigs for c, pose in rig.items() if pose is None]

    def _cam_from_world(
        self, camera_id: int, frame: SceneFrame
    ) -> pycolmap.Rigid3d | None:
        members = self.rigs[frame.rig]
        cam_from_rig = members[camera_id]
        if cam_from_rig is None or frame.rig_from_world is None:
            return None
        # a product with no rotation may change the last digit
        is_reference = cam_from_rig == pycolmap.Rigid3d()
        return (
            frame.rig_from_world
            if is_reference
            else cam_from_rig * frame.rig_from_world
        )

    def records(self) -> Iterator[CameraRecord]:
        """The record of each image, in order of time."""
        for timestamp, frame in enumerate(self.frames):
            for image_id in frame.image_ids:
                sensor = sensor_id(self.camera_of[image_id])
                yield CameraRecord(timestamp, sensor, self.names[image_id])

    def to_kapture(self, origin: PixelOrigin) -> kapture.Kapture:
        """Sensors, rigs, records and trajectories.

        Args:
            origin: that principal points are to be counted from.

        Raises:
            DatasetError: a camera model that kapture does not have.
        """
        made = kapture.Kapture(
            sensors=kapture.Sensors(),
            rigs=kapture.Rigs() if self.real_rigs else None,
            trajectories=kapture.Trajectories() if self.posed else None,
            records_camera=kapture.RecordsCamera(),
        )
        for camera_id, camera in sorted(self.cameras.items()):
            made.sensors[sensor_id(camera_id)] = (
                _unknown_camera(camera)
                if camera_id in self.guessed
                else kapture_camera(camera, origin)
            )
        rig_ids: dict[int, str] = {}
        for number, members in self.real_rigs.items():
            rig_ids[number] = f"rig_{len(rig_ids) + 1:05d}"
            for camera_id, cam_from_rig in members.items():
                pose = kapture_from_rigid3d(cam_from_rig)
                made.rigs[rig_ids[number], sensor_id(camera_id)] = pose
        for timestamp, frame in enumerate(self.frames):
            if frame.rig_from_world is None:
                continue
            if frame.rig in rig_ids:
                pose = kapture_from_rigid3d(frame.rig_from_world)
                made.trajectories[timestamp, rig_ids[frame.rig]] = pose
                continue
            for camera_id in map(self.camera_of.__getitem__, frame.image_ids):
                placed = self._cam_from_world(camera_id, frame)
                if placed is not None:
                    pose = kapture_from_rigid3d(placed)
                    made.trajectories[timestamp, sensor_id(camera_id)] = pose
        for timestamp, sensor, name in self.records():
            made.records_camera[timestamp, sensor] = name
        return made


def sensor_id(camera_id: int) -> str:
    """The name of a camera in kapture; ``cam_00001`` would say COLMAP's origin."""
    return f"camera_{camera_id:05d}"


def scene_of_model(model: pycolmap.Reconstruction) -> ColmapScene:
    """The scene of a model, its registered images with poses."""
    names = {image_id: image.name for image_id, image in model.images.items()}
    order = sorted(model.rigs)
    frames = [
        SceneFrame(
            image_ids=tuple(
                data.id
                for data in frame.data_ids
                if data.sensor_id.type == pycolmap.SensorType.CAMERA
                and data.id in names
            ),
            rig=order.index(frame.rig_id),
            rig_from_world=frame.rig_from_world if frame.has_pose() else None,
        )
        for frame in model.frames.values()
    ]
    return ColmapScene(
        cameras=dict(model.cameras),
        rigs=[_members(model.rigs[rig_id]) for rig_id in order],
        frames=_in_order(frames, names),
        names=names,
        camera_of={i: image.camera_id for i, image in model.images.items()},
    )


def scene_of_database(database: StoredDatabase) -> ColmapScene:
    """The scene of a database, with the poses that one of COLMAP 3 may have."""
    cameras = database.cameras()
    content = database.content
    rigs = [_members(rig) for rig in database.rigs()]
    held = {camera_id for members in rigs for camera_id in members}
    alone = [camera_id for camera_id in cameras if camera_id not in held]
    rigs += [{camera_id: pycolmap.Rigid3d()} for camera_id in alone]
    frame_of = database.frames()
    poses = database.prior_poses()
    frames = _grouped(rigs, content.names, content.camera_of, frame_of)
    return ColmapScene(
        cameras=cameras,
        rigs=rigs,
        frames=[
            dataclasses.replace(frame, rig_from_world=poses.get(frame.image_ids[0]))
            for frame in frames
        ],
        names=dict(content.names),
        camera_of=dict(content.camera_of),
        guessed=frozenset(i for i, camera in cameras.items() if _is_guess(camera)),
    )


def joined(
    database: ColmapScene, model: ColmapScene, places: tuple[str, str]
) -> ColmapScene:
    """The images of a database with what a model of it says of them.

    Cameras, rigs and frames are those of the model, in ids of the database, where the
    model has them.

    Args:
        database, model: images are the same by name.
        places: of both, for messages.

    Raises:
        DatasetError: the model was made of another database.
    """
    image_ids = {name: image_id for image_id, name in database.names.items()}
    unknown = sorted(set(model.names.values()) - image_ids.keys())
    if unknown:
        raise DatasetError(
            f"{places[1]}: found {len(unknown)} images that are not in {places[0]}, "
            f"such as {some_names(unknown[:1])}, expected a model of its images; give "
            "the database that it was made of, or the model alone"
        )
    ids = {image_id: image_ids[name] for image_id, name in model.names.items()}
    camera_ids = _same_cameras(database, model, ids, places)
    rigs: list[RigMembers] = [
        {camera_ids[c]: pose for c, pose in members.items() if c in camera_ids}
        for members in model.rigs
    ]
    held = set(camera_ids.values())
    rigs += [
        {c: pose for c, pose in members.items() if c not in held}
        for members in database.rigs
    ]
    frames = [
        SceneFrame(
            image_ids=tuple(ids[image_id] for image_id in frame.image_ids),
            rig=frame.rig,
            rig_from_world=frame.rig_from_world,
        )
        for frame in model.frames
    ]
    _add_others(frames, rigs, database)
    return ColmapScene(
        cameras={
            **database.cameras,
            **{new: model.cameras[old] for old, new in camera_ids.items()},
        },
        rigs=rigs,
        frames=_in_order(frames, database.names),
        names=database.names,
        camera_of=database.camera_of,
        guessed=database.guessed - held,
    )


def _same_cameras(
    database: ColmapScene,
    model: ColmapScene,
    ids: Mapping[int, int],
    places: tuple[str, str],
) -> dict[int, int]:
    """The database's id of each camera of the model that took an image."""
    camera_ids: dict[int, int] = {}
    for image_id, camera_id in sorted(model.camera_of.items()):
        theirs = database.camera_of[ids[image_id]]
        if camera_ids.setdefault(camera_id, theirs) != theirs:
            raise DatasetError(
                f"{places[1]}: found '{model.names[image_id]}' of camera {camera_id}, "
                f"whose other images are of camera {camera_ids[camera_id]} in "
                f"{places[0]}, but this one of {theirs}; give the database that the "
                "model was made of, or the model alone"
            )
    # of a rig whose images are not all there, by its number as COLMAP keeps it
    free = database.cameras.keys() - camera_ids.values()
    for camera_id in model.cameras.keys() - camera_ids.keys():
        if camera_id in free:
            camera_ids[camera_id] = camera_id
    if len(set(camera_ids.values())) < len(camera_ids):
        raise DatasetError(
            f"{places[1]}: found several cameras where {places[0]} has one; give the "
            "database that the model was made of, or the model alone"
        )
    return camera_ids


def _add_others(
    frames: list[SceneFrame], rigs: Sequence[RigMembers], database: ColmapScene
) -> None:
    """Add the images that a model does not have, to its frames where they belong."""
    rig_of = {c: number for number, members in enumerate(rigs) for c in members}
    place_of = {i: place for place, frame in enumerate(frames) for i in frame.image_ids}
    for frame in database.frames:
        others: defaultdict[int, list[int]] = defaultdict(list)
        for image_id in frame.image_ids:
            if image_id not in place_of:
                others[rig_of[database.camera_of[image_id]]].append(image_id)
        for rig, more in others.items():
            places = [place_of[i] for i in frame.image_ids if i in place_of]
            place = next((p for p in places if frames[p].rig == rig), None)
            if place is None:
                frames.append(
                    SceneFrame(image_ids=tuple(more), rig=rig, rig_from_world=None)
                )
            else:
                frames[place] = dataclasses.replace(
                    frames[place], image_ids=(*frames[place].image_ids, *more)
                )


def _members(rig: pycolmap.Rig) -> dict[int, pycolmap.Rigid3d | None]:
    """The cameras of a rig, that of reference first; other sensors are left out."""
    members: dict[int, pycolmap.Rigid3d | None] = {}
    if rig.ref_sensor_id.type == pycolmap.SensorType.CAMERA:
        members[rig.ref_sensor_id.id] = pycolmap.Rigid3d()
    for sensor, cam_from_rig in sorted(
        rig.non_ref_sensors.items(), key=lambda item: int(item[0].id)
    ):
        if sensor.type == pycolmap.SensorType.CAMERA:
            members[sensor.id] = cam_from_rig
    return members


def _grouped(
    rigs: Sequence[RigMembers],
    names: Mapping[int, str],
    camera_of: Mapping[int, int],
    frame_of: Mapping[int, int],
) -> list[SceneFrame]:
    """Frames without pose; an image without frame is one of its own."""
    rig_of = {c: number for number, members in enumerate(rigs) for c in members}
    groups: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    for image_id in names:
        frame_id = frame_of.get(image_id)
        key = (0, image_id) if frame_id is None else (1, frame_id)
        groups[(*key, rig_of[camera_of[image_id]])].append(image_id)
    frames = [
        SceneFrame(image_ids=tuple(ids), rig=rig, rig_from_world=None)
        for (_, _, rig), ids in groups.items()
    ]
    return _in_order(frames, names)


def _in_order(
    frames: Iterable[SceneFrame], names: Mapping[int, str]
) -> list[SceneFrame]:
    """Frames and their images by name, without empty ones."""
    sorted_frames = [
        SceneFrame(
            image_ids=tuple(sorted(frame.image_ids, key=names.__getitem__)),
            rig=frame.rig,
            rig_from_world=frame.rig_from_world,
        )
        for frame in frames
        if frame.image_ids
    ]
    return sorted(sorted_frames, key=lambda frame: names[frame.image_ids[0]])


def _is_guess(camera: pycolmap.Camera) -> bool:
    """Whether COLMAP made a camera up: it says so, and the numbers are its own."""
    if camera.has_prior_focal_length:
        return False
    made_up = pycolmap.Camera.create_from_model_id(
        camera.camera_id,
        camera.model,
        UNKNOWN_FOCAL_FACTOR * max(camera.width, camera.height),
        camera.width,
        camera.height,
    )
    return np.array_equal(camera.params, made_up.params)


def _unknown_camera(camera: pycolmap.Camera) -> kapture.Camera:
    """One that kapture knows the size of; its name is the model, see cameras.py."""
    size = [camera.width, camera.height]
    return kapture.Camera(UNKNOWN_CAMERA, size, camera.model_name)
