"""kapture_r2d2_extract_images: local features for plain image files."""

from __future__ import annotations

from collections.abc import Sequence

from r2d2_kapture.cli.common import finish, make_parser, run_command
from r2d2_kapture.cli.extraction_flags import (
    FOLDER_FLAGS,
    add_extraction_flags,
    add_extraction_run_flags,
    add_folder_flags,
    make_extractor,
    parse_extraction,
    save_settings,
)
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_executor_flags,
    add_parameters,
    executor_config,
    parameter_values,
    run_options,
)
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.images.search import find_images

FOUND = ("images", "folders", "notes")
"""Parameters of the stage that what is typed leads to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.extract.files")
    parser = make_parser(
        "kapture_r2d2_extract_images",
        description,
        "kapture_r2d2_extract_images --model r2d2_v3 --images a.jpg "
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
    groups = {"outputs": ["image_root", "file_format"]}
    add_parameters(parser, parameters, groups, taken=(*FOUND, *FOLDER_FLAGS))
    add_folder_flags(parser)
    add_extraction_flags(parser)
    add_extraction_run_flags(parser)
    add_executor_flags(parser)
    namespace = parse_extraction(parser, arguments)
    if not namespace.images:
        raise ConfigError("--images: none given, expected files, folders or patterns")
    options, executor = run_options(namespace), executor_config(namespace)
    found = find_images(namespace.images, namespace.exclude, namespace.masks)
    extractor = make_extractor(namespace)
    from r2d2_kapture.stages.cluster import open_executor
    from r2d2_kapture.stages.extract import files, searched_folders

    values = parameter_values(namespace, parameters) | {
        "images": found.paths,
        "folders": searched_folders(namespace.images),
        "notes": found.warnings,
    }
    with open_executor(executor) as execute:
        report = execute(files.run, extractor, **values, options=options)
    if namespace.output_dir in report.outputs:  # a slice has a report alone
        save_settings(namespace, extractor, namespace.output_dir)
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
