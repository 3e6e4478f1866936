"""COLMAP's options of mapping for our settings."""

from __future__ import annotations

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.io.colmap.model import DatabaseContent


def incremental_options(
    config: MapConfig,
    content: DatabaseContent,
    constant: frozenset[int],
    *,
    poses_known: bool,
) -> pycolmap.IncrementalPipelineOptions:
    """The options of COLMAP for these settings.

    Args:
        config: the settings.
        content: of the database.
        constant: ids of cameras whose intrinsics stay.
        poses_known: whether poses stay too.
    """
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


def global_options(
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
