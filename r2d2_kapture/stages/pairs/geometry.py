"""Pairs by where images were taken, and by the points of a map that they see."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.gnss import (
    GnssPosition,
    Position,
    in_metres,
    read_gnss,
)
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.matching.near_cameras import near_cameras, near_positions
from r2d2_kapture.matching.pair_selection import covisible
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, named, same_places
from r2d2_kapture.types import Failure


def select_by_poses(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Nearby cameras with similar viewing directions."""
    poses2, failed = known_poses(inputs.mapping)
    poses1 = poses2
    if inputs.query is not None:
        poses1, failed_queries = known_poses(inputs.query)
        failed = failed | failed_queries
    same = same_places(list(poses1), list(poses2))
    selection = near_cameras(
        np.stack(list(poses1.values())),
        np.stack(list(poses2.values())),
        top_k=config.partners,
        min_score=config.min_score,
        min_distance=config.min_distance,
        max_distance=config.max_distance,
        max_angle=config.max_angle,
        among=lambda first, second: same[first] != second,
    )
    return Selected(
        pairs=named(selection, list(poses1), list(poses2)),
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


def select_by_gnss(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images taken near each other by their GNSS positions.

    Altitudes on Earth are left out, as receivers err most in them.
    """
    positions2, failed = known_positions(inputs.mapping)
    positions1 = positions2
    if inputs.query is not None:
        positions1, failed_queries = known_positions(inputs.query)
        failed = failed | failed_queries
    found = [*positions1.values(), *positions2.values()]
    if len({type(position) for position in found}) > 1:
        raise DatasetError(
            f"{inputs.mapping.root}, {inputs.query and inputs.query.root}: found GNSS "
            "positions on Earth in one and in a local frame in the other, expected one "
            "frame; choose another method"
        )
    level = {str(i): without_altitude(position) for i, position in enumerate(found)}
    centres, _ = in_metres(level)
    same = same_places(list(positions1), list(positions2))
    selection = near_positions(
        centres[: len(positions1)],
        centres[len(positions1) :],
        top_k=config.partners,
        min_score=config.min_score,
        min_distance=config.min_distance,
        max_distance=config.max_distance,
        among=lambda first, second: same[first] != second,
    )
    return Selected(
        pairs=named(selection, list(positions1), list(positions2)),
        failed=tuple(failed[name] for name in sorted(failed)),
    )


def without_altitude(position: Position) -> Position:
    """A position on the ellipsoid; one in a local frame stays."""
    if isinstance(position, GnssPosition):
        return dataclasses.replace(position, altitude=None)
    return position


def known_positions(
    dataset: Dataset,
) -> tuple[dict[str, Position], dict[str, Failure]]:
    """GNSS positions of images that have one; failures of the others.

    Raises:
        DatasetError: there is none.
    """
    positions = read_gnss(dataset)
    source = dataset.root / "sensors" / "records_gnss.txt"
    if not positions:
        raise DatasetError(
            f"{source}: found no image with a GNSS position, as --method gnss needs; "
            "import photographs whose EXIF data have one, or choose another method"
        )
    return positions, {
        name: Failure(name=name, reason=f"{source}: has no position of '{name}'")
        for name in dataset.image_names
        if name not in positions
    }


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
    selection = covisible(
        [sparse_map.images[name].point_rows for name in names],
        top_k=config.partners,
        min_score=config.min_score,
        over_union=config.covisibility_score == "iou",
    )
    return Selected(
        pairs=named(selection, names, names),
        failed=tuple(
            Failure(name=name, reason=f"{inputs.map_path}: does not contain '{name}'")
            for name in inputs.mapping_names
            if name not in sparse_map.images
        ),
    )
