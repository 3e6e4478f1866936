"""Refinement: keypoints of verified matches in, sub-pixel places consistent over their
tracks out."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.colmap.check import (
    check_database,
    database_sha256,
    write_ahead_log,
)
from r2d2_kapture.io.colmap.database_keypoints import database_keypoints
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.sparse_map import map_files, model_digest
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.colmap.stored_database import open_stored
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.dataset import (
    Dataset,
    DatasetOrPath,
    open_dataset,
)
from r2d2_kapture.io.kapture.dataset_stamps import stamped_files
from r2d2_kapture.io.kapture.pixel_origins import (
    DatabaseOrigins,
    read_database_origins,
)
from r2d2_kapture.io.kapture.refined_features import refined_type
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.image_records import read_records
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, is_made_with, open_ledger
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    json_text,
    package_versions,
    read_manifest,
)
from r2d2_kapture.io.outputs.slices import Sliced, SliceRun
from r2d2_kapture.io.stores.reading import file_count
from r2d2_kapture.io.stores.writing import replaces_layout
from r2d2_kapture.stages.refine.map_tracks import open_map
from r2d2_kapture.stages.refine.output import (
    ARCHIVE_NAME,
    CONTENTS,
    REPORT_NAME,
    SUFFIX,
    digest_of,
    open_refined,
    write_refined_database,
)
from r2d2_kapture.stages.refine.passes import (
    image_names,
    is_refined,
    read_xy,
    refine,
    register_slice,
)
from r2d2_kapture.stages.refine.results import read_results, total_details
from r2d2_kapture.stages.refine.scratch import Scratch, digest_of_files
from r2d2_kapture.types import Failure, Report, counted

DATABASE_NAME = "database.db"
STATE_NAME = "database.json"
DATABASE = Contents(what="database", files=())


def run(
    config: RefineConfig,
    *,
    mapping: DatasetOrPath,
    database: Path,
    output: Path,
    features: Sequence[Path] = (),
    keypoints_type: str | None = None,
    map_path: Path | None = None,
    store: Store = "files",
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Move keypoints to where all images of a track agree, to a fraction of a pixel.

    A track is what verified matches join, or, once there is a map, the keypoints that
    see one of its points. They are registered against each other, or against the point,
    by their surroundings in the photographs, and stay where they were if that fails.
    Keypoints keep their numbers, so that descriptors and matches stay valid. Run it
    again to resume.

    Args:
        config: settings of refinement.
        mapping: kapture dataset of the images.
        database: COLMAP database by kapture_r2d2_verify; read only.
        output: folder for reconstruction/keypoints/<keypoints type>_refined, and
            database.db, a copy of the database with the refined keypoints; give both to
            kapture_r2d2_map.
        features: folders of the keypoints that the database was made from; by default
            those in --mapping, else x and y of the database.
        keypoints_type: of these; by default the only existing one.
        map_path: map by kapture_r2d2_map of this database, for a second refinement with
            the surfaces and poses that it gives; give the result to kapture_r2d2_map
            with --initial.
        store: layout of the refined keypoints: ``files`` writes one file per image;
            ``tar`` one archive; ``shards`` archives of up to 10,000 images with an
            index each, which kapture's own tools cannot read, see docs/formats.md.
        slice: ``i/n`` does part i of n of the photographs, for runs that share the
            output; ``all`` puts the parts together and writes the keypoints, see
            docs/cluster.md.
        options: how to run.

    Raises:
        ConfigError: the output is where the database is, or the keypoints are.
        DatasetError: the dataset, database or keypoints cannot be used, or do not
            belong together.
        ImageError: no photograph can be read; or one cannot, and options.strict.
        OutputError: an output exists and must not be replaced, or cannot be written.
    """
    started = time.monotonic()
    target = output / DATABASE_NAME
    require(
        target.resolve() != database.resolve(),
        f"--output {output}: found the database to refine there; choose another folder",
    )
    of_map = () if map_path is None else tuple(map_files(map_path))
    finished = Finished.of(
        output / FINISHED_NAME,
        [
            dataclasses.asdict(config),
            keypoints_type,
            str(database),
            str(map_path),
            *map(str, features),
            *([] if store == "files" else [store]),
        ],
        (database, write_ahead_log(database), *of_map, *stamped_files(mapping)),
    )
    alone = slice == WHOLE or options.make_slices is not None
    if alone and not options.force:
        if report := finished.report(started):
            return report
    dataset = open_dataset(mapping)
    warnings = check_database(database)
    sha256 = database_sha256(database)
    origins = read_database_origins(database, sha256)
    keypoints = database_keypoints(database, dataset, features, keypoints_type, origins)
    folder = output / "reconstruction" / "keypoints" / refined_type(keypoints.type_name)
    require(
        folder.resolve() not in [path.resolve() for path in keypoints.folders],
        f"--output {output}: found the keypoints to refine there; choose another",
    )
    manifest = _manifest(config, keypoints, database, sha256, map_path)
    state = DatabaseState(path=output / STATE_NAME, database=target)
    sliced = Sliced.read(slice, folder, CONTENTS, unit="photograph", beside=target)
    options = sliced.options(options)
    with open_stored(database) as stored:
        names = sorted(stored.content.names.values())
        every = image_names(stored)
    _check_images(names, dataset, database)
    sparse_map = None
    if map_path is not None:
        sparse_map = open_map(map_path, partial(read_xy, keypoints))
    photographs = digest_of_files(dataset.image_path(name) for name in every)
    with ExitStack() as stack:
        run = stack.enter_context(
            sliced.open(manifest, every, options, lambda name: f"{name} {photographs}")
        )
        root = sliced.root(output)
        stack.enter_context(exclusive(root))
        anew = (
            options.force
            or _is_outdated(folder, dataset)
            or replaces_layout(
                folder, store, ARCHIVE_NAME, SUFFIX, CONTENTS, manifest, options
            )
        )
        with open_stored(database) as stored:
            if sliced.is_part:
                done, unread = 0, tuple[Failure, ...]()
                there = not anew and is_made_with(folder, CONTENTS, manifest, options)
                run.is_empty = there and is_refined(stored, keypoints, folder)
                if not run.is_empty:
                    place = root / folder.relative_to(output)
                    with open_ledger(
                        place, CONTENTS, manifest, options, anew=options.force
                    ):
                        done, unread = register_slice(
                            config,
                            stored,
                            dataset,
                            keypoints,
                            sparse_map,
                            Scratch(output=place, shared=_shared(run, photographs)),
                            sliced.part,
                            options,
                        )
                report = Report(
                    stage="refine",
                    unit="photograph",
                    done=done,
                    skipped=len(sliced.part.of(every)) - done,
                    failed=unread,
                    seconds=time.monotonic() - started,
                    outputs=(folder,),
                    details={"keypoints_type": folder.name},
                    warnings=warnings,
                )
                return run.finish(report, folder / REPORT_NAME)
            state.claim(DATABASE, replace=options.replaces)
            with open_ledger(folder, CONTENTS, manifest, options, anew=anew):
                run.gather(output)
                done = refine(
                    config,
                    stored,
                    dataset,
                    keypoints,
                    sparse_map,
                    folder,
                    options,
                    store,
                )
                Scratch(output=folder).remove()
        items = open_refined(folder)
        inputs = f"{sha256} {digest_of(items, names)}"
        if not state.is_current(inputs):
            write_refined_database(database, state, inputs, items, keypoints)
        if origins is not None:
            here = {str(folder.resolve()): keypoints.origin}
            DatabaseOrigins(
                cameras=origins.cameras, keypoints=here, database=state.sha256
            ).write(target)
        results = read_results(folder)
        failed = [
            Failure(name=name, reason=one.failure)
            for name, one in results.items()
            if one.failure
        ]
        details = total_details(results.values())
        report = Report(
            stage="refine",
            unit="photograph",
            summary=_summary(details),
            done=done,
            skipped=len(names) - done,
            failed=(*dataset.left_out, *failed),
            seconds=time.monotonic() - started,
            outputs=(folder, target),
            details={
                "keypoints_type": folder.name,
                **details,
                **file_count(store, {ARCHIVE_NAME: folder}),
            },
            warnings=(*warnings, *_nothing_verified(details, database)),
        )
        report = run.finish(report, folder / REPORT_NAME)
        if report.failed:  # these are tried again
            return report
        written = items.files(name + SUFFIX for name in names)
        return finished.note(
            report, (folder / REPORT_NAME, folder / FILE_NAME, *state.files, *written)
        )


def _shared(run: SliceRun, photographs: str) -> Path:
    """Where slices of the same settings and photographs share patches."""
    made_with = run.manifest.to_json() | {"versions": {}}
    digest = hashlib.sha256(f"{photographs} {json_text(made_with)}".encode())
    return run.sliced.folder / f"patches-{digest.hexdigest()[:16]}"


def _nothing_verified(details: Mapping[str, Any], database: Path) -> Iterator[str]:
    if not details["observations"]:
        yield (
            f"{database}: found no verified match, so that no keypoint could be moved; "
            "verify pairs with kapture_r2d2_verify"
        )


def _check_images(names: Sequence[str], dataset: Dataset, database: Path) -> None:
    lacking = sorted(set(names) - set(dataset.image_names))
    if lacking:
        raise DatasetError(
            f"{database}: image '{lacking[0]}' is not in {dataset.root}; give the "
            "dataset that the database was made from"
        )


def _summary(details: Mapping[str, Any]) -> str:
    return f"{details['moved']} of {counted(details['observations'], 'keypoint')} moved"


def _manifest(
    config: RefineConfig,
    keypoints: MapKeypoints,
    database: Path,
    sha256: str,
    map_path: Path | None,
) -> Manifest:
    """What refined keypoints are made with, and what made those that they were."""
    made = [read_manifest(path / FILE_NAME) for path in keypoints.folders]
    source = next((one for one in made if one is not None), None)
    kept = {} if source is None else source.settings
    return Manifest(
        model={"name": keypoints.type_name} if source is None else source.model,
        settings={
            **{name: kept[name] for name in ("extractor", "rotations") if name in kept},
            **dataclasses.asdict(config),
            "refined_from": keypoints.type_name,
            "map": None if map_path is None else str(map_path.resolve()),
            STAGE: "refine",
        },
        versions=package_versions(),
        inputs={
            "database": (str(database.resolve()), sha256),
            **(
                {}
                if map_path is None
                else {"map": (str(map_path.resolve()), model_digest(map_path))}
            ),
        },
    )


def _is_outdated(folder: Path, dataset: Dataset) -> bool:
    """Whether a photograph has changed, or become readable, since its keypoints were
    refined: its patches decide places in others."""
    records, results = read_records(folder), read_results(folder)
    paths = dataset.image_paths
    return any(
        (record is not None and record.at(paths[name]) is None)
        or (name in results and results[name].failure and _is_readable(paths[name]))
        for name, record in {**dict.fromkeys(results), **records}.items()
        if name in paths
    )


def _is_readable(path: Path) -> bool:
    try:
        read_rgb(path)
    except ImageError:
        return False
    return True
