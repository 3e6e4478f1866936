"""kapture_r2d2_pipeline: from images to a map and localized queries."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    check_section,
    dump_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.extraction_flags import (
    FOLDER_FLAGS,
    add_extraction_settings,
    add_folder_flags,
    add_model_flags,
    add_preset_flag,
    check_settings,
    dump_extraction,
    extraction,
    resolve_extraction_preset,
)
from r2d2_kapture.cli.parser import INPUTS, CommandParser, value_name
from r2d2_kapture.cli.signatures import read_signature, setting_parameters
from r2d2_kapture.cli.stage_flags import (
    add_executor_flags,
    add_parameters,
    add_refinement,
    add_stage_flags,
    executor_config,
    parameter_values,
    run_options,
)
from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.extract import AUTO, ExtractConfig
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import (
    OF_GIVEN_MODEL,
    PipelineConfig,
    RefineStepConfig,
)
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.models.files import Weights
from r2d2_kapture.types import Report

STAGE = "r2d2_kapture.stages.pipeline"
PRESETS = "pipelines"
SETTINGS_NAME = "pipeline_config.yaml"
SECTIONS: dict[str, type] = {
    "photographs": FolderConfig,
    "extract": ExtractConfig,
    "mapping_pairs": PairsConfig,
    "query_pairs": PairsConfig,
    "match": MatchConfig,
    "verify": VerifyConfig,
    "refine": RefineStepConfig,
    "map": MapConfig,
    "localize": LocalizeConfig,
    "evaluate": EvaluateConfig,
}


AddInputs = Callable[[CommandParser], object]


def add_folder(flag: str, text: str) -> AddInputs:
    """Adds the flag of a folder that a recipe requires."""
    return lambda parser: parser.group(INPUTS).add_argument(
        flag, type=Path, metavar="DIR", required=True, help=text
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """A command with all flags of a pipeline, and a flow of data of its own.

    Attributes:
        name: of the command.
        flow: what it does with the flags; it returns the exit code, and its docstring
            is the description.
        example: of a command line.
        preset: of configs/pipelines, by default.
        taken: parameters of the pipeline that the flow gives.
        add_inputs: adds the flags of the flow, which are listed first.
        defaults: of flags, where they differ.
    """

    name: str
    flow: Callable[[Namespace], int]
    example: str
    preset: str | None = None
    taken: Collection[str] = ("images", "mapping", "model_in")
    add_inputs: AddInputs = lambda parser: None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Entry point of the command."""
        return run_command(self._command, arguments)

    def _command(self, arguments: list[str]) -> int:
        description = " ".join((self.flow.__doc__ or "").split())
        parser = make_parser(self.name, description, self.example)
        self.add_inputs(parser)
        _add_flags(parser, self.taken)
        parser.set_defaults(dict(self.defaults))
        preset = [] if self.preset is None else ["--config", self.preset]
        return self.flow(_parse(parser, [*preset, *arguments]))


def _parse(parser: CommandParser, arguments: Sequence[str]) -> Namespace:
    """Parse flags and presets; short flags set the settings that they stand for."""
    resolved = resolve_extraction_preset(arguments, PRESETS, section="extract")
    flags = parser.parse_args(resolved)
    if flags.get("model_in") is not None:
        parser.set_defaults(
            {
                f"{section}.{name}": value
                for section, values in OF_GIVEN_MODEL.items()
                for name, value in values.items()
            }
        )
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
    queries: Mapping[str, Path],
    earlier: Sequence[Report] = (),
    **inputs: Path,
) -> int:
    """Run a pipeline, see ``pipeline_report``, and return the exit code."""
    return finish(pipeline_report(flags, queries=queries, earlier=earlier, **inputs))


def pipeline_report(
    flags: Namespace,
    *,
    queries: Mapping[str, Path],
    earlier: Sequence[Report] = (),
    **inputs: Path,
) -> Report:
    """Run a pipeline and return its report, which is not printed yet.

    Args:
        flags: of a Recipe.
        queries, earlier: as of stages.pipeline.
        inputs: images or mapping, as of stages.pipeline, if they are no flags.

    Raises:
        R2D2KaptureError: flags contradict each other, or a stage cannot continue.
    """
    config, options = pipeline_config(flags), run_options(flags)
    executor = executor_config(flags)
    _, parameters = read_signature(STAGE)
    values = parameter_values(flags, parameters) | inputs
    # the features of a model's images are in neither dataset
    datasets = [*queries.values(), values.get("mapping")]
    datasets = datasets if values.get("model_in") is None else []
    extract, weights = choose_extraction(flags, datasets)
    if extract is None and flags.preset is not None:
        raise ConfigError(
            f"--preset {flags.preset}: found existing features, so that "
            "nothing is extracted; give a --model to extract, or omit the preset"
        )
    from r2d2_kapture.stages import pipeline
    from r2d2_kapture.stages.cluster import open_executor
    from r2d2_kapture.stages.report import run as write_page
    from r2d2_kapture.stages.report import with_page

    with open_executor(executor) as execute:
        report = pipeline.run(
            dataclasses.replace(config, extract=extract),
            queries=queries,
            weights=weights,
            earlier=earlier,
            **values,
            options=options,
            execute=execute,
            announce=print_report,
        )
    name = "r2d2" if extract is None else extract.extractor.extractor
    write_text_atomic(flags.output / SETTINGS_NAME, dump_sections(flags, name))
    return with_page(report, lambda: write_page(pipeline=flags.output))


def print_report(report: Report) -> None:
    """Print the report of a stage as it ends."""
    show(report.to_text())


def _add_flags(parser: CommandParser, taken: Collection[str]) -> None:
    """Inputs, features, cameras, how the pipeline runs, and settings of its stages."""
    _, parameters = read_signature(STAGE)
    add_parameters(parser, parameters, taken=(*taken, *FOLDER_FLAGS))
    add_model_flags(
        parser,
        "by default features are taken from --features and the datasets, or extracted "
        "by a bundled model if there are neither",
    )
    for item in setting_parameters(FolderConfig):
        also = ", --verify.camera-mode" if item.name == "camera_mode" else ""
        default = "" if item.default is None else f"; default {item.default}"
        parser.group(INPUTS).add_argument(
            f"--{item.flag}",
            type=item.kind | None,
            metavar=value_name(item.kind),
            help=f"{item.text.rstrip('.')} (short for --photographs.{item.flag}"
            f"{also}{default})",
        )
    add_folder_flags(parser)
    add_preset_flag(parser)
    add_stage_flags(
        parser,
        "item",
        force="replace outputs of other settings, and all that depend on them; earlier "
        "ones are kept (to start over, choose another --output)",
    )
    add_executor_flags(parser)
    add_sections(parser)


def choose_extraction(
    flags: Namespace, datasets: Sequence[Path | None]
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
        if any(find_feature_folders(root, "keypoints") for root in roots if root):
            return None, None
    return extraction(
        flags["extract"],
        flags.model,
        flags.extractor,
        section="extract.",
        preset=flags.preset,
    )


def add_sections(parser: CommandParser) -> None:
    """Add the settings of each stage with its name as prefix, as ``--match.ratio``."""
    for name, settings in SECTIONS.items():
        if settings is ExtractConfig:
            add_extraction_settings(parser, section="extract.", topic="extract")
            continue
        if settings is RefineStepConfig:
            add_refinement(parser, settings)
            continue
        title = name.replace("_", " ")
        add_settings(parser, settings, section=f"{name}.", group=title, topic=name)


def pipeline_config(namespace: Namespace) -> PipelineConfig:
    """Settings of all stages from the flags, but for extraction's, which are checked.

    Raises:
        ConfigError: a setting is out of its range, or a section is none.
    """
    check_section(namespace["extract"], "extract.")
    check_settings(namespace["extract"], "extract.")
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


def _add_inputs(parser: CommandParser) -> None:
    parser.group(INPUTS).add_argument(
        "--query",
        type=str,
        metavar="DIR",
        nargs="*",
        default=[],
        help="folders of photographs or kapture datasets to localize, as DIR or "
        "NAME=DIR; datasets with poses are evaluated; without any, the pipeline ends "
        "with the map",
    )


def _flow(flags: Namespace) -> int:
    """From photographs or kapture datasets to a map and localized queries: extract
    features (or use existing ones), pair, match, verify, map, localize and evaluate.
    All outputs are below --output; run it again to resume.
    """
    return run_pipeline(flags, queries=named_queries(flags.query))


main = Recipe(
    name="kapture_r2d2_pipeline",
    flow=_flow,
    example="kapture_r2d2_pipeline --images photos --query more_photos --preset fast "
    "--output work",
    taken=(),
    add_inputs=_add_inputs,
)


if __name__ == "__main__":
    raise SystemExit(main())
