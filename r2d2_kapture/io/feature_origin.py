"""What made the features that a stage reads: so that results of two never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.feature_table import FeatureTable, LocalFeatureTables
from r2d2_kapture.io.manifest import FILE_NAME, read_manifest

UNKNOWN = "unknown"


def feature_origin(table: FeatureTable) -> str:
    """SHA-256 of the weights and settings that made features, ``unknown`` without.

    Folders without a manifest were written by other tools; feature_states tells
    whether their images changed.

    Raises:
        DatasetError: two folders of the type were made differently.
        FeatureFormatError: a manifest cannot be read.
    """
    manifests = [
        (folder.path, manifest)
        for folder in table.folders
        if (manifest := read_manifest(folder.path / FILE_NAME)) is not None
    ]
    if not manifests:
        return UNKNOWN
    first_path, first = manifests[0]
    for path, manifest in manifests[1:]:
        differences = first.differences(manifest)
        if differences:
            raise DatasetError(
                f"{path}: found {table.kind} '{table.type_name}' made with "
                f"{'; '.join(differences)}, as in {first_path}; features made in two "
                "ways cannot be mixed: extract one of them again"
            )
    made_by = json.dumps([first.model, first.settings], sort_keys=True)
    return hashlib.sha256(made_by.encode()).hexdigest()


def feature_states(tables: LocalFeatureTables, images: Iterable[str]) -> dict[str, str]:
    """What changes when features of an image are written anew: sizes and times.

    Features beside a manifest are told apart by it, so that they may be copied.
    """
    return {
        image: f"{_state(tables.keypoints, image)}, {_state(tables.descriptors, image)}"
        for image in images
    }


def _state(table: FeatureTable, image: str) -> str:
    located = table.locate(image)
    if located is None:
        return "absent"
    folder, path, offset, size = located
    if (folder.path / FILE_NAME).is_file():
        return FILE_NAME
    return f"{size} bytes at {offset}, {path.stat().st_mtime_ns} ns"
