"""Verification: matches in, a COLMAP database and verified matches out."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import chain
from pathlib import Path

import kapture
import pycolmap

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.config.stores import Store
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError, ReconstructionError
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.colmap.check import check_unused
from r2d2_kapture.io.colmap.database import (
    keypoints_or_no_rows,
    write_database,
)
from r2d2_kapture.io.colmap.geometry_log import LOG_NAME
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.kapture.camera_mode import single_camera_hint, with_camera_mode
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_provenance import (
    refuse_other_images,
    refuse_stale_matches,
)
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.gnss import Position, usable_gnss
from r2d2_kapture.io.kapture.match_store import CONTENTS as MATCHES
from r2d2_kapture.io.kapture.match_store import (
    match_files,
    matches_folder,
    open_matches,
)
from r2d2_kapture.io.kapture.overlaps import hidden_matches
from r2d2_kapture.io.kapture.pixel_origins import (
    DatabaseOrigins,
    find_camera_origin,
    origins_text,
    place_keypoints,
)
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.stages.unpaired import unpaired_warning
from r2d2_kapture.stages.verify.descriptors import open_descriptors
from r2d2_kapture.stages.verify.pairs import (
    CACHED_IMAGES,
    ImageSource,
    Pair,
    VerifiedPairs,
    verified_manifest,
    verify_pairs,
)
from r2d2_kapture.stages.verify.plan import make_plan, wanted_pairs
from r2d2_kapture.types import Report

REPORT_NAME = "verify_report.json"
UNPAIRED_REASON = (
    "they will not be in a map; list pairs of them, or remove them from the dataset"
)
STATE_NAME = "database.json"
CONTENTS = Contents(
    what="database", files=(), flag="--database (of a pipeline another --output)"
)


def run(
    config: VerifyConfig,
    *,
    mapping: DatasetOrPath,
    features: Sequence[Path],
    matches: Sequence[Path],
    pairs: Path | None = None,
    database: Path,
    output: Path,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    store: Store = "files",
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Keep matches that agree with a two-view geometry, in a COLMAP 4 database.

    The geometry is estimated or known. The database has cameras, rigs, frames, every
    image of the dataset, keypoints, all matches and all two-view geometries, and GNSS
    records as pose priors. Run it again to resume.

    Args:
        config: settings of verification.
        mapping: kapture dataset of the images: cameras, rigs, records, and poses for
            --geometry known_poses.
        features: kapture datasets, or folders of keypoints by kapture_r2d2_extract such
            as local_features/r2d2_500; with their descriptors for --guided.
        matches: kapture datasets, or outputs of kapture_r2d2_match.
        pairs: list of pairs by kapture_r2d2_pairs, 'name, name, score' (kapture) or
            'name name' (hloc, COLMAP); by default all pairs with matches.
        database: COLMAP database to write; it appears when it is complete. One by this
            command is replaced if its inputs have changed, any other with --force.
        output: folder for the verified matches, reconstruction/matches/<keypoints
            type>, with their scores and a log of the geometries; matches of earlier
            pairs that are no longer in the database are removed.
        keypoints_type: of features and matches; by default the only existing one.
        descriptors_type: of --guided; by default the only existing one of the
            keypoints.
        store: layout of the verified matches: ``files`` writes one file per pair;
            ``tar`` one archive; ``shards`` archives of up to 10,000 pairs with an index
            each, which kapture's own tools cannot read, see docs/formats.md.
        slice: ``i/n`` does part i of n of the pairs, for runs that share the output;
            ``all`` puts the parts together and writes the database, see
            docs/cluster.md.
        options: how to run.

    Raises:
        ConfigError: the output is the folder of the matches.
        DatasetError: the dataset, features, matches or pairs cannot be used, or another
            process uses the database to be replaced.
        FeatureFormatError: a pair cannot be verified, and options.strict.
        OutputError: an output exists and must not be replaced, or cannot be written.
        ReconstructionError: known poses are requested and an image has none.
    """
    started = time.monotonic()
    opened = open_dataset(mapping)
    data = with_camera_mode(opened.data, config.camera_mode)
    dataset = dataclasses.replace(opened, data=data)
    keypoints = open_feature_table(features, "keypoints", keypoints_type)
    table = open_matches(matches, keypoints.type_name)
    every = wanted_pairs(dataset, table, pairs)
    folder = matches_folder(output, keypoints.type_name)
    sliced = Sliced.read(slice, folder, MATCHES, unit="pair", beside=database)
    options = sliced.options(options)
    wanted = sliced.part.of(every)
    if sliced.is_part:
        paired = tuple(sorted({name for pair in wanted for name in pair}))
        dataset = dataclasses.replace(dataset, image_names=paired)
    descriptors = open_descriptors(
        config, features, keypoints.type_name, dataset.image_names, descriptors_type
    )
    finished = Finished.of(
        folder / FINISHED_NAME,
        [config.record(), str(database), store, wanted],
        chain(
            dataset.files,
            keypoints.files(dataset.image_names),
            descriptors.files if descriptors else (),
            table.files(wanted),
        ),
    )
    if not (options.force or sliced.is_part or sliced.is_waiting):
        made = match_files(output, keypoints.type_name, wanted)
        if report := finished.report(started, items=made):
            return report
    counted_from = find_camera_origin(dataset, config.camera_origin)
    origin = counted_from.origin
    keypoints, warnings = place_keypoints(
        keypoints, config.keypoint_origin, dataset, counted_from
    )
    refuse_other_images(keypoints, dataset)
    read_keypoints = lru_cache(CACHED_IMAGES)(keypoints.read)
    work = make_plan(
        dataset, keypoints, read_keypoints, table, wanted, len(every), options.strict
    )
    refuse_stale_matches(table, keypoints, (n for pair in work.pairs for n in pair))
    images = ImageSource(
        cameras=image_cameras(dataset.data, origin),
        read_keypoints=keypoints_or_no_rows(
            keypoints, work.without_keypoints, read_keypoints
        ),
        poses=_poses(config, dataset, work.pairs),
        descriptors=descriptors,
    )
    if folder.resolve() in {place.resolve() for place, _ in table.folders}:
        raise ConfigError(
            f"--output {output}: found the matches to verify there; choose another "
            "folder"
        )
    manifest = verified_manifest(
        keypoints.type_name, config.record() | {"camera_origin": origin}
    )
    with ExitStack() as stack:
        layout = "" if store == "files" else f" {store}"
        run = stack.enter_context(
            sliced.open(manifest, every, options, lambda pair: f"{pair}{layout}")
        )
        root = sliced.root(output)
        stack.enter_context(exclusive(root))
        state = DatabaseState(path=output / STATE_NAME, database=database)
        if not sliced.is_part:
            state.claim(CONTENTS, replace=options.replaces)
        found = verify_pairs(
            config,
            images=images,
            matches=table,
            pairs=work.pairs,
            output=root,
            manifest=manifest,
            options=options,
            store=store,
            whole=output,
            fill=lambda: run.gather(output),
        )
        details = found.details()
        report = Report(
            stage="verify",
            unit="pair",
            summary=f"{details['verified_pairs']} with a geometry",
            done=found.done,
            skipped=len(found.pairs) - found.done,
            failed=(*work.failed, *found.failed),
            seconds=time.monotonic() - started,
            outputs=(database, folder),
            details={
                **details,
                "geometry": config.geometry,
                "camera_origin": origin,
                "keypoint_origin": origins_text(keypoints),
            },
            warnings=(*counted_from.warnings, *warnings),
        )
        if sliced.is_part:
            run.is_empty = found.is_empty
            return run.finish(report, folder / REPORT_NAME)
        positions, no_positions = usable_gnss(opened)
        inputs = _inputs_digest(dataset, images, found, positions)
        if not state.is_current(inputs):
            # again: verification may have taken hours
            state.claim(CONTENTS, replace=options.replaces)
            check_unused(database)
            write_database(
                database,
                dataset.data,
                read_keypoints=images.read_keypoints,
                read_matches=table.read,
                pairs=found.pairs,
                read_geometry=found.geometry,
                positions=positions,
                camera_origin=origin,
                overwrite=True,
                before_move=lambda complete: state.expect(complete, inputs),
            )
            state.settle()
        DatabaseOrigins.of(origin, keypoints, state.sha256).write(database)
        report = dataclasses.replace(
            report,
            failed=(*dataset.left_out, *report.failed),
            seconds=time.monotonic() - started,
            warnings=(
                *report.warnings,
                *hidden_matches(table),
                *no_positions,
                *unpaired_warning(
                    work.unpaired, len(dataset.image_names), UNPAIRED_REASON
                ),
                *single_camera_hint(data, config.camera_mode),
                *_nothing_verified(found),
            ),
        )
        report = run.finish(report, folder / REPORT_NAME)
        if report.failed:  # these are tried again
            return report
        whole = (folder / name for name in (FILE_NAME, LOG_NAME, REPORT_NAME))
        made = match_files(output, keypoints.type_name, found.pairs)
        return finished.note(report, (*whole, *state.files), made)


def _nothing_verified(found: VerifiedPairs) -> Iterator[str]:
    """The warning on a database without any verified pair."""
    count = len(found.pairs)
    if count and not found.verified:
        yield (
            f"none of {count} pairs is verified, so that no map can be made; check "
            "that the images overlap, and that they were matched"
        )


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


def _inputs_digest(
    dataset: Dataset,
    images: ImageSource,
    found: VerifiedPairs,
    positions: Mapping[str, Position],
) -> str:
    """Digest of all inputs of the database."""
    digest = hashlib.sha256(found.digest().encode())
    data = dataset.data
    rows = [*kapture.flatten(data.records_camera or {})]
    rows += [
        (rig_id, device_id, pose.r_raw, pose.t_raw)
        for rig_id, device_id, pose in kapture.flatten(data.rigs or {})
    ]
    digest.update(repr(sorted(map(repr, rows))).encode())
    for name in sorted(dataset.image_names):
        digest.update(f"{name} {images.digest(name)}\n".encode())
    for name, position in sorted(positions.items()):
        digest.update(f"{name} {position}\n".encode())
    return digest.hexdigest()
