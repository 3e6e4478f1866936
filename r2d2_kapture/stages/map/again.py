"""A map made again from an earlier one, whose keypoints have been refined since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.sparse_map import read_colmap_model
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.map.adjust import adjust
from r2d2_kapture.stages.map.calibration import Models
from r2d2_kapture.stages.map.checks import (
    MIN_SEEN,
    check_map,
    drop_implausible,
    drop_unseen,
)
from r2d2_kapture.stages.map.colmap_options import incremental_options
from r2d2_kapture.stages.map.workspace import (
    Workspace,
    colmap_errors,
    constant_cameras,
    read_verified,
)
from r2d2_kapture.types import counted


def map_again(
    config: MapConfig, workspace: Workspace, initial: Path, options: RunOptions
) -> tuple[Models, dict[str, Any]]:
    """Triangulate points anew at the poses of an earlier map, then adjust all of it.

    Args:
        config: thresholds of points, and which cameras and rigs are refined.
        workspace: database and folders.
        initial: the earlier map of the same images.
        options: how to run.

    Returns:
        One model, in the frame of the earlier one but for what bundle adjustment
        changes; and the numbers of its calibration for a report.

    Raises:
        DatasetError: the earlier map cannot be read, or is of other images than
            the database.
        ReconstructionError: too few points for a map.
    """
    content = read_verified(workspace.database)
    model = read_colmap_model(initial)
    ids = {image.name: image.image_id for image in content.images}
    of_map = {image.name: image.image_id for image in model.images.values()}
    for name in sorted(of_map):
        if ids.get(name) != of_map[name]:  # by which COLMAP joins the two
            found = "has another number" if name in ids else "is not"
            raise DatasetError(
                f"{initial}: image '{name}' of the map {found} in the database; give a "
                "map of the same images"
            )
    constant = constant_cameras(config, workspace, content)
    title = f"map again, {counted(model.num_reg_images(), 'photograph')}"
    bar = Progress(title, "", None, shown=options.progress)
    pipeline = incremental_options(config, content, constant, poses_known=False)
    pipeline.ba_refine_sensor_from_rig = False  # as the poses, while points are found
    with bar, quiet_pycolmap(), colmap_errors():
        model = workspace.triangulate(model, pipeline, refine_intrinsics=False)
        pipeline.ba_refine_sensor_from_rig = config.refine_rigs
        adjust(model, workspace.database, pipeline)
    drop_implausible(model, constant, config.min_angle)
    drop_unseen(model, config.min_angle, MIN_SEEN)
    check_map(model, content, poses_known=True)
    return [model], {"calibration": "that of the initial map"}
