"""Extraction: images in, local features out, into a kapture dataset or plain files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import OutOfMemoryError

from r2d2_kapture.config.extract import AUTO, ExtractConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.extractors.registry import Extractor, build_extractor
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.images.masks import MaskFolder, open_masks
from r2d2_kapture.io.images.search import leave_out_names
from r2d2_kapture.io.kapture.camera_sizes import compare_sizes, dataset_images
from r2d2_kapture.io.kapture.dataset import DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_changes import Outstanding, outstanding
from r2d2_kapture.io.outputs.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.background_io import WriteBehind, read_ahead
from r2d2_kapture.types import Failure, LocalFeatures, Report, counted, some_names

REPORT_NAME = "extract_report.json"
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """An image that was decoded: (H, W, 3) uint8, and its mask, (H, W) bool."""

    name: str
    image: Image
    mask: Mask | None


Loading = tuple[str, Future[Loaded]]


@dataclass
class Tally:
    """Counts of a run in progress."""

    done: int = 0
    keypoints: int = 0
    without_keypoints: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warning on images without keypoints."""
        if not self.without_keypoints:
            return ()
        return (
            f"images without keypoints: {len(self.without_keypoints)} "
            f"({some_names(map(shown, self.without_keypoints))}); the images are "
            "uniform, their masks black, or the thresholds too high",
        )


def run(
    config: ExtractConfig,
    *,
    kapture_root: DatasetOrPath,
    checkpoint: Checkpoint,
    output: Path | None = None,
    extractor: str = AUTO,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    tar: bool = False,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Extract every image of a kapture dataset, resuming an earlier run.

    Args:
        config: settings of extraction.
        kapture_root: the dataset.
        checkpoint: the weights.
        output: folder that receives ``reconstruction/``; the dataset by default.
        extractor: a name of extractors.registry; by default the one for the weights.
        keypoints_type, descriptors_type: names of feature types; by default the
            model's.
        tar: write archives instead of one file per image.
        exclude: patterns of names that are left out, see is_excluded.
        masks: folder of masks, see MaskFolder.
        options: how to run.

    Raises:
        DatasetError, OutputError, ConfigError: see the functions called.
    """
    started = time.monotonic()
    dataset = open_dataset(kapture_root)
    if not dataset.image_names:
        raise DatasetError(
            f"{dataset.root}: records_camera.txt lists no image; nothing to extract"
        )
    names, notes = leave_out_names(dataset.image_names, exclude)
    if not names:
        raise DatasetError(f"{dataset.root}: {'; '.join(notes)}; nothing to extract")
    paths = {name: dataset.image_paths[name] for name in names}
    mask_folder = open_masks(masks)
    if mask_folder is not None:
        notes += mask_folder.warnings(paths)
    sizes = compare_sizes(dataset_images(dataset))
    engine = build_extractor(extractor, checkpoint.network, config)
    feature_type = FeatureType(
        root=output or dataset.root,
        keypoints_type=keypoints_type or checkpoint.name,
        descriptors_type=descriptors_type or keypoints_type or checkpoint.name,
        descriptor_dim=checkpoint.network.descriptor_dim,
        tar=tar,
    )
    manifest = make_manifest(checkpoint, engine)
    with open_feature_writer(feature_type, manifest, options) as writer:
        todo = outstanding(paths, writer, mask_folder)
        skipped = len(paths) - len(todo.images)
        tally = extract_images(
            engine,
            todo.images,
            writer.write,
            options,
            masks=mask_folder,
            already_done=skipped,
        )
        report = Report(
            stage="extract",
            unit="photograph",
            summary=counted(tally.keypoints, "keypoint") if tally.done else "",
            done=tally.done,
            skipped=skipped,
            failed=(*dataset.left_out, *tally.failed),
            warnings=(
                *notes,
                *todo.warnings,
                *tally.warnings,
                *sizes.warnings(),
            ),
            seconds=time.monotonic() - started,
            outputs=tuple(feature_type.folders.values()),
            details=report_details(tally, engine, todo),
        )
        return write_report(feature_type.folder("keypoints") / REPORT_NAME, report)


def extract_images(
    extractor: Extractor,
    paths: dict[str, Path],
    write: Callable[[str, LocalFeatures, ImageRecord], None],
    options: RunOptions,
    *,
    masks: MaskFolder | None = None,
    already_done: int = 0,
) -> Tally:
    """Decode, extract and write images, all steps in parallel.

    Args:
        extractor: the network and its settings.
        paths: image files by name, in order.
        write: stores the features of an image, with the record of its file.
        options: how to run.
        masks: of the images; None keeps all keypoints.
        already_done: number of images counted as finished by the progress bar.
    """
    tally = Tally()
    records: dict[str, ImageRecord] = {}

    def load(name: str) -> Loaded:
        path = paths[name]
        image, record = _read(path)
        if masks is None:
            records[name] = record
            return Loaded(name=name, image=image, mask=None)
        digest = masks.digest(name, path)
        records[name] = dataclasses.replace(record, mask=digest)
        mask = masks.read(name, path, record.size)
        return Loaded(name=name, image=image, mask=mask)

    bar = Progress(
        "extract",
        "photograph",
        already_done + len(paths),
        done=already_done,
        shown=options.progress,
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
                reason = " ".join(f"too large for memory: {error}".split())
                tally.failed += [Failure(name=name, reason=reason) for name in names]
                if options.strict:
                    break
                continue
            for name, features in zip(names, results):
                write_behind(write, name, features, records.pop(name))
                tally.done += 1
                tally.keypoints += len(features)
                if len(features) == 0:
                    tally.without_keypoints.append(name)
            bar.update(len(names))
    return tally


def _read(path: Path) -> tuple[Image, ImageRecord]:
    """Decode an image, and record its file; a link is named by its target."""
    if path.is_symlink():
        path = path.resolve()
    stamp = stamp_image(path)
    image = read_rgb(path)
    height, width = image.shape[:2]
    return image, record_image(path, stamp, (width, height))


def _loaded(loading: Iterator[Loading], tally: Tally, strict: bool) -> Iterator[Loaded]:
    """Yield decoded images; report those that cannot be decoded."""
    for name, future in loading:
        try:
            loaded = future.result()
        except ImageError as error:
            tally.failed.append(Failure(name=name, reason=str(error)))
            if strict:
                return
            continue
        yield loaded


def _equal_sizes(images: Iterator[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """Group consecutive images of equal size, at most ``batch_size`` together."""
    batch: list[Loaded] = []
    for loaded in images:
        if batch and batch[0].image.shape[:2] != loaded.image.shape[:2]:
            yield batch
            batch = []
        batch.append(loaded)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was insufficient; torch has no exception class for it on the
    CPU."""
    return isinstance(
        error, (MemoryError, OutOfMemoryError)
    ) or "allocate memory" in str(error)


def _uploaded(
    batches: Iterator[list[Loaded]], extractor: Extractor
) -> Iterator[tuple[list[str], Any]]:
    """Copy each batch to the device before the previous one is extracted."""
    previous: tuple[list[str], Any] | None = None
    for batch in batches:
        names = [loaded.name for loaded in batch]
        upload = extractor.upload(
            [loaded.image for loaded in batch], [loaded.mask for loaded in batch]
        )
        current = names, upload
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def make_manifest(checkpoint: Checkpoint, extractor: Extractor) -> Manifest:
    """The manifest of features: weights and resolved settings."""
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
    """The details of an extraction report."""
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
