"""A patch of each point of a map, cut from an image that observes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import ImageError, R2D2KaptureError
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.map_patches import patches_path, writing_patches
from r2d2_kapture.refinement.frames import scale_frames
from r2d2_kapture.refinement.patches import (
    Templates,
    cut_templates,
    grey_image,
    patch_shape,
)
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.stages.surfaces import (
    patch_tangents,
    project,
    seen_from,
    surface_normals,
)
from r2d2_kapture.types import IndexArray, counted, some_names

DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Where an image shows points of the map.

    Attributes:
        rows: (K,) of the points.
        centres: (K, 2) their projections, in COLMAP's pixel origin.
        frames: (K, 2, 2) of pixels of the level that each was found at.
        tangents: (K, 3, 2) of the same on their surfaces.
    """

    rows: IndexArray
    centres: DoubleArray
    frames: DoubleArray
    tangents: DoubleArray

    def take(self, index: IndexArray) -> Observed:
        """Some of them."""
        return Observed(
            rows=self.rows[index],
            centres=self.centres[index],
            frames=self.frames[index],
            tangents=self.tangents[index],
        )

    @property
    def footprints(self) -> DoubleArray:
        """(K,) area of surface in a pixel of the image, in units of the map squared."""
        areas = np.cross(self.tangents[:, :, 0], self.tangents[:, :, 1])
        of_frames = np.abs(np.linalg.det(self.frames))
        footprints: DoubleArray = np.linalg.norm(areas, axis=1) / of_frames
        return footprints


@dataclass(frozen=True, kw_only=True, eq=False)
class MapViews:
    """The images of a map, and where each shows which of its points.

    Attributes:
        sparse_map: the map.
        normals: (P, 3) of the surfaces at its points.
        keypoints: of its images.
    """

    sparse_map: SparseMap
    normals: DoubleArray
    keypoints: FeatureTable

    def observed(self, name: str) -> Observed:
        """What an image observes; what it cannot show is left out."""
        image, camera = self.sparse_map.images[name], self.sparse_map.cameras[name]
        sides = patch_sides(self.keypoints.read(name))[image.keypoints]
        rows, frames = image.point_rows, scale_frames(sides)
        points, pose = self.sparse_map.points[rows], image.cam_from_world
        centres = project(camera, seen_from(pose, points))
        tangents = patch_tangents(camera, pose, points, self.normals[rows], frames)
        shown = np.isfinite(centres).all(axis=1) & np.isfinite(tangents).all((1, 2))
        return Observed(
            rows=rows[shown],
            centres=centres[shown],
            frames=frames[shown],
            tangents=tangents[shown],
        )

    def inside(self, name: str, centres: DoubleArray, reach: float) -> BoolArray:
        """(K,) whether all within reach of places is in the image."""
        camera = self.sparse_map.cameras[name]
        size = np.array([camera.width, camera.height])
        return np.asarray(((centres >= reach) & (centres <= size - reach)).all(axis=1))


def write_patches(
    folder: Path, images: Mapping[str, Path], workers: int
) -> tuple[str, ...]:
    """Cut a patch of each point of a map and write them beside it, if they are missing.

    A patch is cut where the point projects to, not where a keypoint was found: the
    point is the mean of all that observe it. Of the images that do, one at the median
    distance is taken.

    Args:
        folder: of the map, with its model and dataset.
        images: files by the names of images; they may be missing.
        workers: images that are read in parallel.

    Returns:
        Warnings on images, or a map, that cannot be read.

    Raises:
        OutputError: they cannot be written.
    """
    path = patches_path(folder)
    files = {name: file for name, file in images.items() if file.is_file()}
    if path.is_file() or not files:
        return ()
    try:
        sparse_map = read_sparse_map(folder)
    except R2D2KaptureError as error:
        return (f"patches of the map could not be cut: {error}",)
    there = [name for name in sparse_map.images if name in files]
    if not there:
        return ()
    views = MapViews(
        sparse_map=sparse_map,
        normals=surface_normals(sparse_map),
        keypoints=open_feature_table([folder / "kapture"], "keypoints", None),
    )
    config = RefineConfig()
    shape = patch_shape(config)
    chosen = choose_references(views, there, reach=shape[-1] / 2 * 2 ** (shape[0] - 1))

    def cut(name: str) -> tuple[Observed, Templates] | ImageError:
        try:
            image = grey_image(read_rgb(files[name]))
        except ImageError as error:
            return error
        observed = views.observed(name).take(chosen[name])
        centres = kapture_from_colmap(observed.centres).astype(np.float64)
        return observed, cut_templates(image, centres, observed.frames, config)

    unread: list[str] = []
    working = read_ahead([name for name in there if len(chosen[name])], cut, workers)
    with (
        writing_patches(
            path, sparse_map.point_ids, sparse_map.points, shape
        ) as records,
        closing(working),
    ):
        for name, future in working:
            found = future.result()
            if isinstance(found, ImageError):
                unread.append(str(found))
                continue
            observed, templates = found
            made = records[observed.rows]
            made["tangents"], made["zoom"] = observed.tangents, templates.zooms
            made["pixels"] = templates.pixels
            records[observed.rows] = made
    return _warnings(unread)


def choose_references(
    views: MapViews, names: Sequence[str], reach: float
) -> dict[str, IndexArray]:
    """Choose an observation of each point.

    Args:
        views: of the map.
        names: images that can be read.
        reach: of a patch in pixels; observations that have it inside the image go
            first.

    Returns:
        By image, rows of its ``observed``.
    """
    parts = []
    for index, name in enumerate(names):
        observed = views.observed(name)
        outside = ~views.inside(name, observed.centres, reach)
        places = np.arange(len(outside))
        images = np.full(len(outside), index)
        parts.append((observed.rows, outside, observed.footprints, images, places))
    rows, outside, footprints, images, places = map(np.concatenate, zip(*parts))
    order = np.lexsort((places, images, footprints, outside, rows))
    _, starts, counts = np.unique(rows[order], return_index=True, return_counts=True)
    inside = np.add.reduceat(~outside[order], starts, dtype=np.int64)
    middle = (np.where(inside > 0, inside, counts) - 1) // 2
    picked = np.sort(order[starts + middle])  # by image, then by place
    ends = np.searchsorted(images[picked], np.arange(1, len(parts)))
    return dict(zip(names, np.split(places[picked], ends), strict=True))


def _warnings(unread: list[str]) -> tuple[str, ...]:
    if not unread:
        return ()
    return (
        f"{counted(len(unread), 'image')} cannot be read, and points lack a patch: "
        f"{some_names(unread)}; queries are not registered against these points",
    )
