"""Extraction: images in, local features out, into a kapture dataset or plain files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import EXTRACTORS
from r2d2_kapture.config.rotations import OFF, Rotations, read_rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.config.stores import Store
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor, Image
from r2d2_kapture.core.quarter_turns import NO_TURNS, in_stored_pixels, turned
from r2d2_kapture.core.streaming import Loaded, stream
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.images.masks import MaskFolder, open_masks
from r2d2_kapture.io.images.search import leave_out_names
from r2d2_kapture.io.kapture.camera_sizes import compare_sizes, dataset_images
from r2d2_kapture.io.kapture.dataset import DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_store import (
    FeatureType,
    feature_contents,
    feature_files,
    open_feature_writer,
    stored_features,
)
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_changes import Outstanding, outstanding
from r2d2_kapture.io.outputs.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.outputs.orientations import ORIENTATIONS_NAME, merge_turns
from r2d2_kapture.io.outputs.recorded_features import FeatureStore
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.background_io import WriteBehind, read_ahead
from r2d2_kapture.stages.extract.repeated import (
    OF_ITS_OWN,
    extraction_of,
    is_repeatable,
    note_extraction,
)
from r2d2_kapture.stages.extract.turns import Turning
from r2d2_kapture.types import Failure, LocalFeatures, Report, counted, some_names

REPORT_NAME = "extract_report.json"
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
            "uniform or too small, their masks black, or the thresholds too high",
        )


def run(
    extractor: Extractor,
    *,
    kapture_root: DatasetOrPath,
    output: Path | None = None,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    store: Store = "files",
    tar: bool = False,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    rotations: str = "off",
    rotations_like: Path | None = None,
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Extract local features, of R2D2 by default, from images of a kapture dataset.

    They are written into that dataset or another folder. Run it again to resume.

    Args:
        extractor: with its weights and settings.
        kapture_root: folder of a kapture 1.1 dataset.
        output: folder for reconstruction/keypoints and descriptors; by default the
            dataset.
        keypoints_type: name of the feature type; by default that of the model.
        descriptors_type: name of the descriptors' type; by default that of the
            keypoints.
        store: ``files`` writes two files per image; ``tar`` two archives, keypoints.tar
            and descriptors.tar; ``shards`` archives of about 1 GiB with an index each,
            for millions of images, which kapture's own tools cannot read, see
            docs/formats.md.
        tar: the same as --store tar.
        exclude: patterns of names that are left out, see is_excluded.
        masks: folder of masks, see MaskFolder.
        rotations: quarter turns in which the network sees images; keypoints stay in
            stored pixels: ``off``; ``exif``, as EXIF's orientation has it; ``auto``,
            that first, else the one in which an image matches others; or degrees
            clockwise, one for all images (90) or two to choose from (0,180).
        rotations_like: kapture folder of features extracted before, such as those of
            the map, which images are turned to match; features of other images in the
            same output are such too.
        slice: ``i/n`` does part i of n of the images, for runs that share the output;
            ``all`` puts the parts together, see docs/cluster.md.
        options: how to run.

    Raises:
        DatasetError, OutputError, ConfigError: see the functions called.
    """
    started = time.monotonic()
    require(
        not tar or store in ("files", "tar"),
        f"--tar: found --store {store}, expected one of both",
    )
    dataset = open_dataset(kapture_root)
    if not dataset.image_names:
        raise DatasetError(
            f"{dataset.root}: records_camera.txt lists no image; nothing to extract"
        )
    names, notes = leave_out_names(dataset.image_names, exclude)
    if not names:
        raise DatasetError(f"{dataset.root}: {'; '.join(notes)}; nothing to extract")
    mask_folder = open_masks(masks)
    feature_type = FeatureType(
        root=output or dataset.root,
        keypoints_type=keypoints_type or extractor.label,
        descriptors_type=descriptors_type or keypoints_type or extractor.label,
        descriptor_dim=extractor.descriptor_dim,
        descriptor_dtype=extractor.descriptor_type,
        store="tar" if tar else store,
    )
    folder = feature_type.folder("keypoints")
    contents = feature_contents("keypoints")
    sliced = Sliced.read(slice, folder, contents, unit="photograph")
    options = sliced.options(options)
    mine = sliced.part.of(names)
    paths = {name: dataset.image_path(name) for name in mine}
    written = dataclasses.replace(feature_type, root=sliced.root(feature_type.root))
    turning = Turning(
        rotations=read_rotations(rotations),
        folder=written.folder("keypoints"),
        like=(
            None
            if rotations_like is None
            else dataclasses.replace(feature_type, root=rotations_like).folder(
                "keypoints"
            )
        ),
    )
    refuse_comparison(turning.rotations, slice, options)
    manifest = make_manifest(extractor, turning.rotations)
    finished = extraction_of(
        folder,
        manifest,
        [feature_type.store, feature_type.descriptors_type, rotations_like, names],
        dataset.files,
        mask_folder,
        names,
        source=str(dataset.root.resolve()),
    )
    if is_repeatable(sliced, options):
        made = feature_files(feature_type, names)
        if report := finished.report(started, items=made):
            return report
    sizes = compare_sizes(dataset_images(dataset, mine if sliced.is_part else None))

    def lacking() -> Outstanding:
        there = stored_features(feature_type, manifest, options)
        if there is None:
            return Outstanding(images=paths, replaced=())
        return outstanding(paths, there, mask_folder)

    with ExitStack() as stack:
        run = stack.enter_context(
            sliced.open(
                manifest,
                names,
                options,
                lambda name: f"{name} {feature_type.store}",
                lambda: len(lacking().images),
            )
        )
        left = Outstanding(images=paths, replaced=())
        if sliced.is_part:
            left = lacking()
            run.is_empty = not left.images

        def gather() -> None:
            run.gather(feature_type.root, {ORIENTATIONS_NAME: merge_turns})

        writer = stack.enter_context(
            open_feature_writer(written, manifest, options, gather)
        )
        report = extract_missing(
            writer, extractor, left.images, mask_folder, options, turning
        )
        report = dataclasses.replace(
            report,
            skipped=report.skipped + len(paths) - len(left.images),
            failed=(*(() if sliced.is_part else dataset.left_out), *report.failed),
            warnings=(*notes, *left.warnings, *report.warnings, *sizes.warnings()),
            seconds=time.monotonic() - started,
            outputs=tuple(feature_type.folders.values()),
            details=report.details | written.file_count(),
        )
        report = run.finish(report, folder / REPORT_NAME, OF_ITS_OWN)
    if not sliced.is_part:
        lasting = () if mask_folder is None else mask_folder.warnings(paths)
        note_extraction(
            finished,
            report,
            (*notes, *lasting, *extractor.warnings, *sizes.warnings()),
            (
                folder / REPORT_NAME,
                folder / ORIENTATIONS_NAME,
                *feature_type.descriptions(),
            ),
            feature_files(feature_type, names),
        )
    return report


def refuse_comparison(rotations: Rotations, slice: str, options: RunOptions) -> None:
    """Refuse slices whose images are turned to match those of others.

    Raises:
        ConfigError: naming both flags.
    """
    require(
        slice == WHOLE or not rotations.by_matching,
        f"{options.sharing(slice)}: found --rotations {rotations.text}, which compares "
        "all images; expected off, exif or degrees",
    )


def extract_missing(
    store: FeatureStore,
    extractor: Extractor,
    paths: Mapping[str, Path],
    masks: MaskFolder | None,
    options: RunOptions,
    turning: Turning = Turning(),
) -> Report:
    """Extract the images whose features are not in a store; report on all of them."""
    todo = outstanding(paths, store, masks)
    skipped = len(paths) - len(todo.images)
    turns = turning.turns(extractor, paths, todo.images, options)
    tally = extract_images(
        extractor,
        todo.images,
        store.write,
        options,
        masks=masks,
        turns=turns.of,
        already_done=skipped,
    )
    details = {
        "replaced": len(todo.replaced),
        "keypoints": tally.keypoints,
        "keypoints_per_image": round(tally.keypoints / max(tally.done, 1)),
        "device": str(extractor.runtime.device),
        "precision": extractor.runtime.precision,
        **turns.details,
    }
    if engine := extractor.engine_version:
        details["engine"] = engine
    if "preprocessing" in extractor.provenance:  # which weights may decide
        details["preprocessing"] = extractor.provenance["preprocessing"]
    return Report(
        stage="extract",
        unit="photograph",
        summary=counted(tally.keypoints, "keypoint") if tally.done else "",
        done=tally.done,
        skipped=skipped,
        failed=tuple(tally.failed),
        warnings=(
            *(() if masks is None else masks.warnings(paths)),
            *todo.warnings,
            *turns.warnings,
            *tally.warnings,
            *extractor.warnings,
        ),
        seconds=0.0,
        outputs=(),
        details=details,
    )


def extract_images(
    extractor: Extractor,
    paths: dict[str, Path],
    write: Callable[[str, LocalFeatures, ImageRecord], None],
    options: RunOptions,
    *,
    masks: MaskFolder | None = None,
    turns: Mapping[str, Turn] = NO_TURNS,
    already_done: int = 0,
) -> Tally:
    """Decode, extract and write images, all steps in parallel.

    Args:
        extractor: the network and its settings.
        paths: image files by name, in order.
        write: stores the features of an image, with the record of its file.
        options: how to run.
        masks: of the images; None keeps all keypoints.
        turns: in which the network sees them, by name; features are in stored pixels.
        already_done: number of images counted as finished by the progress bar.
    """
    tally = Tally()
    records: dict[str, ImageRecord] = {}

    def load(name: str) -> Loaded:
        path = paths[name]
        image, record = _read(path)
        turn = turns.get(name, 0)
        image = turned(image, turn)
        if masks is None:
            records[name] = record
            return Loaded(name=name, image=image, mask=None)
        digest = masks.digest(name, path)
        records[name] = dataclasses.replace(record, mask=digest)
        mask = masks.read(name, path, record.size)
        if mask is not None:
            mask = turned(mask, turn)
        return Loaded(name=name, image=image, mask=mask)

    bar = Progress(
        "extract",
        "photograph",
        already_done + len(paths),
        done=already_done,
        shown=options.progress,
        also=options.on_progress,
    )
    # a batch must be complete before the next pass begins
    workers = max(options.workers, extractor.runtime.batch_size)
    loading = read_ahead(paths, load, workers)
    with bar, closing(loading), WriteBehind() as write_behind:
        images = _loaded(loading, tally, options.strict)
        for name, result in stream(extractor, images):
            bar.update()
            if isinstance(result, MemoryError):
                tally.failed.append(Failure(name=name, reason=str(result)))
                if options.strict:
                    break
                continue
            features = in_stored_pixels(result, turns.get(name, 0))
            write_behind(write, name, features, records.pop(name))
            tally.done += 1
            tally.keypoints += len(result)
            if len(result) == 0:
                tally.without_keypoints.append(name)
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


def make_manifest(extractor: Extractor, rotations: Rotations = OFF) -> Manifest:
    """The manifest of features: weights, resolved settings, third-party code."""
    weights = extractor.weights
    turning = {} if rotations.is_off else {"rotations": rotations.text}
    engine = extractor.engine_version
    return Manifest(
        model={"name": extractor.name} if weights is None else weights.record,
        settings={
            "extractor": extractor.name,
            **extractor.provenance,
            **EXTRACTORS.code(extractor.name),
            "precision": extractor.runtime.precision,
            **turning,
        },
        versions=package_versions() | ({"engine": engine} if engine else {}),
    )
