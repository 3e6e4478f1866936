"""The output folder of poses: what is in it, and its manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.outputs.ledger import STAGE, Contents
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.stages.localize.point_search import is_searched
from r2d2_kapture.stages.localize.positions import POSITIONS_NAME
from r2d2_kapture.stages.localize.results import POSES_NAME, QUERIES_FOLDER

REPORT_NAME = "report.json"
TABLES = ("sensors", "rigs", "records_camera", "trajectories")
CONTENTS = Contents(
    what="poses",
    files=(
        *(f"sensors/{name}.txt" for name in TABLES),
        *(f"sensors/{ORIGIN_NAME}", f"{QUERIES_FOLDER}/**/*.json"),
        *(POSES_NAME, POSITIONS_NAME, REPORT_NAME),
    ),
)


def localized_manifest(
    config: LocalizeConfig, keypoints_type: str, dataset: Dataset, *, refined: bool
) -> Manifest:
    """The manifest of an output folder: settings, and the records of the queries.

    Those of refinement and of the second pass are in it where these are made: without
    them poses are those of earlier versions.

    Args:
        config: settings.
        keypoints_type: of the queries.
        dataset: of the queries.
        refined: whether keypoints are refined.
    """
    settings = dataclasses.asdict(config)
    del settings["format"]  # does not change poses
    if not refined:
        del settings["refine"]
    if not is_searched(config, refined=refined):
        del settings["second_pass"]
    records = json.dumps(
        {name: one[:2] for name, one in image_records(dataset.data).items()},
        sort_keys=True,
    )
    return Manifest(
        model={},
        settings={
            **settings,
            STAGE: "localize",
            "keypoints_type": keypoints_type,
            "query records SHA-256": hashlib.sha256(records.encode()).hexdigest()[:12],
        },
        versions=package_versions(),
    )


def refuse_inputs(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an input as the output folder.

    Raises:
        OutputError: naming it.
    """
    if output.resolve() in {path.resolve() for path in inputs}:
        found = "an input, expected a folder for poses"
        raise CONTENTS.refusal(output, found, forcible=False)
