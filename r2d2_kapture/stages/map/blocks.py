"""Points of many images with known poses, triangulated block by block.

Where poses and cameras stay, points do not depend on each other: a bundle adjustment
separates into one for each point, and tracks only depend on the matches around them. A
block is triangulated with the images that its own are paired with, and with the points
that earlier blocks have found there; so a track that crosses a border is continued, and
tracks that turn out to be one are merged, as within a block. Memory is that of one
block, and of the map.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pycolmap
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from r2d2_kapture.io.colmap.model import (
    DatabaseContent,
    known_pose_model,
    read_database,
)
from r2d2_kapture.io.colmap.model_points import set_keypoints
from r2d2_kapture.io.colmap.part import write_part
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import IndexArray

POINTS_AT_ONCE = 20_000
"""Points that are adjusted together: some 200 MB at 8 observations each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Frames of images with a pose, and which of them verified pairs join.

    Attributes:
        frames: ids of the images of each, in order of their first ids.
        pairs: (K, 2) image ids of pairs within these, the smaller first.
    """

    frames: Sequence[tuple[int, ...]]
    pairs: IndexArray

    @staticmethod
    def of(
        content: DatabaseContent, model: pycolmap.Reconstruction, min_matches: int
    ) -> Neighbours:
        """Those of the registered images of a model of a database."""
        images: dict[int, list[int]] = {}
        for image_id in sorted(model.reg_image_ids()):
            images.setdefault(model.image(image_id).frame_id, []).append(image_id)
        registered = set(model.reg_image_ids())
        pairs = [
            pair
            for pair, (inliers, _) in content.counts.items()
            if inliers >= min_matches and registered.issuperset(pair)
        ]
        return Neighbours(
            frames=sorted(map(tuple, images.values())),
            pairs=np.sort(np.array(sorted(pairs), np.int64).reshape(-1, 2), axis=1),
        )

    @cached_property
    def frame_of(self) -> dict[int, int]:
        """Position of the frame of each image."""
        return {i: place for place, ids in enumerate(self.frames) for i in ids}

    @cached_property
    def frame_pairs(self) -> IndexArray:
        """(K, 2) positions of the frames of pairs."""
        places = [self.frame_of[image] for image in self.pairs.ravel().tolist()]
        return np.array(places, np.int64).reshape(-1, 2)

    def blocks(self, block_images: int) -> Iterator[IndexArray]:
        """Positions of frames, so that paired ones are mostly in one block.

        Args:
            block_images: of a block, but that frames stay together.
        """
        count = len(self.frames)
        ones = np.ones(len(self.pairs), np.int8)
        graph = csr_array((ones, tuple(self.frame_pairs.T)), shape=(count, count))
        order = reverse_cuthill_mckee(graph + graph.T, symmetric_mode=True)
        sizes = np.array([len(self.frames[place]) for place in order])
        blocks = -(-int(sizes.sum()) // block_images)
        # the middle of each frame says in which of blocks of one size it is
        middles = np.cumsum(sizes) - sizes / 2
        of_block = np.minimum(middles * blocks // sizes.sum(), blocks - 1)
        for block in range(blocks):
            yield np.sort(order[of_block == block]).astype(np.int64)

    def images_of(self, frames: IndexArray) -> list[int]:
        """Ids of the images of frames, in order."""
        return sorted(i for place in frames.tolist() for i in self.frames[place])

    def around(self, frames: IndexArray) -> IndexArray:
        """Frames and those that they are paired with."""
        touching = np.isin(self.frame_pairs, frames).any(axis=1)
        return np.union1d(frames, self.frame_pairs[touching])

    def pairs_within(self, frames: IndexArray) -> list[tuple[int, int]]:
        """Image ids of the pairs whose frames are both among some."""
        within = np.isin(self.frame_pairs, frames).all(axis=1)
        return [(int(one), int(other)) for one, other in self.pairs[within]]


def triangulate_in_blocks(
    model: pycolmap.Reconstruction,
    content: DatabaseContent,
    database: Path,
    pipeline: pycolmap.IncrementalPipelineOptions,
    block_images: int,
    bar: Progress,
) -> int:
    """Triangulate the points of a model whose poses and cameras stay.

    Args:
        model: of the database, without points; changed in place.
        content: of the database.
        database: of its keypoints and verified pairs.
        pipeline: how to triangulate.
        block_images: of a block.
        bar: of images.

    Returns:
        The number of blocks.
    """
    blocks = 0
    set_keypoints(model, database)
    neighbours = Neighbours.of(content, model, pipeline.min_num_matches)
    poses = {
        image.name: image.cam_from_world()
        for image in map(model.image, model.reg_image_ids())
    }
    with tempfile.TemporaryDirectory(dir=database.parent) as scratch:
        for block, frames in enumerate(neighbours.blocks(block_images)):
            part_of_database = Path(scratch) / f"{block}.db"
            around = neighbours.around(frames)
            near = neighbours.images_of(around)
            known = _points_seen(model, near)
            far = _frames_of_tracks(model, neighbours, known)
            images = neighbours.images_of(np.union1d(around, far))
            pairs = neighbours.pairs_within(around)
            write_part(database, part_of_database, images, pairs)
            part = _part_of(model, part_of_database, poses, known)
            core = neighbours.images_of(frames)
            _triangulate(part, part_of_database, core, pipeline)
            part_of_database.unlink()
            _replace_points(model, known, part)
            bar.update(len(core))
            blocks += 1
    model.update_point_3d_errors()
    return blocks


def _points_seen(model: pycolmap.Reconstruction, image_ids: list[int]) -> list[int]:
    """Ids of the points that images see, ascending."""
    found: set[int] = set()
    for image_id in image_ids:
        seen = model.image(image_id).get_observation_points2D()
        found.update(point.point3D_id for point in seen)
    return sorted(found)


def _frames_of_tracks(
    model: pycolmap.Reconstruction, neighbours: Neighbours, point_ids: list[int]
) -> IndexArray:
    """Frames of all images that see points."""
    frames = {
        neighbours.frame_of[element.image_id]
        for point_id in point_ids
        for element in model.point3D(point_id).track.elements
    }
    return np.array(sorted(frames), np.int64)


def _part_of(
    model: pycolmap.Reconstruction,
    database: Path,
    poses: Mapping[str, pycolmap.Rigid3d],
    point_ids: list[int],
) -> pycolmap.Reconstruction:
    """A model of the images of a part of the database, with points that are known."""
    part = known_pose_model(read_database(database), poses)
    set_keypoints(part, database)
    for point_id in point_ids:
        point = model.point3D(point_id)
        part.add_point3D(point.xyz, point.track, point.color)
    return part


def _triangulate(
    part: pycolmap.Reconstruction,
    database: Path,
    image_ids: list[int],
    pipeline: pycolmap.IncrementalPipelineOptions,
) -> None:
    """What COLMAP's triangulation does, for the points that some of the images see.

    See ``IncrementalPipeline::TriangulateReconstruction`` in
    github.com/colmap/colmap; only, points are adjusted few at a time.
    """
    chosen = pycolmap.DatabaseCacheOptions(
        min_num_matches=pipeline.min_num_matches, load_all_images=True
    )
    with closing(pycolmap.Database.open(str(database))) as opened:
        cache = pycolmap.DatabaseCache.create(opened, chosen)
    options, filters = pipeline.get_triangulation(), pipeline.get_mapper()
    mapper = pycolmap.IncrementalMapper(cache)
    mapper.begin_reconstruction(part)
    for image_id in image_ids:
        mapper.triangulate_image(options, image_id)
    mapper.complete_and_merge_tracks(options)
    mapper.retriangulate(options)
    for _ in range(pipeline.ba_global_max_refinements):
        before = part.compute_num_observations()
        _adjust_points(part, pipeline)
        changed = mapper.complete_and_merge_tracks(options)
        changed += mapper.filter_points(filters)
        if changed <= pipeline.ba_global_max_refinement_change * before:
            break
    mapper.end_reconstruction(discard=False)


def _adjust_points(
    part: pycolmap.Reconstruction, pipeline: pycolmap.IncrementalPipelineOptions
) -> None:
    """Adjust the points of images that stay."""
    options = pipeline.get_global_bundle_adjustment()
    options.print_summary = False
    point_ids = sorted(part.points3D)
    for start in range(0, len(point_ids), POINTS_AT_ONCE):
        chosen = pycolmap.BundleAdjustmentConfig()
        for point_id in point_ids[start : start + POINTS_AT_ONCE]:
            chosen.add_variable_point(point_id)
        pycolmap.create_default_bundle_adjuster(options, chosen, part).solve()


def _replace_points(
    model: pycolmap.Reconstruction, point_ids: list[int], part: pycolmap.Reconstruction
) -> None:
    """Give a model the points of a part of it for those that the part began with."""
    for point_id in point_ids:
        model.delete_point3D(point_id)
    for point_id in sorted(part.points3D):
        point = part.point3D(point_id)
        model.add_point3D(point.xyz, point.track, point.color)
