"""Extraction: images in, local features out, into a kapture dataset or plain files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import OutOfMemoryError
from tqdm import tqdm

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.extractors.registry import AUTO, Extractor, build_extractor
from r2d2_kapture.io.atomic import write_json_atomic
from r2d2_kapture.io.camera_sizes import compare_sizes, dataset_images
from r2d2_kapture.io.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.image_changes import Outstanding, outstanding
from r2d2_kapture.io.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.io.kapture import open_dataset
from r2d2_kapture.io.manifest import Manifest, package_versions
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.flow import WriteBehind, read_ahead
from r2d2_kapture.types import Failure, LocalFeatures, Report

REPORT_NAME = "extract_report.json"
Image = npt.NDArray[np.uint8]
Loading = tuple[str, Future[Image]]


@dataclass
class Tally:
    """Counts of a run in progress."""

    done: int = 0
    keypoints: int = 0
    failed: list[Failure] = field(default_factory=list)


def run(
    config: ExtractConfig,
    *,
    kapture_root: Path,
    checkpoint: Checkpoint,
    output: Path | None = None,
    extractor: str = AUTO,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    tar: bool = False,
    options: RunOptions = RunOptions(),
) -> Report:
    """Extract every image of a kapture dataset, resuming what is there.

    Args:
        config: what decides the features.
        kapture_root: the dataset.
        checkpoint: the weights.
        output: folder that receives ``reconstruction/``; the dataset by default.
        extractor: a name of extractors.registry; by default the one for the weights.
        keypoints_type, descriptors_type: feature type names; the model's by default.
        tar: write archives instead of one file an image.
        options: how to run.

    Raises:
        DatasetError, OutputError, ConfigError: see the functions called.
    """
    started = time.monotonic()
    dataset = open_dataset(kapture_root)
    if not dataset.image_names:
        raise DatasetError(
            f"{kapture_root}: records_camera.txt lists no image; nothing to extract"
        )
    sizes = compare_sizes(dataset_images(dataset))
    engine = build_extractor(extractor, checkpoint.network, config)
    feature_type = FeatureType(
        root=output or kapture_root,
        keypoints_type=keypoints_type or checkpoint.name,
        descriptors_type=descriptors_type or keypoints_type or checkpoint.name,
        descriptor_dim=checkpoint.network.descriptor_dim,
        tar=tar,
    )
    manifest = make_manifest(checkpoint, engine)
    with open_feature_writer(
        feature_type, manifest, force=options.force, replace=options.replace
    ) as writer:
        todo = outstanding(dataset.image_paths, writer)
        skipped = len(dataset.image_names) - len(todo.images)
        tally = extract_images(
            engine, todo.images, writer.write, options, already_done=skipped
        )
        report = Report(
            stage="extract",
            done=tally.done,
            skipped=skipped,
            failed=(*dataset.left_out, *tally.failed),
            warnings=(*todo.warnings, *sizes.warnings()),
            seconds=time.monotonic() - started,
            outputs=tuple(feature_type.folders.values()),
            details=report_details(tally, engine, todo),
        )
        report_path = feature_type.folder("keypoints") / REPORT_NAME
        # a run that found everything done has nothing to add to the report
        if report.done or report.failed or not report_path.exists():
            write_json_atomic(report_path, report.to_json())
    return report


def extract_images(
    extractor: Extractor,
    paths: dict[str, Path],
    write: Callable[[str, LocalFeatures, ImageRecord], None],
    options: RunOptions,
    *,
    already_done: int = 0,
) -> Tally:
    """Decode, extract and write images, each step beside the others.

    Args:
        extractor: the network and its settings.
        paths: image files by name, in order.
        write: stores the features of a name, with the record of its file.
        options: how to run.
        already_done: images that the progress bar counts as finished.
    """
    tally = Tally()
    records: dict[str, ImageRecord] = {}

    def load(name: str) -> Image:
        image, records[name] = _read(paths[name])
        return image

    bar = tqdm(
        total=already_done + len(paths),
        initial=already_done,
        desc="extract",
        unit="image",
        disable=None if options.progress is None else not options.progress,
    )
    # a batch must be complete before the next pass begins
    workers = max(options.workers, extractor.runtime.batch_size)
    loading = read_ahead(paths, load, workers)
    with bar, closing(loading), WriteBehind() as write_behind:
        images = _loaded(loading, tally, options.strict)
        batches = _equal_sizes(images, extractor.runtime.batch_size)
        for names, upload in _uploaded(batches, extractor):
            try:
                results = extractor.extract_uploaded(upload)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                reason = " ".join(f"too large for the memory: {error}".split())
                tally.failed += [Failure(name=name, reason=reason) for name in names]
                if options.strict:
                    break
                continue
            for name, features in zip(names, results):
                write_behind(write, name, features, records.pop(name))
                tally.done += 1
                tally.keypoints += len(features)
            bar.update(len(names))
    return tally


def _read(path: Path) -> tuple[Image, ImageRecord]:
    """Decode an image, and record the file that it was decoded from."""
    stamp = stamp_image(path)
    image = read_rgb(path)
    height, width = image.shape[:2]
    return image, record_image(path, stamp, (width, height))


def _loaded(
    loading: Iterator[Loading], tally: Tally, strict: bool
) -> Iterator[tuple[str, Image]]:
    """Yield images that decode; note those that do not."""
    for name, future in loading:
        try:
            image = future.result()
        except ImageError as error:
            tally.failed.append(Failure(name=name, reason=str(error)))
            if strict:
                return
            continue
        yield name, image


def _equal_sizes(
    images: Iterator[tuple[str, Image]], batch_size: int
) -> Iterator[list[tuple[str, Image]]]:
    """Group neighbours of one size, at most ``batch_size`` together."""
    batch: list[tuple[str, Image]] = []
    for name, image in images:
        if batch and batch[0][1].shape[:2] != image.shape[:2]:
            yield batch
            batch = []
        batch.append((name, image))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an image was too large; torch has no class for it on the CPU."""
    return isinstance(
        error, (MemoryError, OutOfMemoryError)
    ) or "allocate memory" in str(error)


def _uploaded(
    batches: Iterator[list[tuple[str, Image]]], extractor: Extractor
) -> Iterator[tuple[list[str], Any]]:
    """Bring each batch to the device before the one before it is extracted."""
    previous: tuple[list[str], Any] | None = None
    for batch in batches:
        names = [name for name, _ in batch]
        current = names, extractor.upload([image for _, image in batch])
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def make_manifest(checkpoint: Checkpoint, extractor: Extractor) -> Manifest:
    """Describe what decides the features: weights and resolved settings."""
    return Manifest(
        model={
            "name": checkpoint.name,
            "sha256": checkpoint.sha256,
            "architecture": dataclasses.asdict(checkpoint.architecture),
        },
        settings={
            "extractor": extractor.name,
            **extractor.settings,
            "precision": extractor.runtime.precision,
        },
        versions=package_versions(),
    )


def report_details(
    tally: Tally, extractor: Extractor, todo: Outstanding
) -> dict[str, Any]:
    """What an extraction report says besides its counts."""
    details = {
        "replaced": len(todo.replaced),
        "keypoints": tally.keypoints,
        "keypoints_per_image": round(tally.keypoints / max(tally.done, 1)),
        "device": str(extractor.runtime.device),
        "precision": extractor.runtime.precision,
    }
    if "preprocessing" in extractor.settings:  # which weights may decide
        details["preprocessing"] = extractor.settings["preprocessing"]
    return details
