"""Export of features of a kapture dataset to the formats of other tools."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.extract import ExportFormat
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.colmap.check import check_unused
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows, write_database
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.features.colmap_text import write_colmap_text
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.features.reading import check_inside, orientations
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.camera_mode import single_camera_hint, with_camera_mode
from r2d2_kapture.io.kapture.camera_sizes import dataset_images, unlike_sensors
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.feature_provenance import (
    refuse_other_images,
    refuse_stale_matches,
)
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.pixel_origins import (
    find_camera_origin,
    origins_text,
    place_keypoints,
)
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, is_made_with, open_ledger
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import Failure, LocalFeatures, Report, some_names

DEFAULT_OUTPUTS: dict[ExportFormat, str] = {
    "colmap-db": "colmap.db",
    "h5": "features.h5",
    "colmap-text": "colmap_text",
}
STATE_NAME = ".state.json"
FILE = Contents(what="export", files=())
TEXTS = Contents(what="export", files=("**/*.txt",), by_name=True)


def run(
    *,
    kapture_root: Path,
    to: ExportFormat,
    output: Path | None = None,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    camera_origin: CameraOrigin = "auto",
    keypoint_origin: CameraOrigin = "auto",
    camera_mode: CameraMode = "auto",
    options: RunOptions = RunOptions(),
) -> Report:
    """Export the features of a kapture dataset for other tools.

    The output is a COLMAP 4 database, hloc's HDF5 layout, or COLMAP's text files.
    Images whose size differs from that of their camera or keypoints get no keypoints
    and no matches in a database, and fail.

    Args:
        kapture_root: folder of a kapture dataset.
        to: ``colmap-db``: cameras, rigs, frames, images, keypoints in COLMAP's pixel
            origin, matches; ``h5``: features file of hloc; ``colmap-text``: one file
            per image.
        output: file, or folder for colmap-text; by default colmap.db, features.h5 or
            colmap_text in the dataset.
        keypoints_type, descriptors_type: by default the only existing one.
        camera_origin: pixel origin of principal points: the ``center`` of the first
            pixel (kapture) or its ``corner`` (COLMAP); ``auto`` takes the origin stated
            in files, else infers it from principal points at (W / 2, H / 2) and from
            names of COLMAP's import.
        keypoint_origin: pixel origin of third-party keypoints: the ``center`` of the
            first pixel (R2D2, hloc) or its ``corner`` (COLMAP); ``auto`` takes the
            origin stated in files, else that of the cameras.
        camera_mode: for colmap-db, which images of unknown cameras (UNKNOWN_CAMERA)
            share one: ``auto`` those of the same sensor of the dataset; ``single`` all
            of the same size; ``per-folder`` those of the same folder and size;
            ``per-image`` none; known cameras, and those of rigs, are never merged.
        options: force (redo an export, or replace a file of others) and progress are
            used.

    Raises:
        DatasetError, FeatureFormatError, OutputError: nothing is written, except text
            files of the images before the failure. A file that no export wrote, or
            one made with other settings, stays without force.
    """
    started = time.monotonic()
    output = output or kapture_root / DEFAULT_OUTPUTS[to]
    dataset = open_dataset(kapture_root)
    cameras = find_camera_origin(dataset, camera_origin)
    keypoints, warnings = place_keypoints(
        open_feature_table([kapture_root], "keypoints", keypoints_type),
        keypoint_origin,
        dataset,
        cameras,
    )
    refuse_other_images(keypoints, dataset)
    names = [name for name in dataset.image_names if name in keypoints]
    warnings += _unlike_names(dataset, keypoints)
    details: dict[str, object] = {
        "keypoints_type": keypoints.type_name,
        "images_without_features": len(dataset.image_names) - len(names),
        "keypoint_origin": origins_text(keypoints),
    }
    settings: dict[str, Any] = {
        STAGE: "export",
        "to": to,
        "keypoints_type": keypoints.type_name,
        "keypoint_origin": keypoint_origin,
        "camera_origin": camera_origin,
    }
    files = [*dataset.files, *keypoints.files(names)]
    if to == "colmap-db":
        matches = find_matches([kapture_root], keypoints.type_name)
        settings["camera_mode"] = camera_mode
        files += matches.files(matches.pairs)
    else:
        features = dataclasses.replace(
            open_local_features([kapture_root], keypoints.type_name, descriptors_type),
            keypoints=keypoints,
        )
        settings["descriptors_type"] = features.descriptors.type_name
        files += features.descriptors.files(names)
    # of a file: how it was made stands in a hidden folder next to it
    is_file = to != "colmap-text"
    notes = output.with_name(f".{output.name}.export") if is_file else output
    finished = Finished.of(notes / FINISHED_NAME, settings, files)
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions(),
        inputs={"kapture_root": (str(kapture_root.resolve()), finished.inputs)},
    )
    state = DatabaseState(path=notes / STATE_NAME, database=output)
    if is_file:
        _refuse_others(state, options)
    contents = FILE if is_file else TEXTS
    if not options.force and is_made_with(notes, contents, manifest, options):
        kept = is_file and state.is_current(finished.inputs)
        if (earlier := finished.report(started, checked=kept)) is not None:
            return earlier
    failed: list[Failure] = []
    with open_ledger(notes, contents, manifest, options):
        if is_file and output.exists() and not state.is_ours():
            state.adopt()
        if to == "colmap-db":
            check_unused(output)
            data = with_camera_mode(dataset.data, camera_mode)
            warnings = (
                *cameras.warnings,
                *warnings,
                *single_camera_hint(data, camera_mode),
            )
            refuse_stale_matches(matches, keypoints, names)
            unlike = unlike_sensors(dataset, names)
            unlike |= _outside(dataset, keypoints, set(names) - unlike.keys())
            failed += unlike.values()
            summary = write_database(
                output,
                data,
                read_keypoints=keypoints_or_no_rows(keypoints, unlike),
                read_matches=matches.read,
                pairs=[p for p in matches.pairs if unlike.keys().isdisjoint(p)],
                camera_origin=cameras.origin,
                overwrite=True,
                before_move=lambda complete: state.expect(complete, finished.inputs),
            )
            details |= dataclasses.asdict(summary)
        else:
            bar = Progress("export", "photograph", len(names), shown=options.progress)
            items = _items(dataset, features, bar.over(names), failed)
            if to == "h5":
                details["scores"] = "0: kapture stores no scores; rows keep their order"
                with atomic_path(output) as complete:
                    write_h5(complete, items)
                    state.expect(complete, finished.inputs)
            else:
                _write_texts(output, features, items)
        if is_file:
            state.settle()
        report = Report(
            stage="export",
            unit="photograph",
            done=len(names) - len(failed),
            skipped=0,
            failed=(*dataset.left_out, *failed),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details=details,
            warnings=warnings,
        )
        if report.failed:  # these are tried again
            return report
        made = state.files if is_file else [output / f"{name}.txt" for name in names]
        return finished.note(report, made)


def _refuse_others(state: DatabaseState, options: RunOptions) -> None:
    """Refuse a file that no export wrote, or that has been changed since."""
    output = state.database
    if output.is_dir():
        raise FILE.refusal(output, "a folder, expected a file", forcible=False)
    if output.exists() and not options.replaces and not state.is_ours():
        found = "a file that no export wrote, or that has been changed since"
        raise FILE.refusal(output, found)


def _write_texts(
    output: Path,
    features: LocalFeatureTables,
    items: Iterable[tuple[str, LocalFeatures]],
) -> None:
    for name, item in items:
        write_colmap_text(
            output / f"{name}.txt",
            item,
            orientations=orientations(features.keypoints.read(name)),
            stored=features.beside_keypoints(name).read_stored(name),
        )


def _outside(
    dataset: Dataset, keypoints: FeatureTable, names: Iterable[str]
) -> dict[str, Failure]:
    """Images whose keypoints belong to an image of another size, by name."""
    failed = {}
    for name, image in dataset_images(dataset, names).items():
        rows = keypoints.read(name)
        try:
            check_inside(rows, image.size, f"'{name}'")
        except FeatureFormatError as error:
            failed[name] = Failure(name=name, reason=str(error))
    return failed


def _unlike_names(dataset: Dataset, keypoints: FeatureTable) -> tuple[str, ...]:
    """The warnings on images without features and features without images."""
    there, recorded = set(keypoints.image_names), set(dataset.image_names)
    found = (
        ("images have no features", "they are not exported", recorded - there),
        (
            "images have features but are not in records_camera.txt",
            "their features are not exported",
            there - recorded,
        ),
    )
    return tuple(
        f"{len(names)} {what}: {some_names(map(shown, sorted(names)))}; {result}"
        for what, result, names in found
        if names
    )


def _items(
    dataset: Dataset,
    tables: LocalFeatureTables,
    names: Iterable[str],
    failed: list[Failure],
) -> Iterator[tuple[str, LocalFeatures]]:
    """Read features image by image; report those that cannot be read."""
    for name in names:
        try:
            features = tables.read(name, image_size(dataset.image_path(name)))
        except (FeatureFormatError, ImageError) as error:
            failed.append(Failure(name=name, reason=str(error)))
            continue
        yield name, features
