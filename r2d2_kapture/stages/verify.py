"""Verification: matches in, a COLMAP database and the matches that hold out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kapture
import pycolmap

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import (
    DatasetError,
    FeatureFormatError,
    OutputError,
    ReconstructionError,
)
from r2d2_kapture.io.atomic import write_json_atomic
from r2d2_kapture.io.colmap_cameras import (
    camera_sensors,
    colmap_camera,
    resolve_camera_origin,
)
from r2d2_kapture.io.colmap_check import database_sha256
from r2d2_kapture.io.colmap_db import keypoints_or_no_rows, unique_pairs, write_database
from r2d2_kapture.io.colmap_rigs import image_records
from r2d2_kapture.io.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture import Dataset, open_dataset
from r2d2_kapture.io.lock import exclusive
from r2d2_kapture.io.match_store import MatchTable, matches_folder, open_matches
from r2d2_kapture.io.pairs import read_pairs
from r2d2_kapture.io.trajectories import read_camera_poses
from r2d2_kapture.stages.verify_pairs import (
    ImageSource,
    Pair,
    VerifiedPairs,
    verify_pairs,
)
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "verify_report.json"
STATE_NAME = "database.json"


def run(
    config: VerifyConfig,
    *,
    mapping: Path,
    features: Sequence[Path],
    matches: Sequence[Path],
    pairs: Path | None,
    database: Path,
    output: Path,
    keypoints_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Verify matches and write a COLMAP 4 database; run again to resume.

    The database appears when it is complete. It holds every image of the dataset, all
    matches and all two-view geometries.

    Args:
        config: how matches are verified.
        mapping: kapture dataset of the images; with poses for ``known_poses``.
        features: folders of keypoints, see io.feature_table.
        matches: folders of matches, see io.match_store.
        pairs: list of pairs to verify; None takes all that have matches.
        database: the file to write. One that this stage wrote is replaced when its
            inputs have changed; any other only by ``options.force``.
        output: kapture folder that gets the verified matches, with the scores they
            had, and a log of the geometries.
        keypoints_type: of features and matches; None takes the only one there is.
        options: how to run.

    Raises:
        DatasetError: the dataset, features, matches or pairs cannot be used.
        FeatureFormatError: a pair cannot be verified, and options.strict.
        OutputError: an output exists that is not to be replaced, or cannot be written.
        ReconstructionError: known poses are asked for and an image has none.
    """
    started = time.monotonic()
    dataset = open_dataset(mapping)
    keypoints = open_feature_table(features, "keypoints", keypoints_type)
    table = open_matches(matches, keypoints.type_name)
    origin = resolve_camera_origin(dataset.data, config.camera_origin)
    work = _plan(dataset, keypoints, table, pairs, options.strict)
    images = ImageSource(
        cameras=_cameras(dataset.data, origin),
        read_keypoints=keypoints_or_no_rows(keypoints, work.without_keypoints),
        poses=_poses(config, dataset, work.pairs),
    )
    folder = matches_folder(output, keypoints.type_name)
    with exclusive(output):
        state = _DatabaseState(path=output / STATE_NAME, database=database)
        state.claim(options.force)
        found = verify_pairs(
            config,
            images=images,
            matches=table,
            pairs=work.pairs,
            output=output,
            settings=dataclasses.asdict(config) | {"camera_origin": origin},
            options=options,
        )
        inputs = _inputs_digest(dataset, images, found)
        if not state.is_current(inputs):
            write_database(
                database,
                dataset.data,
                read_keypoints=images.read_keypoints,
                read_matches=table.read,
                pairs=found.geometries,
                read_geometry=found.geometry,
                camera_origin=origin,
                overwrite=True,
                before_move=lambda complete: state.expect(complete, inputs),
            )
        report = Report(
            stage="verify",
            done=found.done,
            skipped=len(found.geometries) - found.done,
            failed=(*work.failed, *found.failed),
            seconds=time.monotonic() - started,
            outputs=(database, folder),
            details={
                **found.details(),
                "geometry": config.geometry,
                "camera_origin": origin,
            },
        )
        report_path = folder / REPORT_NAME
        # a run that found everything done has nothing to add to the report
        if report.done or report.failed or not report_path.exists():
            write_json_atomic(report_path, report.to_json())
    return report


@dataclass(frozen=True, kw_only=True)
class _DatabaseState:
    """What is known of the database that a run may find.

    Attributes:
        path: of the file that keeps it.
        database: the database.
    """

    path: Path
    database: Path

    def claim(self, force: bool) -> None:
        """Refuse a database that is not ours, or take it for ours by force."""
        if not self.database.exists() or self._is_ours():
            return
        if not force:
            raise OutputError(
                f"{self.database}: found a database that this stage did not write, or "
                "that was changed since; choose another --database, or --force to "
                "replace it"
            )
        self._save(inputs=None, database=None)

    def is_current(self, inputs: str) -> bool:
        """Whether the database was made of these inputs."""
        state = self._read()
        return (
            state.get("inputs") == inputs
            and self.database.is_file()
            and database_sha256(self.database) == state.get("database")
        )

    def expect(self, complete: Path, inputs: str) -> None:
        """Note the database that is about to take its place, beside the present one.

        A run killed before or after the move finds either to be ours.
        """
        self._save(inputs=inputs, database=database_sha256(complete))

    def _save(self, inputs: str | None, database: str | None) -> None:
        before = database_sha256(self.database) if self.database.is_file() else None
        write_json_atomic(
            self.path, {"inputs": inputs, "database": database, "before": before}
        )

    def _is_ours(self) -> bool:
        state = self._read()
        known = {state.get("database"), state.get("before")}
        return self.database.is_file() and database_sha256(self.database) in known

    def _read(self) -> dict[str, object]:
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What can be verified.

    Attributes:
        pairs: that have keypoints and matches, in order of names.
        without_keypoints: images whose keypoints are missing or broken.
        failed: these images, and pairs without matches.
    """

    pairs: list[Pair]
    without_keypoints: frozenset[str]
    failed: list[Failure]


def _plan(
    dataset: Dataset,
    keypoints: FeatureTable,
    table: MatchTable,
    source: Path | None,
    strict: bool,
) -> _Plan:
    wanted = _wanted_pairs(dataset, table, source)
    unreadable = _unreadable(dataset, keypoints, wanted, strict)
    readable = [pair for pair in wanted if unreadable.keys().isdisjoint(pair)]
    matched = frozenset(table.pairs)
    unmatched = [pair for pair in readable if pair not in matched]
    failed = list(unreadable.values())
    if unmatched:  # one failure for all: there may be very many
        first, second = unmatched[0]
        name = f"{len(unmatched)} pairs"
        reason = (
            f"{name} have no matches, such as '{first}', '{second}'; run "
            "kapture_r2d2_match on the same list of pairs"
        )
        if strict:
            raise FeatureFormatError(reason)
        failed.append(Failure(name=name, reason=reason))
    return _Plan(
        pairs=[pair for pair in readable if pair in matched],
        without_keypoints=frozenset(unreadable),
        failed=failed,
    )


def _wanted_pairs(
    dataset: Dataset, table: MatchTable, source: Path | None
) -> list[Pair]:
    names = frozenset(dataset.image_names)
    if source is None:  # the folder may hold matches of queries too
        listed = [pair for pair in table.pairs if names.issuperset(pair)]
    else:
        listed = [pair.names for pair in read_pairs(source)]
        unknown = {name for pair in listed for name in pair} - names
        if unknown:
            raise DatasetError(
                f"{source}: image '{min(unknown)}' is not in {dataset.root}; correct "
                "the list of pairs"
            )
    if not listed:
        raise DatasetError(
            f"{source or dataset.root}: found no pair of images to verify; list pairs "
            "with kapture_r2d2_pairs and match them with kapture_r2d2_match"
        )
    return unique_pairs(listed, names)


def _unreadable(
    dataset: Dataset, keypoints: FeatureTable, pairs: Iterable[Pair], strict: bool
) -> dict[str, Failure]:
    """Images of pairs without keypoints, and any with broken ones."""
    paired = {name for pair in pairs for name in pair}
    failed = {}
    for name in sorted(dataset.image_names):
        if name in paired or name in keypoints:
            try:
                keypoints.read(name)
            except FeatureFormatError as error:
                if strict:
                    raise
                failed[name] = Failure(name=name, reason=str(error))
    return failed


def _cameras(
    dataset: kapture.Kapture, origin: PixelOrigin
) -> dict[str, pycolmap.Camera]:
    """The camera of each image, in COLMAP's pixel origin."""
    sensors = camera_sensors(dataset)
    cameras = {
        sensor_id: colmap_camera(sensor, number, origin)
        for number, (sensor_id, sensor) in enumerate(sensors.items(), start=1)
    }
    return {
        record.name: cameras[record.sensor_id]
        for record in image_records(dataset, sensors)
    }


def _poses(
    config: VerifyConfig, dataset: Dataset, pairs: Iterable[Pair]
) -> dict[str, pycolmap.Rigid3d] | None:
    if config.geometry == "estimate":
        return None
    poses = read_camera_poses(dataset).cam_from_world
    lacking = {name for pair in pairs for name in pair} - poses.keys()
    if lacking:
        raise ReconstructionError(
            f"{dataset.root}: {len(lacking)} images have no pose, such as "
            f"'{min(lacking)}', but --geometry known_poses needs all; complete "
            "trajectories.txt, or use --geometry estimate"
        )
    return poses


def _inputs_digest(dataset: Dataset, images: ImageSource, found: VerifiedPairs) -> str:
    """Of all that decides the content of the database."""
    digest = hashlib.sha256(found.digest().encode())
    data = dataset.data
    rows = [*kapture.flatten(data.records_camera or {})]
    rows += [
        (rig_id, device_id, pose.r_raw, pose.t_raw)
        for rig_id, device_id, pose in kapture.flatten(data.rigs or {})
    ]
    digest.update(repr(sorted(map(repr, rows))).encode())
    for name in sorted(dataset.image_names):
        digest.update(f"{name} {images.view(name).digest}\n".encode())
    return digest.hexdigest()
