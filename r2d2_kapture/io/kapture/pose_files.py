"""Text files of poses, as visuallocalization.net takes and other tools write them.

One pose per line, ``name qw qx qy qz tx ty tz``: the unit quaternion and translation
that map the world to the camera. The file has neither header nor comments. Names differ
between data sets (checked against the exporters of kapture 1.1.12):

aachen         the file name of the image, without folders
extended_cmu   the same
robotcar       the last folder, if any, and the file name: ``rear/1418133732744920.jpg``
gangnam        the whole name of the image, as kapture keeps it
eth_ms         ``timestamp/device``: the pose is that of the rig where the camera is in
               one, else that of the camera
rio10          the last folder and the file name without ``.color.jpg``:
               ``seq01_02/frame-000000``; the pose maps the camera to the world, as the
               evaluation of github.com/WaldJohannaU/RIO10 reads it (its README writes
               qw last, its programs read it first)

Names with spaces are written as they are. They read back without doubt, because the
last seven fields of a line are the pose; other readers may cut at the first space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np
import pycolmap

from r2d2_kapture.config.evaluate import PoseFormat, TextFormat
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.rigs import RigsAbove, rigs_above
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import resolve_camera_poses
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.names import broken_by, shown
from r2d2_kapture.io.outputs.atomic import write_text_atomic

LINE = "name qw qx qy qz tx ty tz"
NORM_TOLERANCE = 1e-2
"""A quaternion of another length is a sign of columns in another order."""


@dataclass(frozen=True, kw_only=True)
class SubmittedPoses:
    """Poses of a text file, identified by what a dataset knows.

    Attributes:
        cam_from_world: by image name, in order of names.
        unknown: names in the file that stand for no image of the dataset.
        pose_format: how the file names images.
    """

    cam_from_world: dict[str, pycolmap.Rigid3d]
    unknown: tuple[str, ...]
    pose_format: PoseFormat


def write_submission(
    path: Path,
    dataset: Dataset,
    cam_from_world: Mapping[str, pycolmap.Rigid3d],
    pose_format: PoseFormat,
) -> None:
    """Write poses of images as visuallocalization.net wants them, in order of names.

    Of several cameras of a rig at one time, eth_ms takes the pose of the rig from the
    first that has a pose, in order of camera ids.

    Args:
        path: the file to make.
        dataset: that the images belong to.
        cam_from_world: by image name.
        pose_format: the naming.

    Raises:
        DatasetError: an image that the dataset does not hold, two images that the
            format would name alike, or a name that cannot be in a line.
        OutputError: the file system refused.
    """
    records = image_records(dataset.data)
    missing = cam_from_world.keys() - records.keys()
    if missing:
        raise DatasetError(
            f"{path}: cannot write the pose of '{min(missing)}', not an image of "
            f"{dataset.root}"
        )
    if pose_format == "eth_ms":
        poses = _device_poses(dataset, cam_from_world)
    else:
        names = _short_names(cam_from_world, _SHORTEN[pose_format], path)
        poses = {
            short: _turned(cam_from_world[name], pose_format)
            for short, name in names.items()
        }
    write_pose_file(path, poses)


def read_submission(
    path: Path, dataset: Dataset, pose_format: TextFormat = "auto"
) -> SubmittedPoses:
    """Read the poses of a dataset's images from a text file.

    Args:
        path: the file.
        dataset: that the images belong to.
        pose_format: the naming; ``auto`` takes the one that knows most names of the
            file, in doubt the one that PoseFormat lists first.

    Raises:
        DatasetError: malformed, or a name that could be two images.
    """
    lines = read_pose_file(path)
    if pose_format == "auto":
        pose_format = _likely_format(lines, dataset)
    if pose_format == "eth_ms":
        poses = resolve_camera_poses(
            dataset, lambda timestamp, device: lines.get(f"{timestamp}/{device}")
        )
        known = _device_names(dataset)
        found = poses.cam_from_world
    else:
        shorten = _SHORTEN[pose_format]
        images = [n for n in dataset.image_names if shorten(n) in lines]
        names = _short_names(images, shorten, path)
        known = set(names)
        found = {
            name: _turned(lines[short], pose_format) for short, name in names.items()
        }
    return SubmittedPoses(
        cam_from_world=dict(sorted(found.items())),
        unknown=tuple(sorted(lines.keys() - known)),
        pose_format=pose_format,
    )


def write_pose_file(path: Path, poses: Mapping[str, pycolmap.Rigid3d]) -> None:
    """Write one line a pose, in order of names; numbers read back as they were.

    Raises:
        DatasetError: a name that starts or ends in a space, or breaks the line.
        OutputError: the file system refused.
    """
    lines = []
    for name, pose in sorted(poses.items()):
        if not name or name != name.strip() or broken_by(name):
            raise DatasetError(
                f"{path}: name '{shown(name)[:80]}' cannot be in a line '{LINE}'; "
                "rename the image"
            )
        x, y, z, w = pose.rotation.quat.tolist()
        numbers = [w, x, y, z, *pose.translation.tolist()]
        lines.append(" ".join([name, *map(repr, numbers)]) + "\n")
    write_text_atomic(path, "".join(lines))


def read_pose_file(path: Path) -> dict[str, pycolmap.Rigid3d]:
    """Read the poses by the names that the file gives; blank lines are skipped.

    Quaternions are normalised.

    Raises:
        DatasetError: unreadable, or a line that is malformed, has numbers that are not
            finite, a quaternion that is not of unit length, or a name for the second
            time; with the number of the line.
    """
    poses: dict[str, pycolmap.Rigid3d] = {}
    line_of: dict[str, int] = {}
    for number, line in enumerate(read_list_lines(path, "one pose per line"), 1):
        if not line.strip():
            continue
        name, pose = _parse(line, f"{path}, line {number}")
        if name in poses:
            raise DatasetError(
                f"{path}, line {number}: '{name}' again, first in line "
                f"{line_of[name]}, expected one pose per image; delete one of the lines"
            )
        poses[name], line_of[name] = pose, number
    return poses


def _parse(line: str, place: str) -> tuple[str, pycolmap.Rigid3d]:
    name, *fields = line.rsplit(maxsplit=7)
    try:
        w, x, y, z, *translation = [float(field) for field in fields]
    except ValueError:
        translation = []
    if len(translation) != 3:
        raise DatasetError(f"{place}: found '{line.strip()[:80]}', expected '{LINE}'")
    if not np.isfinite([w, x, y, z, *translation]).all():
        raise DatasetError(
            f"{place}: found '{line.strip()[:160]}', expected finite numbers; leave "
            "images without pose out"
        )
    quaternion = np.array([x, y, z, w])
    norm = np.linalg.norm(quaternion)
    if abs(norm - 1) > NORM_TOLERANCE:
        raise DatasetError(
            f"{place}: found qw qx qy qz of length {norm:.6g}, expected 1; are the "
            f"columns '{LINE}'?"
        )
    rotation = pycolmap.Rotation3d(quaternion / norm)
    return name, pycolmap.Rigid3d(rotation, np.array(translation))


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


def _folder_and_file_name(name: str) -> str:
    return "/".join(PurePosixPath(name).parts[-2:])


def _whole_name(name: str) -> str:
    return name


def _frame_name(name: str) -> str:
    return _folder_and_file_name(name).partition(".")[0]


def _turned(pose: pycolmap.Rigid3d, pose_format: PoseFormat) -> pycolmap.Rigid3d:
    """cam_from_world as a format has it, and back."""
    return pose.inverse() if pose_format == "rio10" else pose


_SHORTEN: dict[PoseFormat, Callable[[str], str]] = {
    "gangnam": _whole_name,
    "robotcar": _folder_and_file_name,
    "aachen": _file_name,
    "extended_cmu": _file_name,
    "rio10": _frame_name,
}


def _short_names(
    images: Iterable[str], shorten: Callable[[str], str], path: Path
) -> dict[str, str]:
    """The images by the names that a file gives them."""
    names: dict[str, str] = {}
    for image in images:
        first = names.setdefault(shorten(image), image)
        if first != image:
            raise DatasetError(
                f"{path}: '{shorten(image)}' could be image '{first}' or '{image}', "
                "expected a name of its own for each; choose the format gangnam, which "
                "keeps whole names"
            )
    return names


def _likely_format(names: Iterable[str], dataset: Dataset) -> PoseFormat:
    wanted = set(names)

    def known(pose_format: PoseFormat) -> int:
        if pose_format == "eth_ms":
            return len(wanted & _device_names(dataset))
        shorten = _SHORTEN[pose_format]
        return len(wanted & set(map(shorten, dataset.image_names)))

    formats: tuple[PoseFormat, ...] = get_args(PoseFormat)
    return max(formats, key=known)


def _device_poses(
    dataset: Dataset, cam_from_world: Mapping[str, pycolmap.Rigid3d]
) -> dict[str, pycolmap.Rigid3d]:
    """The poses of outermost rigs, and of cameras outside rigs, by eth_ms names."""
    above = rigs_above(dataset.data)
    records = image_records(dataset.data)
    poses: dict[str, pycolmap.Rigid3d] = {}
    for name in sorted(cam_from_world, key=records.__getitem__):
        timestamp, camera, _ = records[name]
        device, cam_from_device = _outermost(camera, above)
        poses.setdefault(
            f"{timestamp}/{device}", cam_from_device.inverse() * cam_from_world[name]
        )
    return poses


def _outermost(camera: str, above: RigsAbove) -> tuple[str, pycolmap.Rigid3d]:
    """The rig farthest above a camera that its place is known in, or the camera."""
    rigs = above.get(camera, {}).items()
    known = [(rig_id, pose) for rig_id, pose in rigs if pose is not None]
    return known[-1] if known else (camera, pycolmap.Rigid3d())


def _device_names(dataset: Dataset) -> set[str]:
    """What eth_ms may call the images: by camera, or by any rig above it."""
    above = rigs_above(dataset.data)
    return {
        f"{timestamp}/{device}"
        for timestamp, camera, _ in image_records(dataset.data).values()
        for device in (camera, *above.get(camera, {}))
    }
