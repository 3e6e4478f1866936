"""One pose in kapture's terms and in pycolmap's: both map the world to a device."""

from __future__ import annotations

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.errors import DatasetError


def rigid3d_from_kapture(
    pose: kapture.PoseTransform, owner: str = "pose"
) -> pycolmap.Rigid3d | None:
    """Make pycolmap's transform of kapture's; None for a partial pose.

    Args:
        pose: a device from the world (trajectories) or from a rig (rigs). Its
            quaternion may have any length but zero, as kapture itself allows.
        owner: what an error calls the pose, such as the file and the sensor.

    Raises:
        DatasetError: numbers that are not finite, or a quaternion of length zero.
    """
    if pose.r_raw is None or pose.t_raw is None:
        return None
    norm = np.linalg.norm(pose.r_raw)
    if not (np.isfinite([norm, *pose.t_raw]).all() and norm > 0):
        raise DatasetError(
            f"{owner}: found rotation {pose.r_raw} and translation {pose.t_raw}, "
            "expected finite numbers and a rotation; correct it, or leave the fields "
            "of an unknown pose empty"
        )
    w, x, y, z = np.array(pose.r_raw) / norm
    rotation = pycolmap.Rotation3d(np.array([x, y, z, w]))
    return pycolmap.Rigid3d(rotation, np.array(pose.t_raw))


def kapture_from_rigid3d(transform: pycolmap.Rigid3d) -> kapture.PoseTransform:
    """Make kapture's pose of pycolmap's transform; the numbers stay the same."""
    x, y, z, w = transform.rotation.quat.tolist()
    return kapture.PoseTransform(r=[w, x, y, z], t=transform.translation.tolist())
