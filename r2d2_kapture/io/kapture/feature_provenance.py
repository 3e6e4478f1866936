"""What made the features that a stage reads: so that results of two never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.followed_features import read_states
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_changes import is_another
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    ImageRecord,
    read_records,
)
from r2d2_kapture.io.outputs.json_log import read_log
from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest
from r2d2_kapture.types import some_names

UNKNOWN = "unknown"
RECORDED = "image SHA-256"
"""Begins the state of features whose image file is known."""
OLDER = f"{FILE_NAME}, {FILE_NAME}"
"""The state of features with a manifest but without an image file."""


def feature_provenance(table: FeatureTable) -> str:
    """SHA-256 of the weights and settings that made features, ``unknown`` without.

    Folders without a manifest were written by other tools; feature_states
    detects whether they changed.

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
    """What changes when features of an image are written anew.

    Features with a manifest are identified by it and by the image file that they were
    made of, so that they may be copied; those of other tools by their sizes and times.
    """
    keypoints, descriptors = map(FeatureRecords, (tables.keypoints, tables.descriptors))
    return {
        image: f"{keypoints.state(image)}, {descriptors.state(image)}"
        for image in images
    }


def refuse_other_images(keypoints: FeatureTable, dataset: Dataset) -> None:
    """Refuse features that were made of other pictures than those of a dataset.

    What has no record, such as features of other tools, passes, and so do images whose
    file is not there. Files are read only where their length, but not their path or
    times, are those noted.

    Args:
        keypoints: found by image name.
        dataset: whose images have these names.

    Raises:
        DatasetError: naming an image and both files, and the way out.
    """
    _refuse(FeatureRecords(keypoints), dataset.image_paths, f"{dataset.root}: ")


def refuse_replaced_images(keypoints: FeatureTable, images: Iterable[str]) -> None:
    """Refuse features whose image file, where it was read, was replaced since.

    Raises:
        DatasetError: naming a file, and the way out.
    """
    records = FeatureRecords(keypoints)
    paths = {name: records.path(name) for name in images}
    _refuse(records, {name: path for name, path in paths.items() if path is not None})


def _refuse(
    records: FeatureRecords, paths: Mapping[str, Path], where: str = ""
) -> None:
    objections = [records.objection(name, path) for name, path in paths.items()]
    reasons = [reason for reason in objections if reason is not None]
    if reasons:
        more = f" ({len(reasons)} such images)" if len(reasons) > 1 else ""
        raise DatasetError(f"{where}{reasons[0]}{more}")


def refuse_stale_matches(
    matches: MatchTable, keypoints: FeatureTable, images: Iterable[str]
) -> None:
    """Refuse matches of keypoints that were made anew since.

    Args:
        matches: with a note of the features that they were made of, or without.
        keypoints: that they count.
        images: in question.

    Raises:
        DatasetError: naming an image, and the way out.
    """
    records = FeatureRecords(keypoints.of_type(matches.keypoints_type))
    wanted = frozenset(images)
    for folder, _ in matches.folders:
        noted = read_states(folder) or {}
        stale = [
            name
            for name in sorted(wanted & noted.keys())
            if (state := records.state(name)).startswith(RECORDED)
            and not noted[name].startswith(state)
        ]
        if stale:
            raise DatasetError(
                f"{folder}: found outdated matches, made before features were "
                f"extracted again, of {len(stale)} images: "
                f"{some_names(map(shown, stale))}; run kapture_r2d2_match again"
            )


def recorded_files(table: FeatureTable) -> Iterator[str]:
    """The image files that features of a table were made of, where that is known."""
    for folder in table.folders:
        for line in read_log(folder.path / RECORDS_NAME):
            if "path" in line:
                yield str(line["path"])


class FeatureRecords:
    """What the features of a table were made of.

    Args:
        table: of the features.
    """

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._records = {
            folder.path: read_records(folder.path) for folder in table.folders
        }

    def objection(self, image: str, path: Path) -> str | None:
        """Why features are not those of a file, and the way out; None if they may be.

        Those without a record may be, such as features of other tools.
        """
        located = self._table.locate(image)
        if located is None or image not in self._records[located[0].path]:
            return None
        record = self._records[located[0].path][image]
        if record is None:
            return (
                f"'{shown(image)}' was being extracted when a run was stopped; run the "
                "extraction again"
            )
        if record.at(path) is not None:
            return None
        if is_another(Path(record.path), path):
            return (
                f"{located[0].path}: found features of {shown(record.path)}, expected "
                f"those of {shown(str(path))}, which has the same name; rename "
                "one, for instance into a sub-folder, or give the --features that were "
                "made from this dataset"
            )
        return (
            f"{shown(str(path))} has changed since its features were made; run the "
            "extraction again"
        )

    def path(self, image: str) -> Path | None:
        """The file that the features of an image were made of, if that is known."""
        record = self._record(image)
        return Path(record.path) if record else None

    def size(self, image: str) -> tuple[int, int] | None:
        """(W, H) in pixels of that file, if it is known."""
        record = self._record(image)
        return record.size if record else None

    def _record(self, image: str) -> ImageRecord | None:
        located = self._table.locate(image)
        return self._records[located[0].path].get(image) if located else None

    def state(self, image: str) -> str:
        """What changes when the features of an image are written anew."""
        located = self._table.locate(image)
        if located is None:
            return "absent"
        folder, path, offset, size = located
        if not (folder.path / FILE_NAME).is_file():
            return f"{size} bytes at {offset}, {path.stat().st_mtime_ns} ns"
        if image not in self._records[folder.path]:
            return FILE_NAME
        record = self._records[folder.path][image]
        if record is None:
            return "unfinished"
        # results may be older than the record, but not than the features
        return FILE_NAME if record.adopted else f"{RECORDED} {record.sha256}"
