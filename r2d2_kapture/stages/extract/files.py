"""Extraction from image files, for users without a kapture dataset."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import FileFormat
from r2d2_kapture.config.rotations import read_rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.io.features.plain_files import open_feature_files
from r2d2_kapture.io.images.masks import open_masks
from r2d2_kapture.io.names import not_utf8, shown
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.stages.extract.image_names import common_folder, name_images
from r2d2_kapture.stages.extract.stage import (
    REPORT_NAME,
    extract_missing,
    make_manifest,
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
        options: how to run.

    Raises:
        ConfigError: images are turned to match, but nowhere to record it.
    """
    started = time.monotonic()
    turning = Turning(rotations=read_rotations(rotations), folder=output_dir)
    require(
        output_dir is not None or not turning.rotations.by_matching,
        f"--rotations {rotations}: found no --output-dir, expected the folder of the "
        "features, in which the rotations are recorded",
    )
    every = name_images(images, image_root, folders, output_dir, force=options.force)
    nameless = _not_in_hdf5(every) if file_format == "h5" else {}
    paths = {name: path for name, path in every.items() if name not in nameless}
    targets = {
        name: path if output_dir is None else output_dir / name
        for name, path in paths.items()
    }
    manifest = make_manifest(extractor, turning.rotations)
    mask_folder = open_masks(masks)
    with open_feature_files(
        file_format,
        targets,
        output_dir,
        manifest,
        style=extractor.file_style,
        force=options.force,
    ) as files:
        report = extract_missing(files, extractor, paths, mask_folder, options, turning)
    report = dataclasses.replace(
        report,
        stage="extract_images",
        failed=(*nameless.values(), *report.failed),
        warnings=(*notes, *report.warnings),
        seconds=time.monotonic() - started,
        outputs=(output_dir or common_folder(images),),
    )
    if output_dir is not None:
        write_report(output_dir / REPORT_NAME, report)
    return report


def _not_in_hdf5(names: Iterable[str]) -> dict[str, Failure]:
    """Images whose names HDF5 cannot store, as they are not UTF-8."""
    reason = "which HDF5 requires of names; rename it, or choose another --format"
    return {
        name: Failure(name=shown(name), reason=f"{shown(name)} {broken}, {reason}")
        for name in names
        if (broken := not_utf8(name)) is not None
    }
