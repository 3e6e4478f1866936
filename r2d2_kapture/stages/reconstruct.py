"""Models out of a COLMAP database: triangulation, incremental and global mapping."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap, which exports a zlib of its own)
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap
from tqdm import tqdm

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap_log import quiet_pycolmap
from r2d2_kapture.io.colmap_model import (
    DatabaseContent,
    drop_rigs,
    known_pose_model,
    poses_differ,
    read_database,
)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a reconstruction reads, and where it may write.

    Attributes:
        database: a copy of its own: COLMAP writes to databases that it opens.
        images: folder of the images, for the colours of points; may be absent.
        scratch: an empty folder.
        known_cameras: ids of the cameras whose intrinsics are reliable.
    """

    database: Path
    images: Path
    scratch: Path
    known_cameras: frozenset[int]


def triangulate(
    config: MapConfig,
    workspace: Workspace,
    cam_from_world: Mapping[str, pycolmap.Rigid3d],
) -> pycolmap.Reconstruction:
    """Find the points that images with known poses see; the poses stay as they are.

    Where own poses of a rig's cameras contradict the rig, the cameras are taken one by
    one.

    Args:
        config: which points are kept.
        workspace: database and folders.
        cam_from_world: by image name; other images are left out.

    Raises:
        ReconstructionError: no points.
    """
    content, constant = _calibrated(config, workspace)
    model = known_pose_model(content, cam_from_world)
    if poses_differ(model, cam_from_world):
        drop_rigs(workspace.database)
        content = read_verified(workspace.database)
        model = known_pose_model(content, cam_from_world)
    with quiet_pycolmap(), _colmap_errors():
        model = pycolmap.triangulate_points(
            model,
            str(workspace.database),
            str(_image_folder(workspace)),
            str(workspace.scratch),
            options=_incremental_options(config, content, constant, poses_known=True),
            refine_intrinsics=not constant.issuperset(content.cameras),
        )
    if model.num_points3D() == 0:
        raise ReconstructionError(
            f"no 3D point was found from {content.verified_pairs} verified pairs and "
            f"{len(cam_from_world)} known poses; check that the poses map the world to "
            "the camera and belong to these images, or try --method incremental"
        )
    return model


def map_unknown_poses(
    config: MapConfig, workspace: Workspace, options: RunOptions
) -> list[pycolmap.Reconstruction]:
    """Find poses and points, incrementally or globally.

    Returns:
        Models of their own frames of reference, the one of most images first; each
        further one has ``min_model_size`` images that those before it lack.

    Raises:
        ReconstructionError: no model.
    """
    content, constant = _calibrated(config, workspace)
    bar = tqdm(
        total=len(content.paired),
        desc=f"map, {config.method}",
        unit="image",
        disable=None if options.progress is None else not options.progress,
    )
    with bar, quiet_pycolmap(), _colmap_errors():
        if config.method == "global":
            found = pycolmap.global_mapping(
                str(workspace.database),
                str(_image_folder(workspace)),
                str(workspace.scratch),
                options=_global_options(
                    config, refine=not constant.issuperset(content.cameras)
                ),
            )
        else:
            found = pycolmap.incremental_mapping(
                str(workspace.database),
                str(_image_folder(workspace)),
                str(workspace.scratch),
                options=_incremental_options(
                    config, content, constant, poses_known=False
                ),
                next_image_callback=lambda: bar.update() and None,
            )
    models = _distinct(found.values(), config.min_model_size)
    if not models:
        raise ReconstructionError(
            f"no image could be registered from {content.verified_pairs} verified pairs"
            f" of {len(content.paired)} images; more images that overlap, more "
            "keypoints, or known cameras may help"
        )
    return models


def read_verified(database: Path) -> DatabaseContent:
    """Read a database, which must hold verified pairs.

    Raises:
        ReconstructionError: it holds none.
    """
    with quiet_pycolmap():
        content = read_database(database)
    if content.verified_pairs == 0:
        raise ReconstructionError(
            f"found {len(content.images)} images and no verified pair in the database; "
            "check pairs and matches, and run kapture_r2d2_verify"
        )
    return content


def model_numbers(models: list[pycolmap.Reconstruction]) -> dict[str, Any]:
    """What a report says of a map; the mean reprojection error is in pixels."""
    model = models[0]
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": round(model.compute_mean_track_length(), 4),
        "mean_reprojection_error": round(model.compute_mean_reprojection_error(), 4),
        "images_of_further_models": [other.num_reg_images() for other in models[1:]],
    }


def _calibrated(
    config: MapConfig, workspace: Workspace
) -> tuple[DatabaseContent, frozenset[int]]:
    """Content of the database, and its cameras that are not to be refined.

    Where cameras are guesses that may be refined, focal lengths are first found from
    the fundamental matrices of pairs: bundle adjustment alone gets stuck near a guess.
    """
    content = read_verified(workspace.database)
    if config.refine_intrinsics == "auto":
        constant = workspace.known_cameras
    else:
        constant = frozenset(() if config.refine_intrinsics else content.cameras)
    guessed = {
        camera_id
        for camera_id, camera in content.cameras.items()
        if not camera.has_prior_focal_length
    }
    if guessed - constant:
        options = pycolmap.ViewGraphCalibrationOptions(random_seed=config.seed)
        with quiet_pycolmap(), _colmap_errors():
            pycolmap.calibrate_view_graph(str(workspace.database), options)
        content = read_verified(workspace.database)
    return content, constant


@contextmanager
def _colmap_errors() -> Iterator[None]:
    """What COLMAP finds wrong with its input, in a line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise ReconstructionError(
            f"COLMAP cannot map this database: {reason}; write it anew by "
            "kapture_r2d2_verify or kapture_r2d2_colmap"
        ) from error


def _distinct(
    found: Iterable[pycolmap.Reconstruction], min_images: int
) -> list[pycolmap.Reconstruction]:
    """Models with points, largest first, without those that add few images."""
    models: list[pycolmap.Reconstruction] = []
    registered: set[int] = set()
    for model in sorted(found, key=_size, reverse=True):
        images = set(model.reg_image_ids())
        adds = len(images - registered) >= min_images
        if model.num_points3D() > 0 and (adds or not models):
            models.append(model)
            registered |= images
    return models


def _size(model: pycolmap.Reconstruction) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()


def _image_folder(workspace: Workspace) -> Path:
    """Where COLMAP looks for images; it insists on a folder, not on the images."""
    return workspace.images if workspace.images.is_dir() else workspace.scratch


def _incremental_options(
    config: MapConfig,
    content: DatabaseContent,
    constant: frozenset[int],
    *,
    poses_known: bool,
) -> pycolmap.IncrementalPipelineOptions:
    refine = not constant.issuperset(content.cameras)
    two_view_tracks = config.two_view_tracks
    two_view_tracks = poses_known if two_view_tracks == "auto" else two_view_tracks
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=config.threads,
        random_seed=config.seed,
        min_num_matches=config.min_matches,
        min_model_size=config.min_model_size,
        ba_refine_focal_length=refine,
        ba_refine_extra_params=refine,
        ba_refine_sensor_from_rig=config.refine_rigs and not poses_known,
        constant_cameras=set(constant),
    )
    options.mapper.abs_pose_refine_focal_length = refine
    options.mapper.abs_pose_refine_extra_params = refine
    options.mapper.filter_max_reproj_error = config.max_reprojection_error
    options.mapper.filter_min_tri_angle = config.min_angle
    options.triangulation.ignore_two_view_tracks = not two_view_tracks
    options.triangulation.min_angle = config.min_angle
    options.triangulation.complete_max_reproj_error = config.max_reprojection_error
    options.triangulation.merge_max_reproj_error = config.max_reprojection_error
    return options


def _global_options(
    config: MapConfig, *, refine: bool
) -> pycolmap.GlobalPipelineOptions:
    options = pycolmap.GlobalPipelineOptions(
        num_threads=config.threads,
        random_seed=config.seed,
        min_num_matches=config.min_matches,
        min_model_size=config.min_model_size,
    )
    mapper = options.mapper
    mapper.refine_sensor_from_rig = config.refine_rigs
    mapper.rotation_averaging.refine_sensor_from_rig = config.refine_rigs
    mapper.global_positioning.refine_sensor_from_rig = config.refine_rigs
    mapper.bundle_adjustment.refine_sensor_from_rig = config.refine_rigs
    mapper.bundle_adjustment.refine_focal_length = refine
    mapper.bundle_adjustment.refine_extra_params = refine
    mapper.min_tri_angle_deg = config.min_angle
    mapper.retriangulation.ignore_two_view_tracks = config.two_view_tracks is not True
    return options
