"""Opens prepared scenes of MegaDepth as sources of pairs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.stages.megadepth import (
    SCENE_INFO_FOLDER,
    SceneInfo,
    read_depth,
    read_scene_info,
)
from r2d2_kapture.stages.train.photographs import OpenedSources
from r2d2_kapture.training.data import WeightedSource
from r2d2_kapture.training.loading import PictureLoader
from r2d2_kapture.training.lookups import inverse_of_depth
from r2d2_kapture.training.posed_pairs import (
    DoubleArray,
    PinholeModel,
    PosedPairSource,
    PosedPicture,
)
from r2d2_kapture.types import Failure, FloatArray, IndexArray

DEPTH_TOLERANCE = 0.05
"""Largest relative difference between depths of the same point in two images."""
ROTATION_TOLERANCE = 1e-3
DRAW_SEED = 0


def read_inverse_depth(path: Path, size: tuple[int, int]) -> FloatArray:
    """(H, W) inverse depth of an image of (W, H) pixels, NaN where unknown.

    Raises:
        DatasetError: missing, truncated, or of another size.
    """
    return inverse_of_depth(read_depth(path, size))


def open_megadepth(
    root: Path,
    scenes: tuple[str, ...],
    config: PairConfig,
    load: PictureLoader,
    selection: MegadepthPairs = MegadepthPairs(),
) -> OpenedSources:
    """Pairs of the images of scenes that kapture_r2d2_megadepth has prepared.

    Each SfM model of a scene is a source; all are drawn equally often, and their
    weights are 1 together. The selected pairs of a model depend only on its scene info,
    and on missing images.

    Args:
        root: folder of ``scene_info``, to which its paths are relative.
        scenes: names such as ``0022``; all models of each are used.
        config: of the pairs.
        load: decodes images.
        selection: of pairs.

    Raises:
        DatasetError: no scene has a pair, or there is no scene info.
    """
    folder = root / SCENE_INFO_FOLDER
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: not found, expected the scene infos that "
            "kapture_r2d2_megadepth makes"
        )
    sources: list[PosedPairSource] = []
    skipped: list[Failure] = []
    for scene in scenes:
        paths = scene_info_paths(root, scene)
        if not paths:
            reason = f"no scene info of it in {folder}, create it first"
            skipped.append(Failure(name=scene, reason=reason))
        for path in paths:
            try:
                source, missing = _open_model(root, path, config, load, selection)
            except DatasetError as error:
                skipped.append(Failure(name=path.stem, reason=str(error)))
                continue
            sources.append(source)
            skipped.extend(missing)
    if not sources:
        first = f"; the first: {skipped[0].to_text()}" if skipped else ""
        raise DatasetError(
            f"{root}: found no usable pair in {len(scenes)} scenes of "
            f"MegaDepth{first}"
        )
    weight = 1 / len(sources)
    return OpenedSources(
        sources=tuple(WeightedSource(source=item, weight=weight) for item in sources),
        skipped=tuple(skipped),
    )


def scene_info_paths(root: Path, scene: str) -> list[Path]:
    """The scene infos of all models of a scene, in order of the models."""
    found = {
        int(path.stem.removeprefix(f"{scene}.")): path
        for path in (root / SCENE_INFO_FOLDER).glob("*.npz")
        if path.stem.rpartition(".")[0] == scene
        and path.stem.rpartition(".")[2].isdecimal()
    }
    return [found[model] for model in sorted(found)]


def select_pairs(info: SceneInfo, selection: MegadepthPairs) -> IndexArray:
    """Pairs of images whose overlap and scale are within bounds.

    The overlap counts from either image: one may show a detail of the other.

    Returns:
        (P, 2) rows i < j, sorted.
    """
    overlaps = info.overlaps
    within = (overlaps >= selection.min_overlap_ratio) & (
        overlaps <= selection.max_overlap_ratio
    )
    there = np.array([*map(bool, info.image_paths)]) & np.array(
        [*map(bool, info.depth_paths)]
    )
    within = (within | within.T) & there & there[:, None]
    first, second = np.nonzero(np.triu(within, k=1))
    ratios = info.scale_ratios[first, second]
    # published files may have the ratio in either direction
    larger = np.maximum(ratios, 1 / np.where(ratios > 0, ratios, np.nan))
    kept = (ratios > 0) & (larger <= (selection.max_scale_ratio or np.inf))
    return np.column_stack([first, second])[kept].astype(np.int64)


def _open_model(
    root: Path,
    path: Path,
    config: PairConfig,
    load: PictureLoader,
    selection: MegadepthPairs,
) -> tuple[PosedPairSource, list[Failure]]:
    """The pairs of one scene info, and its unusable images.

    Raises:
        DatasetError: it cannot be read, or has no pair.
    """
    info = read_scene_info(path)
    pairs = _drawn(select_pairs(info, selection), selection.pairs_per_scene)
    pictures: dict[int, PosedPicture] = {}
    missing: list[Failure] = []
    for row in np.unique(pairs).tolist():
        try:
            pictures[row] = _picture(root, info, row, config.crop_size)
        except (DatasetError, ImageError) as error:
            missing.append(Failure(name=info.image_paths[row], reason=str(error)))
    places = {row: place for place, row in enumerate(pictures)}
    kept = [
        (places[first], places[second])
        for first, second in pairs.tolist()
        if first in places and second in places
    ]
    if not kept and missing:
        raise DatasetError(
            f"{path}: none of its pairs can be used; the first unusable image: "
            f"{missing[0].to_text()}"
        )
    source = PosedPairSource(
        str(path), tuple(pictures.values()), kept, config, load, DEPTH_TOLERANCE
    )
    return source, missing


def _drawn(pairs: IndexArray, count: int) -> IndexArray:
    """At most ``count`` of the pairs, the same in every run."""
    if len(pairs) <= count:
        return pairs
    rng = np.random.default_rng(DRAW_SEED)
    return pairs[np.sort(rng.choice(len(pairs), count, replace=False))]


def _picture(root: Path, info: SceneInfo, row: int, crop_size: int) -> PosedPicture:
    """One image of a scene info.

    Raises:
        ImageError, DatasetError: it or its depth map is missing, it is too small, or
            its intrinsics or pose are invalid.
    """
    name = info.image_paths[row]
    size = image_size(root / name)
    if min(size) < crop_size:
        raise DatasetError(
            f"found {size} pixels, expected at least {crop_size} per side"
        )
    _check_geometry(info.intrinsics[row], info.poses[row])
    depth_path = root / info.depth_paths[row]
    if not depth_path.is_file():
        raise DatasetError(f"{depth_path}: not found, expected its depth map")
    return PosedPicture(
        name=name,
        path=root / name,
        camera=PinholeModel(size=size, intrinsics=info.intrinsics[row]),
        cam_from_world=info.poses[row],
        read_inverse_depth=partial(read_inverse_depth, depth_path, size),
    )


def _check_geometry(intrinsics: DoubleArray, pose: DoubleArray) -> None:
    """Refuse invalid intrinsics and poses.

    Raises:
        DatasetError: not a pinhole camera, or not a rotation and a translation.
    """
    focal_lengths = np.diag(intrinsics)[:2]
    pinhole = np.isfinite(intrinsics).all() and (focal_lengths > 0).all()
    if not pinhole or (np.tril(intrinsics, -1) != 0).any() or intrinsics[2, 2] != 1:
        raise DatasetError(
            f"found intrinsics {intrinsics.tolist()}, expected [[fx, s, cx], "
            "[0, fy, cy], [0, 0, 1]] with fx and fy above 0"
        )
    rotation = pose[:3, :3]
    rigid = (
        np.isfinite(pose).all()
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=ROTATION_TOLERANCE)
        and np.linalg.det(rotation) > 0
        and np.allclose(pose[3], (0, 0, 0, 1))
    )
    if not rigid:
        raise DatasetError(
            f"found the pose {pose.tolist()}, expected [[R, t], [0, 1]] of a rotation R"
        )
