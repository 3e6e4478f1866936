"""Rigs of a kapture dataset: which cameras they hold, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import kapture
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture

RigsAbove = dict[str, dict[str, pycolmap.Rigid3d | None]]
"""For each device the rigs that hold it, nearest first, with device_from_rig."""
RigCameras = dict[str, dict[str, pycolmap.Rigid3d]]
"""For each outermost rig its cameras, with cam_from_rig."""
RIGS_NAME = "rigs.txt"


def rigs_above(data: kapture.Kapture, source: Path | str = RIGS_NAME) -> RigsAbove:
    """For each device the rigs that hold it, nearest first, and device_from_rig.

    The transform is None where a pose on the way is partial.

    Args:
        data: its rigs are used.
        source: of the rigs, for the message.

    Raises:
        DatasetError: numbers that are not finite, or a rig inside itself.
    """
    parents: RigsAbove = {}
    for rig_id, device_id, pose in kapture.flatten(data.rigs or {}):
        owner = f"{source}: '{device_id}' in '{rig_id}'"
        parents.setdefault(device_id, {})[rig_id] = rigid3d_from_kapture(pose, owner)
    return {device_id: _climb(device_id, parents, source) for device_id in parents}


def _climb(
    device_id: str, parents: RigsAbove, source: Path | str
) -> dict[str, pycolmap.Rigid3d | None]:
    """All rigs above a device, breadth first."""
    found: dict[str, pycolmap.Rigid3d | None] = dict(parents[device_id])
    queue = list(found)
    for rig_id in queue:
        for outer_id, rig_from_outer in parents.get(rig_id, {}).items():
            if outer_id == device_id:
                raise DatasetError(
                    f"{source}: rig '{device_id}' found inside itself; correct the file"
                )
            if outer_id in found:
                continue
            found[outer_id] = compose(found[rig_id], rig_from_outer)
            queue.append(outer_id)
    return found


def compose(
    c_from_b: pycolmap.Rigid3d | None, b_from_a: pycolmap.Rigid3d | None
) -> pycolmap.Rigid3d | None:
    """c_from_a; None where one of the two is."""
    return None if c_from_b is None or b_from_a is None else c_from_b * b_from_a


def rig_cameras(data: kapture.Kapture, sensor_ids: Iterable[str]) -> RigCameras:
    """The cameras of each outermost rig, those of nested rigs included.

    Args:
        data: its rigs are used.
        sensor_ids: cameras of the dataset; lidars and absent sensors are left out.

    Raises:
        DatasetError: a camera in two rigs or twice in one, a rig inside itself, or an
            incomplete pose.
    """
    above = rigs_above(data)
    held = Counter(
        device for devices in (data.rigs or {}).values() for device in devices
    )
    rigs: RigCameras = {}
    for sensor_id in sorted(above.keys() & set(sensor_ids)):
        rig_id, *others = sorted(above[sensor_id].keys() - above.keys())
        if others:
            raise DatasetError(
                f"camera '{sensor_id}': found in rigs '{rig_id}' and '{others[0]}', "
                "COLMAP allows one; name the camera apart or correct rigs.txt"
            )
        if any(held[device_id] > 1 for device_id in (sensor_id, *above[sensor_id])):
            raise DatasetError(
                f"rig '{rig_id}': holds camera '{sensor_id}' twice, COLMAP allows one; "
                "correct rigs.txt"
            )
        cam_from_rig = above[sensor_id][rig_id]
        if cam_from_rig is None:
            raise DatasetError(
                f"rig '{rig_id}', sensor '{sensor_id}': the pose is incomplete, "
                "expected a rotation and a translation; correct rigs.txt"
            )
        # COLMAP's products are of unit length to the last digit
        rigs.setdefault(rig_id, {})[sensor_id] = pycolmap.Rigid3d() * cam_from_rig
    return dict(sorted(rigs.items()))
