"""Models of known poses, made of the cameras, rigs and images of a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

POSE_TOLERANCE = 1e-9
"""Between a pose and the one that a rig gives, relative to the size of its numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DatabaseContent:
    """What a database says of images, apart from keypoints and matches.

    Attributes:
        cameras: by id, in COLMAP's pixel origin.
        rigs, frames: none in a database that leaves trivial ones out.
        images: in order of id.
        matched: ids of images that have matches.
        paired: ids of images that have inlier matches.
        most_inliers: of a pair of each of these images.
        best_partner: id of the other image of that pair.
        verified_pairs: how many pairs have them.
        counts: inliers and matches of each pair that has matches.
    """

    cameras: dict[int, pycolmap.Camera]
    rigs: list[pycolmap.Rig]
    frames: list[pycolmap.Frame]
    images: list[pycolmap.Image]
    matched: frozenset[int]
    paired: frozenset[int]
    most_inliers: dict[int, int]
    best_partner: dict[int, int]
    verified_pairs: int
    counts: dict[tuple[int, int], tuple[int, int]]


def read_database(path: Path) -> DatabaseContent:
    """Read a database that ``check_database`` has passed."""
    with closing(pycolmap.Database.open(str(path))) as database:
        inliers = _images_of_pairs(*database.read_two_view_geometry_num_inliers())
        matches = _images_of_pairs(*database.read_num_matches())
        inliers_of = dict(inliers)
        ascending = sorted(inliers, key=lambda item: item[1])
        return DatabaseContent(
            cameras={
                camera.camera_id: camera for camera in database.read_all_cameras()
            },
            rigs=database.read_all_rigs(),
            frames=database.read_all_frames(),
            images=sorted(database.read_all_images(), key=lambda image: image.image_id),
            matched=frozenset(image_id for pair, _ in matches for image_id in pair),
            paired=frozenset(image_id for pair, _ in inliers for image_id in pair),
            most_inliers={
                image_id: number for pair, number in ascending for image_id in pair
            },
            best_partner={
                image_id: other
                for pair, _ in ascending
                for image_id, other in (pair, pair[::-1])
            },
            verified_pairs=len(inliers),
            counts={pair: (inliers_of.get(pair, 0), count) for pair, count in matches},
        )


def _images_of_pairs(
    pair_ids: Iterable[int], counts: Iterable[int]
) -> list[tuple[tuple[int, int], int]]:
    """The two images of each pair that has any, and how many."""
    return [
        (pycolmap.pair_id_to_image_pair(pair_id), count)
        for pair_id, count in zip(pair_ids, counts)
        if count
    ]


def known_pose_model(
    content: DatabaseContent, cam_from_world: Mapping[str, pycolmap.Rigid3d]
) -> pycolmap.Reconstruction:
    """A model of the cameras, rigs, frames and images of a database, with poses.

    Args:
        content: of the database; ids are the same in the model.
        cam_from_world: by image name. A frame takes the pose of its first image that
            has one; a frame without stays unregistered.
    """
    model = pycolmap.Reconstruction()
    poses = {
        image.image_id: cam_from_world[image.name]
        for image in content.images
        if image.name in cam_from_world
    }
    if not content.rigs:
        for camera in content.cameras.values():
            model.add_camera_with_trivial_rig(camera)
        for image in content.images:
            if image.image_id in poses:
                model.add_image_with_trivial_frame(image, poses[image.image_id])
        return model
    camera_ids = {image.image_id: image.camera_id for image in content.images}
    for camera in content.cameras.values():
        model.add_camera(camera)
    for rig in content.rigs:
        model.add_rig(rig)
    for frame in content.frames:
        model.add_frame(frame)
        posed = sorted(data.id for data in frame.data_ids if data.id in poses)
        if posed:
            model.frame(frame.frame_id).set_cam_from_world(
                camera_ids[posed[0]], poses[posed[0]]
            )
    for image in content.images:
        model.add_image(image)
    for frame_id, frame in model.frames.items():
        if frame.has_pose():
            model.register_frame(frame_id)
    return model


def poses_differ(
    model: pycolmap.Reconstruction, cam_from_world: Mapping[str, pycolmap.Rigid3d]
) -> list[str]:
    """Images whose rig puts them elsewhere than their own pose does."""
    differing = []
    for image in model.images.values():
        if image.has_pose and image.name in cam_from_world:
            own = cam_from_world[image.name].matrix()
            tolerance = POSE_TOLERANCE * max(1.0, np.abs(own).max())
            if np.abs(image.cam_from_world().matrix() - own).max() > tolerance:
                differing.append(image.name)
    return sorted(differing)


def drop_rigs(path: Path) -> None:
    """Make a database one of single cameras."""
    with closing(pycolmap.Database.open(str(path))) as database:
        database.clear_frames()
        database.clear_rigs()
