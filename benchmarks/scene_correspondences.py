"""Correspondences of scenes with known poses, by the pipeline without refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from refine_rooms import write_room
from refinement import extract_all, localize

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.evaluation.posed_images import (
    PosedImage,
    pairs_with_baseline,
    read_ground_truth,
    read_posed_dataset,
)
from r2d2_kapture.io.colmap.cameras import kapture_camera
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.match_store import MatchTable, open_matches
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.stages.localize.correspondences import gather_correspondences
from r2d2_kapture.synthetic.room import textured_room

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Images = Sequence[PosedImage]

SCENES = ("lund_door", "imc_reichstag", "tum_fr2_desk", "gallery", "room")
FOLDS = {"tum_fr2_desk": 4}
"""Of neighbouring frames of a video several are left out at once."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The matches of two images: (K, 2) pixels in COLMAP's origin."""

    cameras: tuple[pycolmap.Camera, pycolmap.Camera]
    cam2_from_cam1: pycolmap.Rigid3d
    points1: Array
    points2: Array


@dataclass(frozen=True, eq=False)
class Query:
    """The (N, 2) keypoints of a query, their (N,) patch sides and (N, 3) map points."""

    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d
    xy: Array
    sides: Array
    points: Array


def open_scene(name: str, data: Path, output: Path) -> list[tuple[Images, Images]]:
    """Images to map and to localize of one of SCENES; the room is rendered."""
    if name == "room":
        write_room(output, textured_room(0), 0, (12, 20), (1600, 1200))
        parts = [read_posed_dataset(output / p).images for p in ("mapping", "query")]
        return [(parts[0], parts[1])]
    if name == "gallery":
        images = read_posed_dataset(data / "virtual_gallery" / "mapping").images
    else:
        images = read_ground_truth(data / "multiview" / name / "gt.json").images
    folds = FOLDS.get(name, len(images))
    held = [images[fold::folds] for fold in range(folds)]
    return [([i for i in images if i not in queries], queries) for queries in held]


def correspondences(
    splits: Sequence[tuple[Images, Images]], extractor: Extractor, output: Path
) -> tuple[list[Query], list[Pair]]:
    """Of all queries with their maps, and of all pairs of images of a map."""
    label, queries = extractor.label, list[Query]()
    mapped: dict[str, PosedImage] = {}
    for number, (mapping, held) in enumerate(splits):
        folder = output / "maps" / f"{number}"
        datasets = folder / "mapping", folder / "query"
        write_dataset(datasets[0], mapping)
        write_dataset(datasets[1], held)
        extract_all(extractor, datasets, output)
        localize(*datasets, folder, shared=output, label=label, refine="off")
        keypoints = open_feature_table([output / "features"], "keypoints", label)
        matches = open_matches([output / "matches"], label)
        sparse_map = read_sparse_map(folder / "map")
        queries += [query_of(one, sparse_map, keypoints, matches) for one in held]
        mapped |= {image.name: image for image in mapping}
    images = [mapped[name] for name in sorted(mapped)]
    return queries, [
        pair_of(first, second, keypoints, matches)
        for first, second in pairs_with_baseline(images)
    ]


def write_dataset(root: Path, images: Images) -> None:
    """A kapture dataset of posed images, a camera an image, linked to their files."""
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    trajectories = kapture.Trajectories()
    for number, image in enumerate(images):
        sensor_id = f"camera_{number:03d}"
        sensors[sensor_id] = kapture_camera(image.camera, "center")
        records[number, sensor_id] = image.name
        trajectories[number, sensor_id] = kapture_from_rigid3d(image.cam_from_world)
        link = root / "sensors" / "records_data" / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(image.path.resolve())
    part = kapture.Kapture(
        sensors=sensors, records_camera=records, trajectories=trajectories
    )
    kcsv.kapture_to_dir(str(root), part)
    write_origin(root / "sensors", "center")


def matched(matches: MatchTable, first: str, second: str) -> Indices:
    """(K, 2) rows of the keypoints of the first and of the second image."""
    names = sorted((first, second))
    found = matches.read(*names)
    indices = np.zeros((0, 2)) if found is None else found.indices
    return indices[:, [names.index(first), names.index(second)]].astype(np.int64)


def pair_of(
    first: PosedImage, second: PosedImage, keypoints: FeatureTable, matches: MatchTable
) -> Pair:
    """The matches of a pair of images."""
    rows = matched(matches, first.name, second.name)
    return Pair(
        (first.camera, second.camera),
        second.cam_from_world * first.cam_from_world.inverse(),
        in_colmap(keypoints.read(first.name)[rows[:, 0]]),
        in_colmap(keypoints.read(second.name)[rows[:, 1]]),
    )


def query_of(
    query: PosedImage,
    sparse_map: SparseMap,
    keypoints: FeatureTable,
    matches: MatchTable,
) -> Query:
    """The correspondences of a query with a map, as localize gathers them."""
    found = {name: matched(matches, query.name, name) for name in sparse_map.images}
    chosen = gather_correspondences(sparse_map, found)
    rows = keypoints.read(query.name)[chosen.keypoints]
    return Query(
        query.camera,
        query.cam_from_world,
        in_colmap(rows),
        patch_sides(rows).astype(np.float64),
        sparse_map.points[chosen.points],
    )


def in_colmap(rows: npt.NDArray[Any]) -> Array:
    """(N, 2) x and y of rows of keypoints, in COLMAP's origin."""
    return np.asarray(colmap_from_kapture(rows[:, :2].astype(np.float64)))
