"""Correspondences of scenes with known poses, kept as npz files.

Each scene goes once through the stages of the package: features of its images, matches
of all pairs, and maps with the known poses. What remains are the matches of each pair
(``pairs``) and the keypoints and map points of each query (``queries``), with the true
poses: enough to compare estimators within seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
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
from r2d2_kapture.stages import extract, map, match, pairs, verify
from r2d2_kapture.stages.localize.correspondences import gather_correspondences

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Sample = TypeVar("Sample", "PairSample", "QuerySample")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Images with known poses.

    Attributes:
        name: of the scene.
        mapping: images of the map.
        queries: other images of the scene; without any, those of the map are
            localized, each in a map without it.
        folds: maps that are made for that; by default one an image.
    """

    name: str
    mapping: tuple[PosedImage, ...]
    queries: tuple[PosedImage, ...] = ()
    folds: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSample:
    """The matches of two images.

    Attributes:
        camera1, camera2: model, width, height, parameters, see ``camera``.
        cam_from_world1, cam_from_world2: (3, 4).
        points1, points2: (K, 2) matched pixels in COLMAP's origin.
        sides1, sides2: (K,) sides in pixels of their patches.
    """

    camera1: npt.NDArray[Any]
    camera2: npt.NDArray[Any]
    cam_from_world1: Array
    cam_from_world2: Array
    points1: Array
    points2: Array
    sides1: Array
    sides2: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class QuerySample:
    """The keypoints of a query and the map points that they match.

    Attributes:
        camera: see ``camera``.
        cam_from_world: (3, 4), the true pose.
        xy: (N, 2) keypoints in COLMAP's origin.
        points: (N, 3) their map points.
        sides: (N,) side in pixels of the patch of each keypoint.
        tracks: (N,) number of keypoints that observe each point.
    """

    camera: npt.NDArray[Any]
    cam_from_world: Array
    xy: Array
    points: Array
    sides: Array
    tracks: Indices


def camera(stored: npt.NDArray[Any]) -> pycolmap.Camera:
    """A camera as it is kept in a sample."""
    model, width, height, *params = stored.tolist()
    return pycolmap.Camera(
        model=model,
        width=int(width),
        height=int(height),
        params=[float(value) for value in params],
    )


def read_samples(folder: Path, kind: type[Sample]) -> list[Sample]:
    """The samples of a folder, in order of their files."""
    return [kind(**np.load(path)) for path in sorted(folder.glob("*.npz"))]


def multiview_scene(folder: Path, folds: int | None = None) -> Scene:
    """A folder with a ``gt.json``."""
    images = read_ground_truth(folder / "gt.json").images
    return Scene(name=folder.name, mapping=images, folds=folds)


def kapture_scene(name: str, mapping: Path, query: Path | None = None) -> Scene:
    """Kapture datasets with poses."""
    return Scene(
        name=name,
        mapping=read_posed_dataset(mapping).images,
        queries=read_posed_dataset(query).images if query else (),
    )


def keep_samples(scene: Scene, extractor: Extractor, output: Path) -> None:
    """Write the samples of a scene, unless they are there.

    Args:
        scene: to keep.
        extractor: of its features.
        output: folder; gets ``pairs``, ``queries``, and what was made on the way.
    """
    done = output / "done"
    if done.is_file():
        return
    options = RunOptions(workers=1)
    images = (*scene.mapping, *scene.queries)
    write_dataset(output / "images", images)
    features = output / "features"
    extract.run(
        extractor, kapture_root=output / "images", output=features, options=options
    )
    match_all(output, options)
    keypoints = open_feature_table([features], "keypoints", None)
    matches = open_matches([output], keypoints.type_name)
    for folder in ("pairs", "queries"):
        (output / folder).mkdir(exist_ok=True)
    for first, second in pairs_with_baseline(scene.mapping):
        sample = pair_sample(first, second, keypoints, matches)
        name = f"{first.name}-{second.name}".replace("/", "_")
        np.savez(output / "pairs" / f"{name}.npz", **fields_of(sample))
    for queries, mapping in map_and_queries(scene):
        sparse_map = map_images(mapping, output, options)
        for query in queries:
            found = query_sample(query, mapping, sparse_map, keypoints, matches)
            name = query.name.replace("/", "_")
            np.savez(output / "queries" / f"{name}.npz", **fields_of(found))
    done.touch()


def map_and_queries(
    scene: Scene,
) -> list[tuple[tuple[PosedImage, ...], tuple[PosedImage, ...]]]:
    """Which images are localized in a map of which others."""
    if scene.queries:
        return [(scene.queries, scene.mapping)]
    folds = scene.folds or len(scene.mapping)
    held = [scene.mapping[fold::folds] for fold in range(folds)]
    return [
        (queries, tuple(image for image in scene.mapping if image not in queries))
        for queries in held
    ]


def write_dataset(root: Path, images: Sequence[PosedImage]) -> None:
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
    kcsv.kapture_to_dir(
        str(root),
        kapture.Kapture(
            sensors=sensors, records_camera=records, trajectories=trajectories
        ),
    )
    write_origin(root / "sensors", "center")


def match_all(output: Path, options: RunOptions) -> None:
    """Match all pairs of the images of a scene."""
    pairs.run(
        PairsConfig(method="exhaustive"),
        mapping=output / "images",
        output=output / "pairs.txt",
        options=options,
    )
    match.run(
        MatchConfig(),
        features=[output / "features"],
        pairs=output / "pairs.txt",
        output=output,
        options=options,
    )


def map_images(
    images: Sequence[PosedImage], output: Path, options: RunOptions
) -> SparseMap:
    """A map of some images of a scene with their known poses."""
    options = dataclasses.replace(options, force=True)
    root = output / "mapping"
    write_dataset(root, images)
    names = sorted(image.name for image in images)
    rows = itertools.combinations(names, 2)
    (output / "mapping.txt").write_text("".join(f"{a}, {b}, 1\n" for a, b in rows))
    verify.run(
        VerifyConfig(),
        mapping=root,
        features=[output / "features"],
        matches=[output],
        pairs=output / "mapping.txt",
        database=output / "database.db",
        output=output / "verified",
        options=options,
    )
    map.run(
        MapConfig(),
        mapping=root,
        database=output / "database.db",
        features=[output / "features"],
        output=output / "map",
        options=options,
    )
    return read_sparse_map(output / "map")


def pair_sample(
    first: PosedImage, second: PosedImage, keypoints: FeatureTable, matches: MatchTable
) -> PairSample:
    """The matches of a pair of images."""
    first, second = sorted((first, second), key=lambda image: image.name)
    found = matches.read(first.name, second.name)
    indices = np.zeros((0, 2), np.int64) if found is None else found.indices
    rows1, rows2 = keypoints.read(first.name), keypoints.read(second.name)
    return PairSample(
        camera1=stored_camera(first.camera),
        camera2=stored_camera(second.camera),
        cam_from_world1=first.cam_from_world.matrix(),
        cam_from_world2=second.cam_from_world.matrix(),
        points1=in_colmap(rows1)[indices[:, 0]],
        points2=in_colmap(rows2)[indices[:, 1]],
        sides1=patch_sides(rows1)[indices[:, 0]].astype(np.float64),
        sides2=patch_sides(rows2)[indices[:, 1]].astype(np.float64),
    )


def query_sample(
    query: PosedImage,
    mapping: Sequence[PosedImage],
    sparse_map: SparseMap,
    keypoints: FeatureTable,
    matches: MatchTable,
) -> QuerySample:
    """The correspondences of a query with a map, as localize gathers them."""
    found: dict[str, Indices] = {}
    for image in mapping:
        first, second = sorted((query.name, image.name))
        of_pair = matches.read(first, second)
        if of_pair is not None and image.name in sparse_map.images:
            order = [0, 1] if first == query.name else [1, 0]
            found[image.name] = of_pair.indices[:, order].astype(np.int64)
    correspondences = gather_correspondences(sparse_map, found)
    rows = keypoints.read(query.name)
    return QuerySample(
        camera=stored_camera(query.camera),
        cam_from_world=query.cam_from_world.matrix(),
        xy=in_colmap(rows)[correspondences.keypoints],
        points=sparse_map.points[correspondences.points],
        sides=patch_sides(rows)[correspondences.keypoints].astype(np.float64),
        tracks=sparse_map.track_lengths[correspondences.points],
    )


def in_colmap(rows: npt.NDArray[Any]) -> Array:
    """(N, 2) x and y of rows of keypoints, in COLMAP's origin."""
    return np.asarray(colmap_from_kapture(rows[:, :2].astype(np.float64)))


def stored_camera(one: pycolmap.Camera) -> npt.NDArray[Any]:
    """Model, width, height and parameters as one array of text."""
    params = [repr(value) for value in one.params.tolist()]
    return np.array([one.model_name, str(one.width), str(one.height), *params])


def fields_of(sample: PairSample | QuerySample) -> Mapping[str, Any]:
    """The fields of a sample, to be kept."""
    return {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)}
