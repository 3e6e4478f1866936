"""Export of features of a kapture dataset to the formats of other tools."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.extract import ExportFormat
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.colmap.check import check_unused
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows, write_database
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
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import Failure, LocalFeatures, Report, some_names

DEFAULT_OUTPUTS: dict[ExportFormat, str] = {
    "colmap-db": "colmap.db",
    "h5": "features.h5",
    "colmap-text": "colmap_text",
}


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
        options: force (overwrite an existing output) and progress are used.

    Raises:
        DatasetError, FeatureFormatError, OutputError: nothing is written, except text
            files of the images before the failure.
    """
    started = time.monotonic()
    output = output or kapture_root / DEFAULT_OUTPUTS[to]
    if not options.force and (
        output.is_file() or (output.is_dir() and any(output.iterdir()))
    ):
        raise Contents(what="export", files=()).refusal(output, "an earlier output")
    dataset = open_dataset(kapture_root)
    failed: list[Failure] = []
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
    if to == "colmap-db":
        check_unused(output)
        data = with_camera_mode(dataset.data, camera_mode)
        warnings = (
            *cameras.warnings,
            *warnings,
            *single_camera_hint(data, camera_mode),
        )
        matches = find_matches([kapture_root], keypoints.type_name)
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
            overwrite=options.force,
        )
        details |= dataclasses.asdict(summary)
    else:
        features = dataclasses.replace(
            open_local_features([kapture_root], keypoints.type_name, descriptors_type),
            keypoints=keypoints,
        )
        bar = Progress("export", "photograph", len(names), shown=options.progress)
        items = _items(dataset, features, bar.over(names), failed)
        if to == "h5":
            details["scores"] = "0: kapture stores no scores; rows keep their order"
            write_h5(output, items)
        else:
            for name, item in items:
                write_colmap_text(
                    output / f"{name}.txt",
                    item,
                    orientations=orientations(keypoints.read(name)),
                    stored=features.beside_keypoints(name).read_stored(name),
                )
    return Report(
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
