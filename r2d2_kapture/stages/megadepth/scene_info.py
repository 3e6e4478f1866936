"""Scene infos and depth maps of MegaDepth, as training needs them.

One ``<scene>.<model>.npz`` for each SfM model, of N images:

    image_paths         (N,) text      undistorted images, relative to the root folder
    depth_paths         (N,) text      depth maps, relative to it or absolute
    intrinsics          (N, 3, 3)      pinhole K of the undistorted images; its
                                       principal point counts from the corner of the
                                       first pixel, as COLMAP has it
    poses               (N, 4, 4)      cam_from_world
    n_points3D          (N,) int       3D points that the image sees
    overlap_matrix      (N, N)         [i, j]: share of the points of i that j sees too
    scale_ratio_matrix  (N, N)         [i, j]: normalised depth z / f in i over that in
                                       j, of the points that both see; 0 where none

The names are those of the files that D2-Net's preparation of MegaDepth makes (Dusmanu
et al., CVPR 2019), which hold more, and Python objects in place of some arrays, with
None where an image is missing. They are read too, without running a pickle.

Depth maps are HDF5 files with one array ``depth``: along the camera's z axis in the
units of the SfM model, 0 where unknown; negative values mark the two sides of ordinal
pairs and are not depths (Li & Snavely, MegaDepth, CVPR 2018, section 3).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import colmap_from_kapture, kapture_from_colmap
from r2d2_kapture.errors import UNREADABLE, DatasetError, R2D2KaptureError
from r2d2_kapture.io.array_pickle import ObjectArray, parse_object_array
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.names import broken_by, shown
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

DEPTH = "depth"
SCENE_NAME = "a name of a scene such as 0022, without / \\ # or a dot in front"


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneInfo:
    """The N images of an SfM model, and the overlap of each pair.

    Attributes:
        image_paths: undistorted images, relative to the root folder; '' where one is
            missing.
        depth_paths: depth maps, relative to the root folder or absolute; '' where one
            is missing.
        intrinsics: (N, 3, 3) in pixels; the principal point counts from the centre of
            the first pixel. NaN where the image is missing.
        poses: (N, 4, 4) cam_from_world. NaN where the image is missing.
        point_counts: (N,) 3D points that each image sees.
        overlaps: (N, N) share of the points of the first image that the second one
            sees too, 0..1.
        scale_ratios: (N, N) how many times farther, in focal lengths, the common points
            are from the first image than from the second; 0 where there are none.
    """

    image_paths: tuple[str, ...]
    depth_paths: tuple[str, ...]
    intrinsics: DoubleArray
    poses: DoubleArray
    point_counts: IndexArray
    overlaps: FloatArray
    scale_ratios: FloatArray

    def __len__(self) -> int:
        return len(self.image_paths)

    def __post_init__(self) -> None:
        count = len(self)
        shapes = {
            "depth_paths": (len(self.depth_paths),),
            "intrinsics": self.intrinsics.shape,
            "poses": self.poses.shape,
            "n_points3D": self.point_counts.shape,
            "overlap_matrix": self.overlaps.shape,
            "scale_ratio_matrix": self.scale_ratios.shape,
        }
        expected = {
            "depth_paths": (count,),
            "intrinsics": (count, 3, 3),
            "poses": (count, 4, 4),
            "n_points3D": (count,),
            "overlap_matrix": (count, count),
            "scale_ratio_matrix": (count, count),
        }
        for name, shape in shapes.items():
            if shape != expected[name]:
                raise DatasetError(
                    f"{name}: found shape {shape}, expected {expected[name]} for "
                    f"{count} images"
                )


def write_scene_info(path: Path, info: SceneInfo) -> None:
    """Write a scene info atomically; equal infos give equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    intrinsics = info.intrinsics.copy()
    intrinsics[:, :2, 2] = colmap_from_kapture(intrinsics[:, :2, 2])
    arrays = {
        "image_paths": np.array(info.image_paths, dtype=np.str_),
        "depth_paths": np.array(info.depth_paths, dtype=np.str_),
        "intrinsics": intrinsics,
        "poses": info.poses,
        "n_points3D": info.point_counts,
        "overlap_matrix": info.overlaps,
        "scale_ratio_matrix": info.scale_ratios,
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read_scene_info(path: Path) -> SceneInfo:
    """Read a scene info, ours or a published one, without running a pickle.

    Args:
        path: of the .npz file.

    Raises:
        DatasetError: missing, truncated, of another format, or with images outside of
            the root folder.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            members = _Members(path, arrays)
            intrinsics = members.matrices("intrinsics", (3, 3))
            intrinsics[:, :2, 2] = kapture_from_colmap(intrinsics[:, :2, 2])
            return SceneInfo(
                image_paths=members.image_paths(),
                depth_paths=members.texts("depth_paths"),
                intrinsics=intrinsics,
                poses=members.matrices("poses", (4, 4)),
                point_counts=members.counts("n_points3D"),
                overlaps=members.plain("overlap_matrix"),
                scale_ratios=members.plain("scale_ratio_matrix"),
            )
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: not found, expected a scene info; create it with "
            "kapture_r2d2_megadepth"
        ) from error
    except (*UNREADABLE, R2D2KaptureError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: not a scene info of MegaDepth: {reason}; create it again with "
            "kapture_r2d2_megadepth --force or the tool that wrote it"
        ) from error


def read_depth(path: Path, size: tuple[int, int]) -> FloatArray:
    """Read a depth map.

    Args:
        path: of the file.
        size: (W, H) of its image in pixels.

    Returns:
        (H, W) float32; above 0 where depth is known.

    Raises:
        DatasetError: missing, truncated, of another format, or of another size.
    """
    try:
        with h5py.File(path, "r") as file:
            dataset = file[DEPTH]
            # a broken header may state more data than fits into memory
            if dataset.shape != size[::-1]:
                raise DatasetError(
                    f"{path}: found '{DEPTH}' of shape (H, W) {dataset.shape}, "
                    f"expected {size[::-1]} like its image"
                )
            return np.asarray(dataset.astype(np.float32)[()])
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: not a readable depth map ({reason}), expected HDF5 with an array "
            f"'{DEPTH}'; download it again"
        ) from error


def is_scene_name(name: str) -> bool:
    """Whether a name is valid in lists of scenes, in scene infos and as a folder.

    A leading dot marks folders that are being built.
    """
    return (
        name != ""
        and name == name.strip()
        and broken_by(name) is None
        and not name.startswith(".")
        and not set(name) & set("/\\#")
    )


def read_scene_list(path: Path) -> tuple[str, ...]:
    """Read names of scenes, one per line; blank lines and # comments are skipped.

    Returns:
        The names in order, without duplicates.

    Raises:
        DatasetError: unreadable, empty, or a line is not the name of a scene.
    """
    lines = read_list_lines(path, "one scene name per line")
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        if not is_scene_name(name):
            raise DatasetError(
                f"{path}: line {number}: found '{shown(name)[:60]}', expected "
                f"{SCENE_NAME}"
            )
        names[name] = None
    if not names:
        raise DatasetError(f"{path}: found no scene, expected one name per line")
    return tuple(names)


class _Members:
    """The arrays of a file by name, of numbers or objects."""

    def __init__(self, path: Path, arrays: Any) -> None:
        self._path = path
        self._arrays = arrays

    def image_paths(self) -> tuple[str, ...]:
        paths = self.texts("image_paths")
        for path in filter(None, paths):
            check_relative_name(path, self._path)
        return paths

    def texts(self, name: str) -> tuple[str, ...]:
        """Read a list of texts; '' for None."""
        values = ["" if value is None else value for value in self._values(name)]
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"{name}: found {type(value).__name__}, expected text")
        return tuple(values)

    def matrices(self, name: str, shape: tuple[int, int]) -> DoubleArray:
        """(N, *shape); NaN for None."""
        missing = np.full(shape, np.nan)
        values = [
            missing if value is None else np.asarray(value, dtype=np.float64)
            for value in self._values(name)
        ]
        for value in values:
            if value.shape != shape:
                raise ValueError(f"{name}: found {value.shape}, expected {shape}")
        return np.array(values, dtype=np.float64).reshape(len(values), *shape)

    def counts(self, name: str) -> IndexArray:
        """(N,) numbers; 0 for None."""
        values = [0 if value is None else int(value) for value in self._values(name)]
        return np.array(values, dtype=np.int64)

    def plain(self, name: str) -> FloatArray:
        """An array without objects."""
        return np.asarray(self._arrays[name], dtype=np.float32)

    def _values(self, name: str) -> list[Any]:
        """The elements along the first axis."""
        try:
            array: AnyArray = self._arrays[name]
        except ValueError:  # NumPy cannot read objects without running their pickle
            return self._objects(name)
        return array.tolist() if array.ndim == 1 else list(array)

    def _objects(self, name: str) -> list[Any]:
        with zipfile.ZipFile(self._path) as archive:
            elements = parse_object_array(archive.read(f"{name}.npy"))
        return [
            element.content if isinstance(element, ObjectArray) else element
            for element in elements
        ]
