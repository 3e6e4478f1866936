"""The output folder of poses: its manifest, and whether it may be written to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.outputs.atomic import output_error, write_json_atomic
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.stages.localize.results import QUERIES_FOLDER

STAGE = "localize"


def localized_manifest(
    config: LocalizeConfig, keypoints_type: str, dataset: Dataset
) -> Manifest:
    """The manifest of an output folder: settings, and the records of the queries."""
    settings = dataclasses.asdict(config)
    del settings["format"]  # does not change poses
    records = json.dumps(
        {name: one[:2] for name, one in image_records(dataset.data).items()},
        sort_keys=True,
    )
    return Manifest(
        model={},
        settings={
            **settings,
            "stage": STAGE,
            "keypoints_type": keypoints_type,
            "query records SHA-256": hashlib.sha256(records.encode()).hexdigest()[:12],
        },
        versions=package_versions(),
    )


def refuse_foreign_folder(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse a folder with other files, also with ``force``.

    Raises:
        OutputError: the folder is an input, or has files but no manifest of this stage.
    """
    for path in inputs:
        if output.resolve() == path.resolve():
            raise OutputError(
                f"{output}: found an input, expected a folder for poses; choose "
                "another --output"
            )
    if not output.is_dir() or _is_localized(output):
        return
    for path in sorted(output.iterdir()):
        # the lock, and files of a run killed at its start
        if not path.name.startswith("."):
            raise OutputError(
                f"{output}: found '{path.name}' without a {FILE_NAME} of "
                "kapture_r2d2_localize, expected an earlier output or an empty folder; "
                "choose another --output"
            )


def _is_localized(output: Path) -> bool:
    try:
        manifest = read_manifest(output / FILE_NAME)
    except FeatureFormatError:
        return False
    return manifest is not None and manifest.settings.get("stage") == STAGE


def claim(output: Path, manifest: Manifest, *, force: bool) -> None:
    """Write the manifest of an output folder, or refuse one that differs.

    Args:
        output: accepted by ``refuse_foreign_folder``.
        manifest: of the poses to be written.
        force: remove poses of other manifests.

    Raises:
        OutputError: see ``run``.
    """
    existing = read_manifest(output / FILE_NAME)
    differences = [] if existing is None else manifest.differences(existing)
    if differences and not force:
        raise OutputError(
            f"{output}: found poses computed with {'; '.join(differences)}; choose "
            "another --output, or --force to replace them"
        )
    queries = output / QUERIES_FOLDER
    if differences and queries.exists():
        try:
            shutil.rmtree(queries)
        except OSError as error:
            raise output_error(queries, error) from error
    write_json_atomic(output / FILE_NAME, manifest.to_json())
