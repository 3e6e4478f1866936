"""Extraction from image files, for users without a kapture dataset."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import FileFormat
from r2d2_kapture.config.rotations import read_rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.io.features.plain_files import (
    FEATURES,
    feature_file_paths,
    open_feature_files,
    stored_feature_files,
)
from r2d2_kapture.io.images.masks import open_masks
from r2d2_kapture.io.names import not_utf8, shown
from r2d2_kapture.io.outputs.image_changes import Outstanding, outstanding
from r2d2_kapture.io.outputs.image_records import RECORDS_NAME
from r2d2_kapture.io.outputs.orientations import ORIENTATIONS_NAME, merge_turns
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.stages.extract.image_names import common_folder, name_images
from r2d2_kapture.stages.extract.repeated import (
    OF_ITS_OWN,
    extraction_of,
    is_repeatable,
    note_extraction,
)
from r2d2_kapture.stages.extract.stage import (
    REPORT_NAME,
    extract_missing,
    make_manifest,
    refuse_comparison,
)
from r2d2_kapture.stages.extract.turns import Turning
from r2d2_kapture.types import Failure, Report


def run(
    extractor: Extractor,
    *,
    images: Sequence[Path],
    file_format: FileFormat = "npz",
    output_dir: Path | None = None,
    image_root: Path | None = None,
    folders: Sequence[Path] = (),
    masks: Path | None = None,
    rotations: str = "off",
    notes: Sequence[str] = (),
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Extract local features, of R2D2 by default, from image files.

    They are written as npz (named .r2d2, .d2-net, .sift, ...), .mat, HDF5 (hloc's
    layout) or COLMAP text files. Run it again to resume.

    Args:
        extractor: with its weights and settings.
        images: image files without duplicates.
        file_format: ``npz``: IMAGE.r2d2, IMAGE.d2-net, IMAGE.sift, ...; ``mat``:
            IMAGE.r2d2.mat, IMAGE.d2-net, IMAGE.sift.mat, ...; ``h5``: features.h5 for
            all; ``colmap-text``: IMAGE.txt, of 128 values (not D2-Net).
        output_dir: folder of the outputs; by default that of each image.
        image_root: folder that the names of outputs are relative to; by default that of
            the first run into --output-dir: the deepest that contains all images, or,
            of several folders, the one that contains the image, if that makes all names
            different.
        folders: that the images were found in, if several.
        masks: folder of masks with these names, see MaskFolder.
        rotations: quarter turns in which the network sees images; keypoints stay in
            stored pixels: ``off``; ``exif``, as EXIF's orientation has it; ``auto``,
            that first, else the one in which an image matches others; or degrees
            clockwise, one for all images (90) or two to choose from (0,180).
        notes: warnings on the choice of images, for the report.
        slice: ``i/n`` does part i of n of the images, for runs that share
            --output-dir; ``all`` puts the parts together, see docs/cluster.md.
        options: how to run.

    Raises:
        ConfigError: images are turned to match, but nowhere to record it, or there are
            slices, but nowhere to put them together.
    """
    started = time.monotonic()
    folder = output_dir or common_folder(images)
    sliced = Sliced.read(slice, folder, FEATURES, unit="photograph")
    require(
        output_dir is not None or slice == WHOLE,
        f"{options.sharing(slice)}: found no --output-dir, expected the folder of the "
        "features",
    )
    written = None if output_dir is None else sliced.root(output_dir)
    turning = Turning(rotations=read_rotations(rotations), folder=written)
    refuse_comparison(turning.rotations, slice, options)
    require(
        output_dir is not None or not turning.rotations.by_matching,
        f"--rotations {rotations}: found no --output-dir, expected the folder of the "
        "features, in which the rotations are recorded",
    )
    every = name_images(images, image_root, folders, output_dir, force=options.force)
    nameless = _not_in_hdf5(every) if file_format == "h5" else {}
    names = [name for name in every if name not in nameless]
    paths = {name: every[name] for name in sliced.part.of(names)}
    manifest = make_manifest(extractor, turning.rotations)
    mask_folder = open_masks(masks)
    options = sliced.options(options)
    finished = extraction_of(
        folder,
        manifest,
        [file_format, list(nameless), [*names], notes],
        every.values(),
        mask_folder,
        names,
    )
    made = partial(
        feature_file_paths,
        file_format,
        _targets(paths, folder),
        folder,
        extractor.file_style,
    )
    if output_dir is not None and is_repeatable(sliced, options):
        if report := finished.report(started, items=made()):
            return report

    def lacking() -> Outstanding:
        if options.replaces:
            return Outstanding(images=paths, replaced=())
        there = stored_feature_files(
            file_format,
            _targets(paths, folder),
            folder,
            manifest,
            extractor.file_style,
        )
        return outstanding(paths, there, mask_folder)

    with ExitStack() as stack:
        run = stack.enter_context(
            sliced.open(
                manifest,
                names,
                options,
                lambda name: f"{name} {file_format}",
                lambda: len(lacking().images),
            )
        )
        left = Outstanding(images=paths, replaced=())
        if sliced.is_part and not options.force:
            left = lacking()
            run.is_empty = not left.images
        files = stack.enter_context(
            open_feature_files(
                file_format,
                _targets(paths, written),
                written,
                manifest,
                style=extractor.file_style,
                force=options.force,
                replaces=options.replaces,
                fill=lambda: run.gather(folder, {ORIENTATIONS_NAME: merge_turns}),
                assembles=not sliced.is_part,
            )
        )
        report = extract_missing(
            files, extractor, left.images, mask_folder, options, turning
        )
    # outside: what the file for all cannot hold is raised as it is made
    report = dataclasses.replace(
        report,
        stage="extract_images",
        skipped=report.skipped + len(paths) - len(left.images),
        failed=(*(() if sliced.is_part else nameless.values()), *report.failed),
        warnings=(*notes, *left.warnings, *report.warnings),
        seconds=time.monotonic() - started,
        outputs=(folder,),
    )
    if output_dir is None:
        return report
    report = run.finish(report, output_dir / REPORT_NAME, OF_ITS_OWN)
    if not sliced.is_part:
        lasting = () if mask_folder is None else mask_folder.warnings(paths)
        note_extraction(
            finished,
            report,
            (*notes, *lasting, *extractor.warnings),
            map(folder.joinpath, (REPORT_NAME, ORIENTATIONS_NAME, RECORDS_NAME)),
            made(),
        )
    return report


def _targets(paths: Mapping[str, Path], folder: Path | None) -> dict[str, Path]:
    """Where the features of images are, without suffixes."""
    return {
        name: path if folder is None else folder / name for name, path in paths.items()
    }


def _not_in_hdf5(names: Iterable[str]) -> dict[str, Failure]:
    """Images whose names HDF5 cannot store, as they are not UTF-8."""
    reason = "which HDF5 requires of names; rename it, or choose another --format"
    return {
        name: Failure(name=shown(name), reason=f"{shown(name)} {broken}, {reason}")
        for name in names
        if (broken := not_utf8(name)) is not None
    }
