"""A folder of photographs becomes a map: cameras from EXIF, poses found.

python pipelines/images_to_map.py --images photos --model r2d2_WASF_N16.pt --output work
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from r2d2_kapture.cli.common import finish, run_command
from r2d2_kapture.cli.pipeline import print_report, read_preset
from r2d2_kapture.cli.repeated_flags import join_repeated_flags
from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.io.colmap.image_folder import write_image_folder_dataset
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import pipeline

PRESET = "images_to_map"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(images_to_map, arguments)


def images_to_map(arguments: list[str]) -> int:
    """Dataset, features, pairs, matches, verification, incremental mapping."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--exclude", nargs="+", default=[], help="patterns of images to leave out"
    )
    parser.add_argument("--masks", type=Path, help="folder of IMAGE.png, black: masked")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="checkpoint")
    parser.add_argument(
        "--camera-mode",
        choices=get_args(CameraMode),
        default="auto",
        help="which images share a camera: single all of one size; per-folder those of "
        "one folder and size; per-image none; auto (default) those of one folder, size "
        "and EXIF camera with its focal length, and none that have no EXIF data",
    )
    options = parser.parse_args(join_repeated_flags(parser, arguments))

    checkpoint = load_checkpoint(options.model)
    config = read_preset(PRESET, checkpoint)
    dataset = options.output / "dataset"
    folder = write_image_folder_dataset(
        options.images,
        dataset,
        options.camera_mode,
        exclude=options.exclude,
        masks=options.masks,
    )
    print(
        f"{len(folder.names)} images, {folder.cameras} cameras, "
        f"{folder.with_focal_length} of them with a focal length from EXIF"
    )
    for failure in folder.failed:
        print(f"  left out: {failure.to_text()}")
    report = pipeline.run(
        config,
        mapping=dataset,
        queries={},
        checkpoint=checkpoint,
        masks=options.masks,
        output=options.output,
        announce=print_report,
    )
    report = dataclasses.replace(
        report,
        failed=folder.failed + report.failed,
        warnings=folder.warnings + report.warnings,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
