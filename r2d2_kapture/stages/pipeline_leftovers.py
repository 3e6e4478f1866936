"""What a forced pipeline removes: refined keypoints, and poses in an earlier map."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.io.outputs.atomic import remove_file
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, remove_outputs
from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest
from r2d2_kapture.stages import evaluate, localize, map
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.types import some_names

REPORT_NAME = "report.json"
REFINED = Contents(
    what="refined keypoints",
    files=("reconstruction/keypoints/*_refined/**/*", "database.*"),
)
"""See stages.refine."""


def remove_older_poses(layout: Layout, queries: Collection[str]) -> tuple[str, ...]:
    """Remove poses in an earlier map, of queries that this run does not localize.

    Files of others stay, as do features and matches of these queries.

    Args:
        layout: of the outputs.
        queries: names of those that this run localizes.

    Returns:
        A sentence for the report that names the queries; none without any.

    Raises:
        OutputError: the file system refused.
    """
    older = [
        folder.name
        for folder in sorted(layout.localized(".").glob("*"))
        if folder.name not in queries
        and (manifest := read_manifest(folder / FILE_NAME)) is not None
        and manifest.settings.get(STAGE) == "localize"
        and _time(folder) < _time(layout.map)
    ]
    for name in older:
        remove_outputs(layout.localized(name), localize.CONTENTS)
        if layout.evaluated(name).is_dir():
            remove_outputs(layout.evaluated(name), evaluate.CONTENTS)
    if not older:
        return ()
    # those with other queries are written again
    remove_file(layout.submission)
    if layout.model.is_dir():
        remove_outputs(layout.model, localize.MODELS)
    return (
        f"poses of {some_names(older)} in the earlier map were removed; give --query "
        "again to localize in this one",
    )


def remove_other_refinement(layout: Layout, config: PipelineConfig) -> None:
    """Remove refined keypoints, and the first map, that no stage makes any more.

    Raises:
        OutputError: the file system refused.
    """
    if not config.refine.use:
        remove_refined(layout.refined)
    if not config.refines_again:
        remove_refined(layout.refined_again)
        if layout.first_map.is_dir():
            remove_outputs(layout.first_map, map.CONTENTS)


def remove_refined(folder: Path) -> None:
    """Remove the output of refinement, if there is any.

    Raises:
        OutputError: the file system refused.
    """
    if folder.is_dir():
        remove_outputs(folder, REFINED)


def _time(folder: Path) -> int:
    """When a stage last made something there; 0 if it never ended."""
    path = folder / REPORT_NAME
    return path.stat().st_mtime_ns if path.is_file() else 0
