"""Whether the files of a binary COLMAP model are whole, before pycolmap reads them.

pycolmap believes every count in them: one flipped bit, and it allocates gigabytes, or
never ends. Layout: colmap.github.io/format.html, and of rigs and frames COLMAP 4.2's
reconstruction_io_binary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import parameter_count

MODEL_FILES = ("cameras", "images", "points3D")
COUNT = struct.Struct("<Q")
CAMERA_BYTES = 24
"""Before a camera's parameters, as many as its model has: id, model, size."""

IMAGE_BYTES = 64
"""Before an image's name: id, pose, camera."""
KEYPOINT_BYTES = 24

POINT_BYTES = 43
"""Before the length of a point's track: id, position, colour, error."""
ELEMENT_BYTES = 8

SENSOR_BYTES = 8
POSE_BYTES = 56
FRAME_BYTES = 64
"""Before the number of a frame's data: id, rig, pose."""
DATA_BYTES = 16

Step = Callable[[mmap.mmap, int], int]
"""From where a record begins to where the next one does."""


def is_binary(folder: Path) -> bool:
    """Whether a folder holds a binary model, which pycolmap prefers to text."""
    return all((folder / f"{name}.bin").is_file() for name in MODEL_FILES)


def check_binary_model(folder: Path) -> None:
    """Refuse a model whose files do not end where their counts say.

    Args:
        folder: holds cameras.bin, images.bin and points3D.bin; rigs.bin and frames.bin,
            which COLMAP 3 does not write, where they are there.

    Raises:
        DatasetError: a file is broken off, or is no file of a model.
    """
    for name, step in STEPS.items():
        path = folder / f"{name}.bin"
        if path.is_file() and not _is_whole(path, step):
            raise DatasetError(
                f"{path}: truncated, or not a file of a COLMAP model; map again"
            )


def _is_whole(path: Path, step: Step) -> bool:
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
    with data:
        size = len(data)
        try:
            (records,) = COUNT.unpack_from(data)
            place = COUNT.size
            for _ in range(records):
                place = step(data, place)
                if place > size:
                    return False
        except (struct.error, OverflowError):
            return False
        return True


def _after_camera(data: mmap.mmap, place: int) -> int:
    (model,) = struct.unpack_from("<i", data, place + 4)
    params = parameter_count(model)
    return len(data) + 1 if params is None else place + CAMERA_BYTES + 8 * params


def _after_image(data: mmap.mmap, place: int) -> int:
    end = data.find(b"\0", place + IMAGE_BYTES)
    if end < 0:
        return len(data) + 1
    (keypoints,) = COUNT.unpack_from(data, end + 1)
    return int(end + 1 + COUNT.size + keypoints * KEYPOINT_BYTES)


def _after_point(data: mmap.mmap, place: int) -> int:
    (elements,) = COUNT.unpack_from(data, place + POINT_BYTES)
    return int(place + POINT_BYTES + COUNT.size + elements * ELEMENT_BYTES)


def _after_rig(data: mmap.mmap, place: int) -> int:
    _, sensors = struct.unpack_from("<II", data, place)
    place += 8 + (SENSOR_BYTES if sensors else 0)  # that of reference has no pose
    for _ in range(1, sensors):
        has_pose = data[place + SENSOR_BYTES] if place < len(data) - SENSOR_BYTES else 0
        place += SENSOR_BYTES + 1 + (POSE_BYTES if has_pose else 0)
        if place > len(data):
            break
    return place


def _after_frame(data: mmap.mmap, place: int) -> int:
    (count,) = struct.unpack_from("<I", data, place + FRAME_BYTES)
    return int(place + FRAME_BYTES + 4 + count * DATA_BYTES)


STEPS: dict[str, Step] = {
    "cameras": _after_camera,
    "images": _after_image,
    "points3D": _after_point,
    "rigs": _after_rig,
    "frames": _after_frame,
}
