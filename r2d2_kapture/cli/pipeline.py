"""kapture_r2d2_pipeline: from images to a map and localized queries."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    dump_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.extraction_flags import (
    add_exclude_flag,
    add_extraction_settings,
    add_masks_flag,
    add_model_flags,
    add_preset_flag,
    check_settings,
    dump_extraction,
    extraction,
    resolve_extraction_preset,
)
from r2d2_kapture.cli.parser import CommandParser, value_name
from r2d2_kapture.cli.signatures import docstring_texts
from r2d2_kapture.cli.stage_flags import add_stage_flags, run_options
from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.extract import AUTO, ExtractConfig
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.models.files import Weights
from r2d2_kapture.types import Report

COMMAND = "kapture_r2d2_pipeline"
PRESETS = "pipelines"
SETTINGS_NAME = "pipeline_config.yaml"
SECTIONS: dict[str, type] = {
    "photographs": FolderConfig,
    "extract": ExtractConfig,
    "mapping_pairs": PairsConfig,
    "query_pairs": PairsConfig,
    "match": MatchConfig,
    "verify": VerifyConfig,
    "map": MapConfig,
    "localize": LocalizeConfig,
    "evaluate": EvaluateConfig,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = pipeline_parser(
        COMMAND,
        "From photographs or kapture datasets to a map and localized queries: extract "
        "features (or use existing ones), pair, match, verify, map, localize and "
        "evaluate. All outputs are below --output; run it again to resume.",
        f"{COMMAND} --images photos --query more_photos --preset fast --output work",
        inputs=add_inputs,
    )
    flags = parse_pipeline(parser, arguments)
    return run_pipeline(
        flags,
        images=flags.images,
        mapping=flags.mapping,
        queries=named_queries(flags.query),
    )


def pipeline_parser(
    command: str,
    description: str,
    example: str,
    inputs: Callable[[CommandParser], object],
) -> CommandParser:
    """A parser of all settings and options of a pipeline.

    Args:
        command, description, example: for the help.
        inputs: adds the flags of photographs and datasets, which are listed first.
    """
    parser = make_parser(command, description, example)
    inputs(parser)
    _add_run(parser)
    add_sections(parser)
    return parser


def parse_pipeline(parser: CommandParser, arguments: Sequence[str]) -> Namespace:
    """Parse flags and presets; short flags set the settings that they stand for."""
    resolved = resolve_extraction_preset(arguments, PRESETS, section="extract")
    flags = parser.parse_args(resolved)
    for name in names_of(FolderConfig):
        if flags[name] is not None:
            flags["photographs"][name] = flags[name]
    if flags.camera_mode is not None:
        flags["verify"]["camera_mode"] = flags.camera_mode
    return flags


def run_pipeline(
    flags: Namespace,
    *,
    images: Path | None = None,
    mapping: Path | None = None,
    queries: Mapping[str, Path],
) -> int:
    """Run a pipeline and return the exit code.

    Args:
        flags: of ``parse_pipeline``.
        images, mapping, queries: as of stages.pipeline.

    Raises:
        R2D2KaptureError: flags contradict each other, or a stage cannot continue.
    """
    config, options = pipeline_config(flags), run_options(flags)
    datasets = [*queries.values(), *(() if mapping is None else (mapping,))]
    extract, weights = choose_extraction(flags, datasets)
    if extract is None and flags.preset is not None:
        raise ConfigError(
            f"--preset {flags.preset}: found existing features, so that "
            "nothing is extracted; give a --model to extract, or omit the preset"
        )
    from r2d2_kapture.stages import pipeline
    from r2d2_kapture.stages.report import report_pipeline, with_page

    report = pipeline.run(
        dataclasses.replace(config, extract=extract),
        images=images,
        mapping=mapping,
        queries=queries,
        output=flags.output,
        weights=weights,
        features=flags.features,
        keypoints_type=flags.keypoints_type,
        descriptors_type=flags.descriptors_type,
        global_features_type=flags.global_features_type,
        exclude=flags.exclude,
        masks=flags.masks,
        options=options,
        announce=print_report,
    )
    name = "r2d2" if extract is None else extract.extractor.extractor
    write_text_atomic(flags.output / SETTINGS_NAME, dump_sections(flags, name))
    return finish(with_page(report, lambda: report_pipeline(flags.output)))


def print_report(report: Report) -> None:
    """Print the report of a stage as it ends."""
    show(report.to_text())


def add_inputs(parser: CommandParser) -> None:
    """Photographs and datasets."""
    parser.group("inputs").add_argument(
        "--images",
        type=Path | None,
        metavar="DIR",
        help="folder of the map's photographs, searched recursively and not changed; "
        "cameras come from EXIF and --camera-mode",
    )
    parser.group("inputs").add_argument(
        "--mapping",
        type=Path | None,
        metavar="DIR",
        help="kapture dataset of the map's images, instead of --images; its poses are "
        "kept; without poses, they are estimated",
    )
    parser.group("inputs").add_argument(
        "--query",
        type=str,
        metavar="DIR",
        nargs="*",
        default=[],
        help="folders of photographs or kapture datasets to localize, as DIR or "
        "NAME=DIR; datasets with poses are evaluated; without any, the pipeline ends "
        "with the map",
    )


def _add_run(parser: CommandParser) -> None:
    """Features, cameras, and how the pipeline runs."""
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of all outputs",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="*",
        default=[],
        help="folders of local or global features in addition to those in the "
        "datasets, such as local_features/r2d2_500 and global_features/AP-GeM-LM18",
    )
    add_model_flags(
        parser,
        "by default features are taken from --features and the datasets, or extracted "
        "by a bundled model if there are neither",
    )
    parser.group("inputs").add_argument(
        "--keypoints-type",
        type=str | None,
        metavar="NAME",
        help="of existing features, by default the only one; of those that "
        "--model extracts, by default its name",
    )
    for kind in ("descriptors", "global-features"):
        parser.group("inputs").add_argument(
            f"--{kind}-type",
            type=str | None,
            metavar="NAME",
            help="of existing features; by default the only one",
        )
    types, helps = get_type_hints(FolderConfig), docstring_texts(FolderConfig.__doc__)
    defaults = vars(FolderConfig())
    for name in names_of(FolderConfig):
        flag = name.replace("_", "-")
        also = ", --verify.camera-mode" if name == "camera_mode" else ""
        parser.group("inputs").add_argument(
            f"--{flag}",
            type=types[name] | None,
            metavar=value_name(types[name]),
            help=f"{helps[name].rstrip('.')} (short for --photographs.{flag}{also}"
            f"{'' if defaults[name] is None else f'; default {defaults[name]}'})",
        )
    add_exclude_flag(parser)
    add_preset_flag(parser)
    add_masks_flag(parser)
    add_stage_flags(
        parser,
        "item",
        force="replace outputs of other settings, and all that depend on them; earlier "
        "ones are kept (to start over, choose another --output)",
    )


def choose_extraction(
    flags: Namespace, datasets: Sequence[Path] = ()
) -> tuple[ExtractConfig | None, Weights | None]:
    """The requested extraction; by the bundled model if there are no keypoints; else
    none.

    Raises:
        CheckpointError: the weights cannot be loaded.
        ConfigError: settings of extraction belong to another extractor.
    """
    if flags.model is None and flags.extractor == AUTO:
        from r2d2_kapture.io.kapture.feature_table import find_feature_folders

        roots = [*flags.features, *datasets]
        if any(find_feature_folders(root, "keypoints") for root in roots):
            return None, None
    return extraction(
        flags["extract"], flags.model, flags.extractor, section="extract."
    )


def add_sections(parser: CommandParser) -> None:
    """Add the settings of each stage with its name as prefix, as ``--match.ratio``."""
    for name, settings in SECTIONS.items():
        if settings is ExtractConfig:
            add_extraction_settings(parser, section="extract.", topic="extract")
            continue
        title = name.replace("_", " ")
        add_settings(parser, settings, section=f"{name}.", group=title, topic=name)


def pipeline_config(namespace: Namespace) -> PipelineConfig:
    """Settings of all stages from the flags, but for extraction's, which are checked.

    Raises:
        ConfigError: a setting is out of its range.
    """
    check_settings(namespace["extract"])
    sections: dict[str, Any] = {
        name: settings_from(namespace[name], settings, f"{name}.")
        for name, settings in SECTIONS.items()
        if settings is not ExtractConfig
    }
    return PipelineConfig(**sections)


def named_queries(arguments: Sequence[str]) -> dict[str, Path]:
    """Query datasets by name: the part before ``=``, or the folder's own name.

    Raises:
        ConfigError: two have the same name, or a name is not a valid folder name.
    """
    queries: dict[str, Path] = {}
    for argument in arguments:
        name, separator, folder = argument.rpartition("=")
        path = Path(folder)
        name = name if separator else path.resolve().name
        if not name or name == "mapping" or name in queries or "/" in name:
            raise ConfigError(
                f"--query {argument}: '{name}' cannot name a query dataset (it is a "
                "duplicate, not a folder name, or 'mapping', the name of the map's "
                "dataset); write NAME=DIR with another name"
            )
        queries[name] = path
    return queries


def dump_sections(namespace: Namespace, extractor: str) -> str:
    """The resolved settings as YAML that ``--config`` takes, of one extractor."""
    return "".join(
        f"{name}:\n"
        + textwrap.indent(
            (
                dump_extraction(namespace[name], extractor)
                if settings is ExtractConfig
                else dump_settings(namespace[name], (settings,))
            ),
            "  ",
        )
        for name, settings in SECTIONS.items()
    )


if __name__ == "__main__":
    raise SystemExit(main())
