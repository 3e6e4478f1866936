"""Refinement: keypoints of verified matches in, sub-pixel places consistent over their
tracks out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import kapture_from_colmap, stored_from_turned
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.colmap.check import (
    check_database,
    database_sha256,
    write_ahead_log,
)
from r2d2_kapture.io.colmap.database_keypoints import (
    database_keypoints,
)
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.colmap.stored_database import StoredDatabase, open_stored
from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.camera_sizes import dataset_images
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.pixel_origins import (
    DatabaseOrigins,
    read_database_origins,
)
from r2d2_kapture.io.kapture.refined_features import refined_type
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.image_records import read_records
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, open_ledger, write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.background_io import one_core_a_thread, read_ahead
from r2d2_kapture.stages.refine.output import (
    CONTENTS,
    REPORT_NAME,
    KeypointWriter,
    digest_of,
    is_written,
    open_writer,
    path_of,
    turns_of,
    write_refined_database,
)
from r2d2_kapture.stages.refine.patch_files import PatchFiles
from r2d2_kapture.stages.refine.photographs import Photographs, Refined
from r2d2_kapture.stages.refine.results import (
    ImageResult,
    read_results,
    total_details,
)
from r2d2_kapture.stages.refine.tracks import Match, Numbering, find_tracks
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
    options: RunOptions = RunOptions(),
) -> Report:
    """Move keypoints to where all images of a track agree, to a fraction of a pixel.

    A track is what verified matches join. Each of its keypoints is registered against
    one of them, by their surroundings in the photographs, and stays where it was if
    that fails. Keypoints keep their numbers, so that descriptors and matches stay
    valid. Run it again to resume.

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
        options: how to run.

    Raises:
        ConfigError: the output is where the database is.
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
    dataset = open_dataset(mapping)
    finished = Finished.of(
        output / FINISHED_NAME,
        [
            dataclasses.asdict(config),
            keypoints_type,
            str(database),
            *map(str, features),
        ],
        (database, write_ahead_log(database), *dataset.files),
    )
    if not options.force and (report := finished.report(started)):
        return report
    warnings = check_database(database)
    sha256 = database_sha256(database)
    origins = read_database_origins(database, sha256)
    keypoints = database_keypoints(database, dataset, features, keypoints_type, origins)
    folder = output / "reconstruction" / "keypoints" / refined_type(keypoints.type_name)
    manifest = _manifest(config, keypoints, database, sha256)
    state = DatabaseState(path=output / STATE_NAME, database=target)
    with exclusive(output):
        state.claim(DATABASE, replace=options.replaces)
        anew = options.force or _is_outdated(folder, dataset)
        with open_ledger(folder, CONTENTS, manifest, options, anew=anew):
            with open_stored(database) as stored:
                found = _refine(config, stored, dataset, keypoints, folder, options)
            PatchFiles(output=folder).remove()
        digest = digest_of(folder, found.of)
        inputs = f"{sha256} {digest}"
        if not state.is_current(inputs):
            write_refined_database(database, state, inputs, folder, keypoints)
        if origins is not None:
            here = {str(folder.resolve()): keypoints.origin}
            DatabaseOrigins(
                cameras=origins.cameras, keypoints=here, database=state.sha256
            ).write(target)
        details = total_details(found.of.values())
        report = Report(
            stage="refine",
            unit="photograph",
            summary=_summary(details),
            done=found.done,
            skipped=len(found.of) - found.done - len(found.failed),
            failed=(*dataset.left_out, *found.failed),
            seconds=time.monotonic() - started,
            outputs=(folder, target),
            details={"keypoints_type": folder.name, **details},
            warnings=warnings,
        )
        write_report(folder / REPORT_NAME, report)
        if report.failed:  # these are tried again
            return report
        written = (path_of(folder, name) for name in found.of)
        return finished.note(
            report, (folder / REPORT_NAME, folder / FILE_NAME, *state.files, *written)
        )


def _summary(details: Mapping[str, Any]) -> str:
    return f"{details['moved']} of {counted(details['observations'], 'keypoint')} moved"


def _manifest(
    config: RefineConfig, keypoints: MapKeypoints, database: Path, sha256: str
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
            STAGE: "refine",
        },
        versions=package_versions(),
        inputs={"database": (str(database.resolve()), sha256)},
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


@dataclass(kw_only=True)
class Results:
    """The results of all images.

    Attributes:
        of: each image by name, also those of earlier runs.
        done: number of images refined by this run.
    """

    of: dict[str, ImageResult]
    done: int = 0

    @property
    def failed(self) -> list[Failure]:
        """Photographs that cannot be read."""
        return [
            Failure(name=name, reason=one.failure)
            for name, one in self.of.items()
            if one.failure
        ]


def _refine(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    folder: Path,
    options: RunOptions,
) -> Results:
    """Refine the keypoints of the images of a database that are not finished."""
    ids = sorted(stored.content.names)
    names = [stored.content.names[image_id] for image_id in ids]
    known = read_results(folder)
    complete = {
        name: known[name]
        for image_id, name in zip(ids, names)
        if name in known
        and is_written(
            folder, name, stored.content.keypoint_counts[image_id], keypoints
        )
    }
    todo = [i for i, name in enumerate(names) if name not in complete]
    if not todo:
        return Results(of=complete)
    photographs = _photographs(config, stored, dataset, keypoints, folder)
    with one_core_a_thread():
        unreadable = _cut(photographs, photographs.needed_for(todo), names, options)
        with open_writer(folder, keypoints) as writer:
            found = _register(photographs, todo, names, unreadable, writer, options)
    results = {name: found.get(name) or complete[name] for name in names}
    return Results(of=results, done=len(todo))


def _photographs(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    folder: Path,
) -> Photographs:
    ids = sorted(stored.content.names)
    names = [stored.content.names[image_id] for image_id in ids]
    numbering = _number(names, keypoints)
    place = {image_id: i for i, image_id in enumerate(ids)}
    images = dataset_images(dataset, names)
    lacking = [name for name in names if name not in images]
    if lacking:
        raise DatasetError(
            f"{stored.path}: image '{lacking[0]}' is not in {dataset.root}; give the "
            "dataset that the database was made from"
        )
    return Photographs(
        config=config,
        images=tuple(images[name] for name in names),
        keypoints=numbering,
        tracks=find_tracks(numbering, _Verified(stored, place)),
        patches=PatchFiles(output=folder),
    )


@dataclass(frozen=True, eq=False)
class _Verified:
    """The verified matches of a database, as often as they are gone through."""

    stored: StoredDatabase
    place: Mapping[int, int]

    def __iter__(self) -> Iterator[Match]:
        for (first, second), rows in self.stored.inliers():
            if len(rows):
                yield self.place[first], self.place[second], rows


def _number(names: Sequence[str], keypoints: MapKeypoints) -> Numbering:
    """Number the keypoints of images, in their order."""
    turns = turns_of(keypoints.folders)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    xy, sides, uprights = [], [], []
    for name in names:
        rows = keypoints.read(name)
        places = rows[:, :2].astype(np.float32)
        corner = keypoints.origin == "corner"
        xy.append(kapture_from_colmap(places) if corner else places)
        sides.append(patch_sides(rows))
        turn = turns[name].turn if name in turns else 0
        origin, *axes = stored_from_turned(corners, turn, (1, 1))
        uprights.append((np.array(axes) - origin).T)
    return Numbering(
        starts=np.cumsum([0, *map(len, xy)]),
        xy=np.concatenate(xy),
        sides=np.concatenate(sides),
        uprights=np.array(uprights),
    )


def _cut(
    photographs: Photographs,
    images: Sequence[int],
    names: Sequence[str],
    options: RunOptions,
) -> dict[int, str]:
    """Cut the patches of references; give the images that are unreadable, and why."""
    todo = [i for i in images if not photographs.patches.is_there(i)]
    unreadable = {}
    bar = Progress(
        "refine, references",
        "photograph",
        len(images),
        done=len(images) - len(todo),
        shown=options.progress,
    )
    cutting = closing(read_ahead(todo, photographs.cut, options.workers))
    with bar, cutting as cut:
        for image, future in cut:
            bar.update()
            try:
                photographs.patches.write(image, future.result())
            except ImageError as error:
                if options.strict:
                    raise
                unreadable[image] = str(error)
    if len(unreadable) == len(images) > 0:
        raise ImageError(
            f"none of {counted(len(images), 'photograph')} can be read; first: "
            f"{next(iter(unreadable.values()))}"
        )
    return unreadable


def _register(
    photographs: Photographs,
    images: Sequence[int],
    names: Sequence[str],
    unreadable: Mapping[int, str],
    writer: KeypointWriter,
    options: RunOptions,
) -> dict[str, ImageResult]:
    """Register the observations of images, and write them."""
    found = {}
    bar = Progress(
        "refine",
        "photograph",
        len(names),
        done=len(names) - len(images),
        shown=options.progress,
    )

    def refine(image: int) -> Refined:
        return photographs.refine(image, unreadable)

    working = closing(read_ahead(images, refine, options.workers))
    with bar, working as refined:
        for image, future in refined:
            bar.update()
            one = future.result()
            writer.write(names[image], one)
            found[names[image]] = one.result
            if one.result.failure and options.strict:
                raise ImageError(one.result.failure)
    return found
