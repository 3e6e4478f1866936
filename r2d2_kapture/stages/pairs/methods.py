"""The pair methods: each takes datasets and returns scored pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.pairs import PairMethod, PairsConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.colmap.sparse_map import map_files, read_sparse_map
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.matching.pair_selection import (
    covisibility_blocks,
    every_with_every,
    exhaustive,
    pose_blocks,
)
from r2d2_kapture.stages.pairs.inputs import (
    PairInputs,
    Selected,
    best_named,
    named,
)
from r2d2_kapture.stages.pairs.sequences import select_sequential
from r2d2_kapture.stages.pairs.similarity import (
    global_features,
    local_features,
    select_by_global_features,
    select_by_local_features,
)
from r2d2_kapture.types import Failure


def method_files(config: PairsConfig, inputs: PairInputs) -> Iterator[Path]:
    """The features, or the map, that the method reads.

    Raises:
        DatasetError, FeatureFormatError: there are none.
    """
    names = sorted({*inputs.mapping_names, *inputs.first_names})
    if config.similarity == "global":
        yield from global_features(inputs).files(names)
    if config.similarity == "local":
        features = local_features(inputs)
        yield from features.keypoints.files(names)
        yield from features.descriptors.files(names)
    if inputs.map_path is not None:
        yield from map_files(inputs.map_path)


def select_exhaustive(config: PairsConfig, inputs: PairInputs) -> Selected:
    """All pairs."""
    first, second = inputs.first_names, inputs.mapping_names
    if inputs.query is None:
        selection = exhaustive(len(first))
    else:
        selection = every_with_every(len(first), len(second))
    return Selected(pairs=named(selection, first, second))


def select_by_poses(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Nearby cameras with similar viewing directions."""
    poses2, failed = known_poses(inputs.mapping)
    poses1 = poses2
    if inputs.query is not None:
        poses1, failed_queries = known_poses(inputs.query)
        failed = failed | failed_queries
    blocks = pose_blocks(
        np.stack(list(poses1.values())),
        np.stack(list(poses2.values())),
        max_distance=config.max_distance,
        max_angle=config.max_angle,
    )
    return Selected(
        pairs=best_named(config, blocks, list(poses1), list(poses2)),
        failed=tuple(failed[name] for name in sorted(failed)),
    )


def known_poses(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Failure]]:
    """(3, 4) cam_from_world of images with a pose; failures of the others.

    Raises:
        DatasetError: there is no pose.
    """
    poses = read_camera_poses(dataset)
    source = dataset.root / "sensors" / "trajectories.txt"
    if not poses.cam_from_world:
        raise DatasetError(
            f"{source}: found no image with a pose, as --method poses needs; choose "
            "another method"
        )
    return (
        {name: pose.matrix() for name, pose in poses.cam_from_world.items()},
        {
            name: Failure(
                name=name, reason=f"{source}: has no complete pose of '{name}'"
            )
            for name in poses.without_pose
        },
    )


def select_by_covisibility(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images that observe common points of a map."""
    if inputs.map_path is None:
        raise ConfigError("--method covisibility: found no --map, expected one")
    sparse_map = read_sparse_map(inputs.map_path, inputs.keypoints_type)
    names = [name for name in inputs.mapping_names if name in sparse_map.images]
    if not names:
        raise DatasetError(
            f"{inputs.map_path}: found none of the {len(inputs.mapping_names)} images "
            f"of {inputs.mapping.root}, expected a map of them"
        )
    blocks = covisibility_blocks([sparse_map.images[name].point_rows for name in names])
    return Selected(
        pairs=best_named(config, blocks, names, names),
        failed=tuple(
            Failure(name=name, reason=f"{inputs.map_path}: does not contain '{name}'")
            for name in inputs.mapping_names
            if name not in sparse_map.images
        ),
    )


def select_nothing(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Only the pairs of lists."""
    return Selected(pairs=[])


PAIR_METHODS: Mapping[PairMethod, Callable[[PairsConfig, PairInputs], Selected]] = {
    "exhaustive": select_exhaustive,
    "sequential": select_sequential,
    "poses": select_by_poses,
    "covisibility": select_by_covisibility,
    "global": select_by_global_features,
    "local": select_by_local_features,
    "merge": select_nothing,
}
