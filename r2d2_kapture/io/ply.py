"""Coloured points as a PLY file, which MeshLab, CloudCompare and Blender open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.io.outputs.atomic import write_bytes_atomic

VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
HEADER = """ply
format binary_little_endian 1.0
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""


def write_ply(
    path: Path, points: npt.NDArray[np.float64], colors: npt.NDArray[np.uint8]
) -> None:
    """Write coloured points, in binary.

    Args:
        path: of the file.
        points: (N, 3) float64, in the units of the world.
        colors: (N, 3) uint8 RGB.

    Raises:
        OutputError: the file system refused.
    """
    vertices = np.zeros(len(points), VERTEX)
    vertices["xyz"], vertices["rgb"] = points, colors
    header = HEADER.format(count=len(points)).encode("ascii")
    write_bytes_atomic(path, header + vertices.tobytes())
