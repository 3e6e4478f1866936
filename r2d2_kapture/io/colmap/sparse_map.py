"""A map of 3D points and the keypoints that see them, as plain arrays.

It is read from a COLMAP model or from a kapture dataset with points3d, observations and
trajectories. The files of both are described in colmap.github.io/format.html and
kapture's kapture_format.adoc.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.sparse import coo_array, csr_array

from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.errors import DatasetError, ReconstructionError
from r2d2_kapture.io.colmap.binary import (
    MODEL_FILES,
    check_binary_model,
    is_binary,
)
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.model_arrays import Keypoints, keypoints_of, points_of
from r2d2_kapture.io.colmap.text_names import names_with_spaces
from r2d2_kapture.io.georeference import georeference_files
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME, find_camera_origin
from r2d2_kapture.io.kapture.points3d import (
    observed_types,
    read_observations,
    read_points3d,
)
from r2d2_kapture.io.kapture.refined_features import extracted_type
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.map_patches import patches_path
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.types import IndexArray

DoubleArray = npt.NDArray[np.float64]

UNNAMED_TYPE = "colmap"
"""What kapture_r2d2_map calls keypoints that it only knows from a database."""
COLMAP_FILES = (*MODEL_FILES, "rigs", "frames")
ENDS = ("bin", "txt")
KAPTURE_FILES = (
    *(f"sensors/{name}.txt" for name in ("sensors", "rigs", "records_camera")),
    *("sensors/trajectories.txt", f"sensors/{ORIGIN_NAME}"),
    *(kcsv.CSV_FILENAMES[part] for part in (kapture.Points3d, kapture.Observations)),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MapImage:
    """An image of a map and what it sees.

    Attributes:
        cam_from_world: (3, 4) rotation and translation.
        keypoints: (K,) rows of the image's keypoints that see a point, ascending, each
            once.
        point_rows: (K,) row in ``SparseMap.points`` of the point that each sees.
        keypoint_count: keypoints of the image, also those that see nothing; None where
            unknown.
        xy: (K, 2) where these are, in pixels of COLMAP's origin; None likewise.
    """

    cam_from_world: DoubleArray
    keypoints: IndexArray
    point_rows: IndexArray
    keypoint_count: int | None
    xy: DoubleArray | None = None

    def points_seen(self, keypoints: IndexArray) -> IndexArray:
        """(N,) rows of the points that keypoints see; -1 where one sees none."""
        if len(self.keypoints) == 0:
            return np.full(len(keypoints), -1, np.int64)
        places = np.searchsorted(self.keypoints, keypoints)
        places = np.minimum(places, len(self.keypoints) - 1)
        return np.where(
            self.keypoints[places] == keypoints, self.point_rows[places], -1
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseMap:
    """Points and the images that observe them.

    Attributes:
        points: (P, 3) in the units of the world.
        point_ids: (P,) ascending: COLMAP's ids, or rows of kapture's points3d.txt.
        images: by name, in order of names; images without pose are left out.
        cameras: of each of these images, in COLMAP's pixel origin.
        image_folder: that names are relative to; a COLMAP model does not record it.
        warnings: on what of the cameras is not certain.
    """

    points: DoubleArray
    point_ids: IndexArray
    images: Mapping[str, MapImage]
    cameras: Mapping[str, pycolmap.Camera]
    image_folder: Path | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the images, in order."""
        return tuple(self.images)

    @cached_property
    def extent(self) -> float:
        """Diagonal of the box that holds the middle 90 % of the points on each axis."""
        low, high = np.percentile(self.points, [5, 95], axis=0)
        return float(np.linalg.norm(high - low))

    @cached_property
    def observers(self) -> csr_array:
        """(P, I) int32 how many keypoints of each image observe each point."""
        rows = [image.point_rows for image in self.images.values()]
        points = np.concatenate([np.zeros(0, np.int64), *rows])
        images = np.repeat(np.arange(len(rows)), list(map(len, rows)))
        return coo_array(
            (np.ones(len(points), np.int32), (points, images)),
            shape=(len(self.points), len(rows)),
        ).tocsr()

    @property
    def track_lengths(self) -> IndexArray:
        """(P,) how many keypoints observe each point."""
        rows = [image.point_rows for image in self.images.values()]
        seen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        return np.bincount(seen, minlength=len(self.points)).astype(np.int64)


def read_sparse_map(
    path: Path,
    keypoints_type: str | None = None,
    camera_origin: CameraOrigin = "auto",
) -> SparseMap:
    """Read a map of points that images observe.

    Args:
        path: a COLMAP model; a kapture dataset with points3d and observations; or a
            folder with one of them in ``sparse``, ``0`` or ``kapture``, in this order.
        keypoints_type: whose observations are read from a kapture dataset; None takes
            the only ones there are.
        camera_origin: that principal points of a kapture dataset are counted from, see
            pixel_origins.find_camera_origin.

    Raises:
        DatasetError: none of these, or its files are broken.
        ReconstructionError: there are no points, or no observations of them.
    """
    sparse_map = _read(path, keypoints_type, camera_origin)
    if len(sparse_map.points) == 0 or sparse_map.track_lengths.sum() == 0:
        found = f"{len(sparse_map.points)} points, {len(sparse_map.images)} images"
        raise ReconstructionError(
            f"{path}: found {found} and no observation of a point, expected a map; "
            "check its pairs and matches and map again"
        )
    return sparse_map


def map_files(path: Path) -> Iterator[Path]:
    """The files that a map may be read from; most of them are missing."""
    for folder in (path, *map(path.joinpath, ("sparse", "0", "kapture"))):
        yield from (folder / f"{name}.{end}" for name in COLMAP_FILES for end in ENDS)
        yield from map(folder.joinpath, KAPTURE_FILES)
    yield from georeference_files(path)
    yield patches_path(path)
    yield path.parent / "kapture" / kcsv.CSV_FILENAMES[kapture.Observations]


def model_digest(path: Path) -> str:
    """Digest of the model or dataset of a map, without what is made of it later."""
    digest = hashlib.sha256()
    for folder in (path, *map(path.joinpath, ("sparse", "0", "kapture"))):
        names = [f"{name}.{end}" for name in COLMAP_FILES for end in ENDS]
        for file in map(folder.joinpath, (*names, *KAPTURE_FILES)):
            if file.is_file():
                digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def read_colmap_model(path: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model as pycolmap has it.

    Args:
        path: the model; or a folder that holds it as ``sparse`` or ``0``, of several
            the first.

    Raises:
        DatasetError: there is none, or its files are broken.
    """
    folder = _colmap_model(path)
    if folder is not None:
        return _read_model(folder)
    if (path / "sensors" / "sensors.txt").is_file():
        raise DatasetError(
            f"{path}: found a kapture dataset, expected a COLMAP model; make one with "
            f"kapture_r2d2_export --kapture-root {path} --to colmap --output DIR and "
            "give DIR; kapture_r2d2_pipeline takes the dataset as --mapping, too"
        )
    raise DatasetError(
        f"{path}: found no COLMAP model (cameras, images and points3D, .bin or .txt), "
        "expected that of kapture_r2d2_map, kapture_r2d2_colmap --sparse or COLMAP"
    )


def check_keypoints_type(path: Path, keypoints_type: str) -> None:
    """Refuse a map of other keypoints, as far as it can be known.

    One of refined keypoints belongs to those before refinement: they are the same rows.

    A COLMAP model does not, but the kapture dataset beside it that kapture_r2d2_map
    writes does.

    Args:
        path: see ``read_sparse_map``.
        keypoints_type: in use.

    Raises:
        DatasetError: all its observations are of other types.
    """
    table = _observations_of(path)
    if table is None:
        return
    types = set()
    for found in observed_types(table):
        types.add(found)
        if extracted_type(found) in (extracted_type(keypoints_type), UNNAMED_TYPE):
            return
    if types:
        raise DatasetError(
            f"{table}: found a map of keypoints of type {', '.join(sorted(types))}, "
            f"expected '{keypoints_type}', that of the features; give the features "
            "that the map was made with, or choose their --keypoints-type"
        )


def recorded_keypoints_type(path: Path) -> str | None:
    """The type of the keypoints of a map, where it records one and no more.

    Args:
        path: see ``read_sparse_map``.
    """
    table = _observations_of(path)
    types = set(observed_types(table)) if table else set()
    return types.pop() if len(types) == 1 else None


def _observations_of(path: Path) -> Path | None:
    """The kapture file of a map's observations, or that of the dataset beside it."""
    beside = [path.parent / "kapture"] if path.name == "sparse" else []
    tables = [
        root / kcsv.CSV_FILENAMES[kapture.Observations]
        for root in (path, path / "kapture", *beside)
    ]
    return next((table for table in tables if table.is_file()), None)


def _read(
    path: Path, keypoints_type: str | None, camera_origin: CameraOrigin
) -> SparseMap:
    model = _colmap_model(path)
    if model is not None:
        return _map_of_colmap(_read_model(model), model)
    for folder in (path, path / "kapture"):
        if (folder / "sensors" / "sensors.txt").is_file():
            return _read_kapture(folder, keypoints_type, camera_origin)
    raise DatasetError(
        f"{path}: found neither a COLMAP model (cameras, images and points3D, .bin or "
        ".txt) nor a kapture dataset, expected the output of kapture_r2d2_map"
    )


def _colmap_model(path: Path) -> Path | None:
    """A folder, or its first one, that holds a COLMAP model; None without."""
    folders = (path, path / "sparse", path / "0")
    return next(filter(_is_colmap_model, folders), None)


def _is_colmap_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}{suffix}").is_file() for name in MODEL_FILES)
        for suffix in (".bin", ".txt")
    )


def _read_model(folder: Path) -> pycolmap.Reconstruction:
    names = _check_model_files(folder)
    try:
        with quiet_pycolmap():
            model = pycolmap.Reconstruction(str(folder))
            for image_id, name in names.items():
                model.image(image_id).name = name
            for image_id in model.reg_image_ids():
                model.image(image_id).cam_from_world()  # raises without place in a rig
    except (ValueError, IndexError, OverflowError, RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(
            f"{folder}: not a readable COLMAP model: {reason}; map again, or convert "
            "the model again"
        ) from error
    _check_model(model, folder)
    return model


def _check_model(model: pycolmap.Reconstruction, folder: Path) -> None:
    """Refuse two images of one name, and those that see points which are not there.

    COLMAP takes a text file that was broken off at the end of a line for a whole one.
    """
    names: set[str] = set()
    for image in model.images.values():
        if image.name in names:
            raise DatasetError(
                f"{folder}: found two images of the name '{image.name}', expected each "
                "name once; rename one of them"
            )
        names.add(image.name)
    seen = model.compute_num_observations()
    tracked = sum(point.track.length() for point in model.points3D.values())
    if seen > tracked:
        raise DatasetError(
            f"{folder}: found {seen} observations of points in its images, but "
            f"{tracked} in points3D, expected the same: the file was broken off, or "
            "belongs to another model; write the model again"
        )


def _map_of_colmap(model: pycolmap.Reconstruction, folder: Path) -> SparseMap:
    keypoints = keypoints_of(model, folder)
    point_ids, points = points_of(model, folder)
    images = {image.name: image for image in map(model.image, model.reg_image_ids())}
    # copies, which do not keep the model in memory
    cameras = {i: copy.deepcopy(camera) for i, camera in model.cameras.items()}
    return SparseMap(
        points=points,
        point_ids=point_ids,
        images={
            name: _map_image(image, keypoints[image.image_id], point_ids)
            for name, image in sorted(images.items())
        },
        cameras={name: cameras[image.camera_id] for name, image in images.items()},
    )


def _map_image(
    image: pycolmap.Image, keypoints: Keypoints, point_ids: IndexArray
) -> MapImage:
    seeing = np.flatnonzero(keypoints["point_id"] != -1)
    seen = keypoints[seeing]
    return MapImage(
        cam_from_world=image.cam_from_world().matrix(),
        keypoints=seeing,
        point_rows=np.searchsorted(point_ids, seen["point_id"]),
        keypoint_count=len(keypoints),
        xy=np.column_stack([seen["x"], seen["y"]]),
    )


def _check_model_files(folder: Path) -> dict[int, str]:
    """Refuse what pycolmap would read wrongly, or never finish reading.

    Returns:
        Names by image id that COLMAP cuts at their first space.
    """
    if not is_binary(folder):
        return names_with_spaces(folder / "images.txt")
    check_binary_model(folder)
    return {}


def _read_kapture(
    root: Path, keypoints_type: str | None, camera_origin: CameraOrigin
) -> SparseMap:
    dataset = open_dataset(root)
    poses = read_camera_poses(dataset).cam_from_world
    found = find_camera_origin(dataset, camera_origin)
    cameras = image_cameras(dataset.data, found.origin)
    points, _ = read_points3d(root)
    seen = read_observations(root, keypoints_type, len(points))
    images = {}
    for name, cam_from_world in poses.items():
        observed = seen.get(name, {})
        keypoints = sorted(observed)
        images[name] = MapImage(
            cam_from_world=cam_from_world.matrix(),
            keypoints=np.array(keypoints, np.int64),
            point_rows=np.array([observed[i] for i in keypoints], np.int64),
            keypoint_count=None,
        )
    return SparseMap(
        points=points,
        point_ids=np.arange(len(points)),
        images=images,
        cameras={name: cameras[name] for name in images},
        image_folder=dataset.image_path(""),
        warnings=found.warnings,
    )
