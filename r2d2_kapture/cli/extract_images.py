"""kapture_r2d2_extract_images: local features for plain image files."""

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
    add_run_flags,
    make_extractor,
    parse_extraction,
    run_options,
    save_settings,
)
from r2d2_kapture.cli.parser import value_name
from r2d2_kapture.config.extract import FileFormat
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.images.search import find_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_extract_images",
        "Extract local features, of R2D2 by default, from image files into .r2d2 or "
        ".d2-net (npz), .mat, HDF5 (hloc's layout) or COLMAP text files. Run it again "
        "to resume.",
        "kapture_r2d2_extract_images --model r2d2_v2 --images a.jpg "
        "'photos/**/*.png' list.txt --output-dir features",
    )
    parser.group("inputs").add_argument(
        "--images",
        nargs="+",
        type=str,
        metavar="PATH",
        default=[],
        help="image files, folders, glob patterns, or .txt files with one path per "
        "line",
    )
    parser.group("outputs").add_argument(
        "--output-dir",
        type=Path | None,
        metavar="DIR",
        help="folder of the outputs; by default that of each image",
    )
    parser.group("outputs").add_argument(
        "--image-root",
        type=Path | None,
        metavar="DIR",
        help="folder that the names of outputs are relative to; by default that of "
        "the first run into --output-dir: the deepest that contains all images, or, of "
        "several folders, the one that contains the image, if that makes all names "
        "different",
    )
    parser.group("outputs").add_argument(
        "--format",
        type=FileFormat,
        metavar=value_name(FileFormat),
        default="npz",
        help="npz: IMAGE.r2d2 or IMAGE.d2-net; mat: IMAGE.r2d2.mat or IMAGE.d2-net; "
        "h5: features.h5 for all; colmap-text: IMAGE.txt, of 128 values (not D2-Net)",
    )
    add_exclude_flag(parser)
    add_masks_flag(parser)
    add_extraction_flags(parser)
    add_run_flags(parser)
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    if not namespace.images:
        raise ConfigError("--images: none given, expected files, folders or patterns")
    options = run_options(namespace)
    found = find_images(namespace.images, namespace.exclude, namespace.masks)
    extractor = make_extractor(namespace)
    from r2d2_kapture.stages.extract import files as extract_files
    from r2d2_kapture.stages.extract.image_names import searched_folders

    report = extract_files.run(
        extractor,
        images=found.paths,
        file_format=namespace.format,
        output_dir=namespace.output_dir,
        image_root=namespace.image_root,
        folders=searched_folders(namespace.images),
        masks=namespace.masks,
        notes=found.warnings,
        options=options,
    )
    if namespace.output_dir is not None:
        save_settings(namespace, extractor, namespace.output_dir)
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
