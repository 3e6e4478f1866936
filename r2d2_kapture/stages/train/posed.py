"""Opens posed datasets as sources of pairs: kapture depth maps, SfM models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.sparse import csr_array, triu

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.coordinates import (
    CameraOrigin,
    colmap_from_kapture,
    kapture_from_colmap,
)
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.camera_sizes import CameraImage, size_difference
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.depth_maps import ReadDepth, depth_maps
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.train.photographs import OpenedSources
from r2d2_kapture.training.data import WeightedSource
from r2d2_kapture.training.loading import PictureLoader
from r2d2_kapture.training.lookups import FloatArray, inverse_of_depth
from r2d2_kapture.training.mesh_depth import mesh_inverse_depth
from r2d2_kapture.training.pairs import Points, inside
from r2d2_kapture.training.posed_pairs import (
    PosedPairSource,
    PosedPicture,
    neighbouring_pairs,
)
from r2d2_kapture.types import Failure

DoubleArray = npt.NDArray[np.float64]

DEPTH_MAP_TOLERANCE = 0.03
MESH_TOLERANCE = 0.05
LEAST_SHARED_POINTS = 30
NO_NEIGHBOUR = "no nearby camera has a similar direction"
FEW_SHARED = f"no other image shares {LEAST_SHARED_POINTS} points with it"


@dataclass(frozen=True, kw_only=True, eq=False)
class ColmapModel:
    """A COLMAP camera, whose pixels count from the corner, as a CameraModel."""

    camera: pycolmap.Camera

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) in pixels."""
        return self.camera.width, self.camera.height

    def rays(self, pixels: Points) -> Points:
        """(N, 2) normalised coordinates x / z and y / z of (N, 2) pixels."""
        return np.asarray(self.camera.cam_from_img(colmap_from_kapture(pixels)))

    def pixels(self, rays: Points) -> Points:
        """(N, 2) pixels of (N, 2) normalised coordinates x / z and y / z."""
        points = np.column_stack([rays, np.ones(len(rays))])
        corner_origin = np.asarray(self.camera.img_from_cam(points))
        return np.asarray(kapture_from_colmap(corner_origin), dtype=np.float64)


def draw_mesh_depth(camera: ColmapModel, points: DoubleArray) -> FloatArray:
    """Draw the depth of an image from the (N, 3) points that it observes.

    The points are in camera coordinates.

    Returns:
        (h, w) inverse depth on a coarser raster, NaN where unknown.
    """
    in_front = points[points[:, 2] > 0]
    pixels = camera.pixels(in_front[:, :2] / in_front[:, 2:])
    seen = inside(pixels, camera.size)
    return mesh_inverse_depth(pixels[seen], 1 / in_front[seen, 2], camera.size)


def open_depth_views(
    root: Path,
    config: PairConfig,
    load: PictureLoader,
    camera_origin: CameraOrigin = "auto",
) -> OpenedSources:
    """Pairs of the images of a kapture dataset that have poses and depth maps.

    A depth map belongs to the image with the same timestamp, camera parameters and
    pose.

    Args:
        root: of the dataset.
        config: of the pairs.
        load: decodes images.
        camera_origin: pixel origin of the dataset's principal points.

    Raises:
        DatasetError: not a kapture dataset, or no two images with pose and depth.
    """
    dataset = open_dataset(root)
    poses = read_camera_poses(dataset).cam_from_world
    depth_files = depth_maps(dataset)
    origin = find_camera_origin(dataset, camera_origin)
    pictures: list[PosedPicture] = []
    skipped: list[Failure] = []
    for name, camera in image_cameras(dataset.data, origin.origin).items():
        model = ColmapModel(camera=camera)
        path = dataset.image_path(name)
        reason = (
            "no pose"
            if name not in poses
            else (
                "no depth map"
                if name not in depth_files
                else _unfit(path, model.size, config.crop_size)
            )
        )
        if reason:
            skipped.append(Failure(name=name, reason=reason))
            continue
        pictures.append(
            PosedPicture(
                name=name,
                path=path,
                camera=model,
                cam_from_world=_matrix(poses[name].matrix()),
                read_inverse_depth=partial(_inverse_depth, depth_files[name]),
            )
        )
    pairs = neighbouring_pairs([picture.cam_from_world for picture in pictures])
    source = PosedPairSource(
        str(root), pictures, pairs, config, load, DEPTH_MAP_TOLERANCE
    )
    return OpenedSources(
        sources=(WeightedSource(source=source, weight=1.0),),
        skipped=(*skipped, *_unpaired(pictures, pairs, NO_NEIGHBOUR)),
        warnings=origin.warnings,
    )


def open_model_views(
    path: Path,
    config: PairConfig,
    load: PictureLoader,
    images: Path | None = None,
    camera_origin: CameraOrigin = "auto",
) -> OpenedSources:
    """Pairs of the images of a structure-from-motion model, by its sparse points.

    Args:
        path: a COLMAP model, or a kapture dataset with points3d and observations.
        config: of the pairs.
        load: decodes images.
        images: folder that the names of a COLMAP model are relative to; by default that
            of the kapture dataset.
        camera_origin: pixel origin of a kapture dataset's principal points.

    Raises:
        DatasetError, ReconstructionError: not a model, or no two images share points.
    """
    sparse_map = read_sparse_map(path, camera_origin=camera_origin)
    folder = images or sparse_map.image_folder
    if folder is None:
        raise DatasetError(
            f"{path}: a COLMAP model does not record the folder of its images; give it "
            "with --sfm-images"
        )
    pictures: list[PosedPicture] = []
    skipped: list[Failure] = []
    kept: list[str] = []
    for name, image in sparse_map.images.items():
        model = ColmapModel(camera=sparse_map.cameras[name])
        reason = _unfit(folder / name, model.size, config.crop_size)
        if reason:
            skipped.append(Failure(name=name, reason=reason))
            continue
        rows = np.unique(image.point_rows)
        pose = _matrix(image.cam_from_world)
        points = sparse_map.points[rows] @ pose[:3, :3].T + pose[:3, 3]
        kept.append(name)
        pictures.append(
            PosedPicture(
                name=name,
                path=folder / name,
                camera=model,
                cam_from_world=pose,
                read_inverse_depth=partial(draw_mesh_depth, model, points),
            )
        )
    pairs = _covisible_pairs(sparse_map, kept)
    source = PosedPairSource(str(path), pictures, pairs, config, load, MESH_TOLERANCE)
    return OpenedSources(
        sources=(WeightedSource(source=source, weight=1.0),),
        skipped=(*skipped, *_unpaired(pictures, pairs, FEW_SHARED)),
        warnings=sparse_map.warnings,
    )


def _unpaired(
    pictures: Sequence[PosedPicture], pairs: Iterable[tuple[int, int]], reason: str
) -> list[Failure]:
    """The images without a pair."""
    paired = {index for pair in pairs for index in pair}
    return [
        Failure(name=picture.name, reason=reason)
        for index, picture in enumerate(pictures)
        if index not in paired
    ]


def _unfit(path: Path, size: tuple[int, int], crop_size: int) -> str | None:
    """Why an image cannot be used."""
    try:
        found = image_size(path)
    except ImageError as error:
        return str(error)
    image = CameraImage(path=path, size=size, camera="its camera")
    if (difference := size_difference(image, found)) is not None:
        return difference
    if min(found) < crop_size:
        return f"found {found} pixels, expected at least {crop_size} per side"
    return None


def _inverse_depth(read: ReadDepth) -> FloatArray:
    return inverse_of_depth(read())


def _matrix(cam_from_world: npt.NDArray[np.float64]) -> DoubleArray:
    """(3, 4) to (4, 4)."""
    return np.vstack([cam_from_world, [0, 0, 0, 1]])


def _covisible_pairs(sparse_map: SparseMap, names: list[str]) -> list[tuple[int, int]]:
    """Indices into the names of images that share enough points."""
    if not names:
        return []
    rows = [np.unique(sparse_map.images[name].point_rows) for name in names]
    columns = np.concatenate(rows)
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    seen = csr_array(
        (np.ones(len(columns), dtype=np.int32), (owners, columns)),
        shape=(len(rows), len(sparse_map.points)),
    )
    shared = triu(seen @ seen.T, k=1).tocoo()
    enough = shared.data >= LEAST_SHARED_POINTS
    first, second = shared.coords
    return sorted(zip(first[enough].tolist(), second[enough].tolist()))
