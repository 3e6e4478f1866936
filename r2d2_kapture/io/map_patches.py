"""The patches of a map's points, a file beside its model.

``patches.npy`` is one NumPy array of a record a point, in order of COLMAP's ids, read
in place: ``numpy.load("patches.npy", mmap_mode="r")``. The fields of a record:

    point3D_id  COLMAP's id of the point
    xyz         its position
    tangents    (3, 2) how the point moves on its surface with a sample along x and y
                of the frame that the patch was cut in, in units of the map
    zoom        finest step of the patch relative to that frame
    pixels      (L, S, S) grey values, layer l in steps of 2^l times the finest; all 0
                of a point without a patch

With two layers of 19 x 19 pixels that is 782 bytes a point.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import IndexArray

DoubleArray = npt.NDArray[np.float64]

PATCHES_NAME = "patches.npy"
MODEL_FOLDERS = ("sparse", "kapture")
"""Of a map, beside which its patches are."""
TOLERANCE = 1e-6
"""By which a point may differ from that of its patch, relative to its distance from
the origin: text keeps fewer digits."""
CHUNK = 4096
"""Records that are written at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """Patches of points.

    Attributes:
        pixels: (N, L, S, S) uint8.
        zooms: (N,) finest step relative to the frame.
        tangents: (N, 3, 2) of that frame, in units of the map a sample.
    """

    pixels: npt.NDArray[np.uint8]
    zooms: DoubleArray
    tangents: DoubleArray


@dataclass(frozen=True, kw_only=True, eq=False)
class MapPatches:
    """The patches of a map, read where they are needed.

    Attributes:
        path: of their file.
        records: (P,) of the points of the map; see above.
    """

    path: Path
    records: npt.NDArray[np.void]

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(L, S, S) layers and sides of a patch."""
        return self.records.dtype["pixels"].shape

    def known(self, rows: IndexArray, points: DoubleArray) -> npt.NDArray[np.bool_]:
        """(N,) which of the points have a patch, and lie where it was cut.

        Args:
            rows: (N,) of the points in the map.
            points: (N, 3) where they lie.
        """
        records = self.records[rows]
        away = np.abs(records["xyz"] - points).max(axis=1, initial=0)
        same = away <= TOLERANCE * np.maximum(np.abs(points).max(axis=1, initial=0), 1)
        return np.asarray(same & records["pixels"].any(axis=(1, 2, 3)))

    def take(self, rows: IndexArray) -> Patches:
        """The patches of (N,) points."""
        records = self.records[rows]
        return Patches(
            pixels=records["pixels"],
            zooms=records["zoom"].astype(np.float64),
            tangents=records["tangents"].astype(np.float64),
        )


def patches_path(map_path: Path) -> Path:
    """Where the patches of a map are, if it has some.

    Args:
        map_path: folder of the map, or the model or dataset in it.
    """
    inside = map_path.name in MODEL_FOLDERS
    return (map_path.parent if inside else map_path) / PATCHES_NAME


def open_patches(map_path: Path, points: int) -> MapPatches | None:
    """Open the patches of a map; None where it has none.

    Args:
        map_path: see ``patches_path``.
        points: number of points of the map.

    Raises:
        DatasetError: the file is broken, or of another map.
    """
    path = patches_path(map_path)
    if not path.is_file():
        return None
    way_out = "remove it, or map again with kapture_r2d2_map --force"
    try:
        records = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: found no readable NumPy array ({reason}), expected the patches "
            f"of a map; {way_out}"
        ) from error
    fields = records.dtype.names or ()
    if "pixels" not in fields or records.dtype != record_type(
        records.dtype["pixels"].shape
    ):
        raise DatasetError(
            f"{path}: found an array of {records.dtype}, expected the records of "
            f"patches; {way_out}"
        )
    if records.shape != (points,):
        raise DatasetError(
            f"{path}: found patches of {len(records)} points, but a map of {points}, "
            f"expected the patches of this map; {way_out}"
        )
    return MapPatches(path=path, records=records)


@contextmanager
def writing_patches(
    path: Path, ids: IndexArray, xyz: DoubleArray, patch_shape: tuple[int, ...]
) -> Iterator[npt.NDArray[np.void]]:
    """Give the records of a map without patches, to be filled; the file appears whole.

    Args:
        path: of the file.
        ids: (P,) of the points, ascending.
        xyz: (P, 3) their positions.
        patch_shape: (L, S, S) layers and sides of a patch.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        _write_empty(temporary, ids, xyz, record_type(patch_shape))
        records = np.load(temporary, mmap_mode="r+")
        yield records
        records.flush()


def record_type(patch_shape: tuple[int, ...]) -> np.dtype[np.void]:
    """The type of a record; its ``itemsize`` is the bytes of a point."""
    fields: list[Any] = [
        ("point3D_id", "<i8"),
        ("xyz", "<f8", (3,)),
        ("tangents", "<f4", (3, 2)),
        ("zoom", "<f4"),
        ("pixels", "u1", patch_shape),
    ]
    return np.dtype(fields)


def _write_empty(
    path: Path, ids: IndexArray, xyz: DoubleArray, kind: np.dtype[np.void]
) -> None:
    """Write records whose patches are 0; a full disk would stop later writes abruptly,
    since they go to memory."""
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": (len(ids),),
    }
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(ids), CHUNK):
            part = slice(start, start + CHUNK)
            records = np.zeros(len(ids[part]), kind)
            records["point3D_id"], records["xyz"] = ids[part], xyz[part]
            file.write(records.tobytes())
