"""What the report of a map says."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.io.colmap.model import DatabaseContent
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.map_unit import read_map_unit
from r2d2_kapture.stages.map.drawing import draw_model
from r2d2_kapture.types import METRES, Failure, Report, counted, some_names

DETAILS = (
    "method",
    "images",
    "registered_images",
    "points",
    "observations",
    "mean_track_length",
    "mean_reprojection_error",
    "images_of_further_models",
    "calibration",
    "calibrations",
    "blocks",
    "clusters",
    "points_from",
    "depth_rejected",
    "priors",
    "camera_origin",
    "keypoint_origin",
)
"""Numbers of a map in a report, in order."""


def initial_without_use(initial: Path | None) -> Iterator[str]:
    """The warning on an initial map where poses are known."""
    if initial is not None:
        yield f"--initial {initial} is not used, since known poses stay as they are"


def sizes_without_use(config: MapConfig, numbers: Mapping[str, Any]) -> Iterator[str]:
    """The warnings on sizes of blocks and clusters that were set and not used.

    Args:
        config: settings of a map, its method chosen.
        numbers: of its report.
    """
    default = MapConfig()
    in_blocks = config.method == "triangulate" and config.points_from == "triangulation"
    if not in_blocks and config.block_images != default.block_images:
        yield (
            f"--block-images {config.block_images} is not used, since only the "
            "triangulation of known poses is divided into blocks; --method "
            "hierarchical divides the mapping of unknown poses"
        )
    whole = in_blocks and "blocks" not in numbers
    if whole and numbers["registered_images"] > config.block_images:
        yield (
            f"--block-images {config.block_images} is not used, since cameras that are "
            "refined take all images at once; --refine-intrinsics false keeps them"
        )
    unused = config.method != "hierarchical"
    if unused and config.cluster_images != default.cluster_images:
        yield (
            f"--cluster-images {config.cluster_images} is not used, since only "
            f"--method hierarchical maps in clusters, found {config.method}"
        )


def not_in_database(
    dataset: Dataset, content: DatabaseContent, database: Path
) -> Iterator[str]:
    """The warning on images that a dataset has and its database lacks."""
    names = set(dataset.image_names) - {image.name for image in content.images}
    if names:
        yield (
            f"{len(names)} of {len(dataset.image_names)} images of {dataset.root} are "
            f"not in {database}, and thus not in the map: {some_names(sorted(names))}"
        )


def left_out_warnings(without_pose: Collection[str]) -> Iterator[str]:
    """The warning on images that known poses leave out."""
    if without_pose:
        yield (
            f"{len(without_pose)} images without a pose in trajectories.txt are left "
            f"out of the map, such as '{min(without_pose)}'; --method incremental "
            "estimates all poses"
        )


def map_summary(numbers: Mapping[str, Any], images: int) -> str:
    """Summary of a map from the numbers of its report."""
    priors = numbers.get("priors", {})
    # known poses keep their unit
    metres = ", in metres" if priors and "metres_per_unit" not in priors else ""
    return (
        f"{numbers.get('registered_images', 0)} of {counted(images, 'photograph')} in "
        f"the map, {counted(numbers.get('points', 0), 'point')}{metres}"
    )


def images_without_pose(
    model: pycolmap.Reconstruction, content: DatabaseContent
) -> list[str]:
    """Names of the images of a database that a model has no pose of."""
    posed = {image.name for image in model.images.values() if image.has_pose}
    return sorted({image.name for image in content.images} - posed)


def report_of_earlier(earlier: dict[str, Any], output: Path, started: float) -> Report:
    """The report of a run that finds the map made, by that of the run that did."""
    drawn = draw_model(
        output,
        output / "sparse",
        metric_poses=read_map_unit(output) == METRES,
        georeference=read_georeference(output),
    )
    return Report(
        stage="map",
        unit="",
        summary=map_summary(earlier, earlier.get("images", 0)),
        done=0,
        skipped=1,
        # a finished map of some images is not a map of all
        failed=tuple(Failure(**failure) for failure in earlier.get("failed", ())),
        warnings=(*earlier.get("warnings", ()), *drawn),
        seconds=time.monotonic() - started,
        outputs=(output,),
        details={name: earlier[name] for name in DETAILS if name in earlier},
    )
