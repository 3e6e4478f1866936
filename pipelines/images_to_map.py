"""A map from a folder of photographs, with cameras from EXIF.

    python -m r2d2_kapture.pipelines.images_to_map --images photos --output work

It is kapture_r2d2_pipeline without queries, and takes all of its other flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import run_command
from r2d2_kapture.cli.pipeline import parse_pipeline, pipeline_parser, run_pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(images_to_map, arguments)


def images_to_map(arguments: list[str]) -> int:
    """Dataset, features, pairs, matches, verification, incremental mapping."""
    parser = pipeline_parser(
        "images_to_map",
        "From a folder of photographs to a map, with cameras from EXIF.",
        "python -m r2d2_kapture.pipelines.images_to_map --images photos --output work",
        inputs=lambda parser: parser.group("inputs").add_argument(
            "--images",
            type=Path,
            metavar="DIR",
            required=True,
            help="folder of photographs",
        ),
    )
    flags = parse_pipeline(parser, arguments)
    return run_pipeline(flags, images=flags.images, queries={})


if __name__ == "__main__":
    raise SystemExit(main())
