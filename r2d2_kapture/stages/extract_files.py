"""Extraction from plain images, for users without a kapture dataset."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.config import ExtractConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.atomic import write_json_atomic
from r2d2_kapture.io.plain_files import FileFormat, open_feature_files
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.extract import (
    REPORT_NAME,
    RunOptions,
    extract_images,
    make_manifest,
    report_details,
)
from r2d2_kapture.types import Report


def run(
    config: ExtractConfig,
    *,
    images: Sequence[Path],
    checkpoint: Checkpoint,
    extractor: str = "r2d2",
    file_format: FileFormat = "npz",
    output_dir: Path | None = None,
    image_root: Path | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Extract images into feature files, resuming what is there.

    Args:
        config: what decides the features.
        images: image files, each once.
        checkpoint: the weights.
        extractor: a name of extractors.registry.
        file_format: of the output.
        output_dir: where outputs go; beside each image by default.
        image_root: folder that names are relative to; by default the deepest folder
            that holds all images.
        options: how to run.
    """
    started = time.monotonic()
    paths = relative_names(images, image_root)
    targets = {
        name: path if output_dir is None else output_dir / name
        for name, path in paths.items()
    }
    engine = build_extractor(extractor, checkpoint.network, config)
    manifest = make_manifest(config, checkpoint, extractor, engine)
    with open_feature_files(
        file_format, targets, output_dir, manifest, force=options.force
    ) as files:
        todo = {
            name: path for name, path in paths.items() if not files.is_complete(name)
        }
        tally = extract_images(
            engine,
            todo,
            files.write,
            options,
            already_done=len(paths) - len(todo),
        )
    report = Report(
        stage="extract_images",
        done=tally.done,
        skipped=len(paths) - len(todo),
        failed=tuple(tally.failed),
        seconds=time.monotonic() - started,
        outputs=(output_dir or _common_folder(images),),
        details=report_details(tally, engine),
    )
    if output_dir is not None:
        write_json_atomic(output_dir / REPORT_NAME, report.to_json())
    return report


def relative_names(images: Sequence[Path], root: Path | None) -> dict[str, Path]:
    """Name images by their path below ``root``.

    Raises:
        ConfigError: an image lies outside of ``root``.
    """
    folder = _common_folder(images) if root is None else root.absolute()
    names = {}
    for path in images:
        absolute = Path(os.path.normpath(path.absolute()))
        if not absolute.is_relative_to(folder):
            raise ConfigError(f"--image-root {root}: {path} is not inside it")
        names[absolute.relative_to(folder).as_posix()] = path
    return names


def _common_folder(images: Sequence[Path]) -> Path:
    parents = [os.path.normpath(path.absolute().parent) for path in images]
    return Path(os.path.commonpath(parents))
