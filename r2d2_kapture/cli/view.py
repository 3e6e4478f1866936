"""kapture_r2d2_view: pictures of keypoints and confidence maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    EXIT_OK,
    finish,
    make_parser,
    run_command,
)
from r2d2_kapture.cli.extraction_flags import (
    add_exclude_flag,
    add_extraction_flags,
    add_masks_flag,
    chosen_checkpoint,
    extract_config,
    parse_extraction,
)
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.images.search import find_images

OWN_FLAGS = ("max_keypoints",)
"""Flags that are named like a setting of D2-Net, and mean what is drawn."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_view",
        "Write IMAGE.keypoints.png (circle size: patch, colour: score) and "
        "IMAGE.maps.png (reliability and repeatability, or soft detection) for every "
        "image.",
        "kapture_r2d2_view photo.jpg --model r2d2_WASF_N16.pt --output-dir pictures",
    )
    parser.add_argument(
        "images",
        nargs="*",
        type=str,
        help="image files, folders, glob patterns, or .txt files with one path a line",
    )
    parser.add_argument(
        "--output-dir",
        type=Path | None,
        help="folder of the pictures; beside each image by default",
    )
    parser.add_argument(
        "--max-keypoints", type=int, default=1000, help="keypoints drawn, the best"
    )
    add_exclude_flag(parser)
    add_masks_flag(parser)
    add_extraction_flags(parser, OWN_FLAGS)
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    if not namespace.images:
        raise ConfigError("no image given, expected files, folders or patterns")
    config = extract_config(namespace, OWN_FLAGS)
    found = find_images(namespace.images, namespace.exclude, namespace.masks)
    checkpoint = chosen_checkpoint(namespace, OWN_FLAGS)
    from r2d2_kapture.stages.extract import view

    report = view.run(
        config,
        images=found.paths,
        checkpoint=checkpoint,
        output_dir=namespace.output_dir,
        max_keypoints=namespace.max_keypoints,
        masks=namespace.masks,
        notes=found.warnings,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
