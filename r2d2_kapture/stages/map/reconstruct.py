"""Models from a COLMAP database: triangulation, and mapping of unknown poses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.model import (
    drop_rigs,
    known_pose_model,
    poses_differ,
)
from r2d2_kapture.io.kapture.depth_maps import ReadDepth
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.map.blocks import triangulate_in_blocks
from r2d2_kapture.stages.map.calibration import Models, map_calibrated, verified_pairs
from r2d2_kapture.stages.map.checks import (
    MIN_SEEN,
    check_map,
    drop_implausible,
    drop_unseen,
)
from r2d2_kapture.stages.map.colmap_options import (
    global_options,
    incremental_options,
)
from r2d2_kapture.stages.map.depth_points import add_depth_points, rejected_keypoints
from r2d2_kapture.stages.map.hierarchical import map_in_clusters
from r2d2_kapture.stages.map.pure_rotation import refuse_pure_rotation
from r2d2_kapture.stages.map.workspace import (
    Workspace,
    colmap_errors,
    constant_cameras,
    guessed_cameras,
    read_verified,
)
from r2d2_kapture.types import counted


def triangulate(
    config: MapConfig,
    workspace: Workspace,
    cam_from_world: Mapping[str, pycolmap.Rigid3d],
    options: RunOptions,
    depth_of: Mapping[str, ReadDepth] = {},
) -> tuple[Models, dict[str, Any]]:
    """Triangulate points of images with known poses; poses are not changed.

    If poses of cameras contradict their rig, the cameras are used independently.

    Args:
        config: thresholds of points.
        workspace: database and folders.
        cam_from_world: by image name; other images are left out.
        options: how to run.
        depth_of: depth maps by image name, for points that come from depth.

    Returns:
        One model, and the numbers of its calibration for a report.

    Raises:
        ReconstructionError: too few points for a map, or no depth maps.
        DatasetError: a depth map cannot be used.
    """

    blocks = 1

    def attempt(place: Workspace, names: frozenset[str] | None) -> Models:
        nonlocal blocks
        chosen = {
            name: pose
            for name, pose in cam_from_world.items()
            if names is None or name in names
        }
        model, blocks = _triangulate(config, place, chosen, options, depth_of)
        return [model]

    models, details = map_calibrated(config, workspace, attempt)
    if blocks > 1:
        details |= {"blocks": blocks}
    if config.points_from != "triangulation":
        rejected = rejected_keypoints(config, models[0], workspace.database)
        details |= {"points_from": config.points_from, "depth_rejected": rejected}
    return models, details


def _triangulate(
    config: MapConfig,
    workspace: Workspace,
    cam_from_world: Mapping[str, pycolmap.Rigid3d],
    options: RunOptions,
    depth_of: Mapping[str, ReadDepth],
) -> tuple[pycolmap.Reconstruction, int]:
    """The model, and in how many blocks its points were found."""
    content = read_verified(workspace.database)
    constant = constant_cameras(config, workspace, content)
    model = known_pose_model(content, cam_from_world)
    if poses_differ(model, cam_from_world):
        drop_rigs(workspace.database)
        content = read_verified(workspace.database)
        model = known_pose_model(content, cam_from_world)
    title = f"map, points of {counted(len(cam_from_world), 'photograph')}"
    bar = Progress(title, "", None, shown=options.progress)
    if config.points_from != "triangulation":
        with bar, quiet_pycolmap():
            add_depth_points(config, model, workspace.database, depth_of)
            model.extract_colors_for_all_images(str(workspace.image_folder))
        drop_unseen(model, config.min_angle)
        check_map(model, content, poses_known=True)
        return model, 1
    pipeline = incremental_options(config, content, constant, poses_known=True)
    refined = not constant.issuperset(content.cameras)
    blocks = 1
    if model.num_reg_images() > config.block_images and not refined:
        bar = Progress(
            title, "photograph", model.num_reg_images(), shown=options.progress
        )
        with bar, quiet_pycolmap(), colmap_errors():
            blocks = triangulate_in_blocks(
                model, content, workspace.database, pipeline, config.block_images, bar
            )
            model.extract_colors_for_all_images(str(workspace.image_folder))
    else:
        with bar, quiet_pycolmap(), colmap_errors():
            model = workspace.triangulate(model, pipeline, refine_intrinsics=refined)
    drop_implausible(model, constant, config.min_angle)
    drop_unseen(model, config.min_angle)
    check_map(model, content, poses_known=True)
    return model, blocks


def map_unknown_poses(
    config: MapConfig, workspace: Workspace, options: RunOptions
) -> tuple[Models, dict[str, Any]]:
    """Estimate poses and points, incrementally, in clusters or globally.

    Returns:
        Models with frames of reference of their own, the largest first; each further
        one has ``min_model_size`` images that those before it lack. And the numbers of
        their calibration for a report.

    Raises:
        ReconstructionError: no model, or too few points for a map.
    """
    made: list[tuple[Models, int]] = []

    def attempt(place: Workspace, names: frozenset[str] | None) -> Models:
        made.append(_map_unknown_poses(config, place, names, options))
        return made[-1][0]

    models, details = map_calibrated(config, workspace, attempt)
    clusters = next(number for found, number in made if found is models)
    if clusters:
        details |= {"clusters": clusters}
    if guessed_cameras(config, workspace, read_verified(workspace.database)):
        refuse_pure_rotation(models[0], verified_pairs(workspace.database))
    return models, details


def _map_unknown_poses(
    config: MapConfig,
    workspace: Workspace,
    names: frozenset[str] | None,
    options: RunOptions,
) -> tuple[Models, int]:
    """The models, and of how many clusters they are; 0 if that is not known."""
    content = read_verified(workspace.database)
    constant = constant_cameras(config, workspace, content)
    refine = not constant.issuperset(content.cameras)
    places = (
        str(workspace.database),
        str(workspace.image_folder),
        str(workspace.scratch),
    )
    # the trials of hierarchical mapping are of one cluster
    one_cluster = names is not None or len(content.paired) <= config.cluster_images
    incremental = config.method not in ("global", "hierarchical") or (
        config.method == "hierarchical" and one_cluster
    )
    clusters = int(incremental and config.method == "hierarchical")
    title = ", ".join(["map", config.method, *workspace.phases])
    bar = Progress(
        title,
        # COLMAP reports the progress of incremental mapping only
        "photograph" if incremental else "",
        len(content.paired) if names is None else len(names),
        # images that do not fit are tried again and again
        steady=False,
        shown=options.progress,
    )
    step_by_step = incremental_options(config, content, constant, poses_known=False)
    with bar, quiet_pycolmap(), colmap_errors():
        if config.method == "global":
            globally = global_options(config, refine=refine)
            globally.image_names = sorted(names or ())
            found = [*pycolmap.global_mapping(*places, options=globally).values()]
        elif not incremental:
            found, clusters = map_in_clusters(config, workspace, step_by_step)
        else:
            step_by_step.image_names = sorted(names or ())
            # a position that is grossly wrong must not bend the map
            step_by_step.use_prior_position = workspace.use_priors
            step_by_step.use_robust_loss_on_prior_position = workspace.use_priors
            made = pycolmap.incremental_mapping(
                *places,
                options=step_by_step,
                initial_image_pair_callback=_started(bar, title),
                next_image_callback=bar.update,
            )
            found = [*made.values()]
    for model in found:
        drop_implausible(model, constant, config.min_angle)
        drop_unseen(model, config.min_angle, MIN_SEEN)
    # smaller databases may be mapped too
    least = min(config.min_model_size, len(content.paired))
    models = _distinct(found, least)
    check_map(models[0] if models else None, content, poses_known=False)
    return models, clusters


def _started(bar: Progress, title: str) -> Callable[[], None]:
    """Called with the first two images of each model: the others follow the first."""
    models = itertools.count(1)

    def two_images() -> None:
        number = next(models)
        if number > 1:
            bar.describe(f"{title}, model {number} of the rest")
        bar.update(2)

    return two_images


def model_numbers(models: list[pycolmap.Reconstruction]) -> dict[str, Any]:
    """Numbers of a map for a report; the mean reprojection error is in pixels."""
    model = models[0]
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": round(model.compute_mean_track_length(), 4),
        "mean_reprojection_error": round(model.compute_mean_reprojection_error(), 4),
        "images_of_further_models": [other.num_reg_images() for other in models[1:]],
    }


def _distinct(
    found: Iterable[pycolmap.Reconstruction], min_images: int
) -> list[pycolmap.Reconstruction]:
    """Models with points, the largest first, without those that add few images."""
    models: list[pycolmap.Reconstruction] = []
    registered: set[int] = set()
    for model in sorted(found, key=_size, reverse=True):
        images = set(model.reg_image_ids())
        adds = len(images - registered) >= min_images
        if model.num_points3D() > 0 and adds:
            models.append(model)
            registered |= images
    return models


def _size(model: pycolmap.Reconstruction) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()
