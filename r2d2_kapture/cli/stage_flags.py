"""Flags from the signature of a stage, and those of how it runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from jsonargparse import Namespace

from r2d2_kapture.cli.common import add_flag, add_settings, settings_from
from r2d2_kapture.cli.parser import INPUTS, OUTPUTS, CommandParser, value_name
from r2d2_kapture.cli.signatures import Parameter, setting_parameters
from r2d2_kapture.config.executor import RAY, ExecutorConfig
from r2d2_kapture.config.pipeline import RefineOnceConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.errors import ConfigError

REDO = "redo finished work, and replace what was made with other settings"
THREADS = "threads that work in parallel; results do not depend on it"


def add_parameters(
    parser: CommandParser,
    parameters: Collection[Parameter],
    groups: Mapping[str, Collection[str]] | None = None,
    metavars: Mapping[str, str] | None = None,
    taken: Collection[str] = (),
    in_files: bool = False,
) -> None:
    """Add a flag for each parameter of a stage, with help from its docstring.

    Args:
        parser: to add to.
        parameters: of the stage.
        groups: names of parameters by the title of their group; others are outputs if
            they are named so, switches of the run, or inputs.
        metavars: by name, where the type and the text do not show them.
        taken: names of parameters to omit; the command gives them otherwise.
        in_files: whether required ones may be in a file of settings, see require_given.
    """
    titles = {name: title for title, names in (groups or {}).items() for name in names}
    for parameter in parameters:
        if parameter.name in taken:
            continue
        group = parser.group(titles.get(parameter.name) or _group(parameter))
        flag = f"--{parameter.flag}"
        if parameter.kind is bool:
            group.add_argument(flag, action="store_true", help=parameter.text)
        else:
            metavar = (metavars or {}).get(parameter.name) or _metavar(parameter)
            required = parameter.required and not in_files
            add_flag(group, flag, parameter, metavar, required=required)


def _group(parameter: Parameter) -> str:
    if "output" in parameter.name:
        return OUTPUTS
    return "run" if parameter.kind is bool or parameter.name == "slice" else INPUTS


def _metavar(parameter: Parameter) -> str:
    name = value_name(parameter.kind, parameter.text)
    return "NAME" if name == "TEXT" else name


def add_refinement(parser: CommandParser, settings: type[RefineOnceConfig]) -> None:
    """Add ``--refine``, and the settings of refinement in their section."""
    section, use = "refine", "use"
    add_settings(parser, settings, (use,), f"{section}.", "", section, section)
    for parameter in setting_parameters(settings):
        if parameter.name == use:
            flag = f"--{section}.{use}"
            add_flag(parser.group("features"), flag, parameter, "{on,off}")
            parser.shorten(flag, f"--{section}")


def require_given(namespace: Namespace, parameters: Collection[Parameter]) -> None:
    """Refuse a missing value, which the parser could not require.

    Raises:
        ConfigError: with what is expected.
    """
    for parameter in parameters:
        if parameter.required and not namespace[parameter.dest]:
            expected = parameter.text.partition(";")[0].rstrip(".")
            raise ConfigError(f"--{parameter.flag}: missing, expected {expected}")


def parameter_values(
    namespace: Namespace, parameters: Collection[Parameter]
) -> dict[str, Any]:
    """Values of parameters from the flags of ``add_parameters``."""
    return {
        parameter.name: namespace[parameter.dest]
        for parameter in parameters
        if parameter.dest in namespace
    }


def add_stage_flags(
    parser: CommandParser,
    item: str,
    force: str = REDO,
    workers: str = THREADS,
    count: int | None = None,
) -> None:
    """Add the options of a run, which do not affect results.

    Args:
        parser: of the command.
        item: the items that the stage processes, such as ``pair``.
        force, workers: helps of these flags.
        count: of workers; by default one for each core.
    """
    add_workers_flag(parser, workers, count or os.cpu_count() or 1)
    parser.group("run").add_argument(
        "--strict", action="store_true", help=f"stop at the first {item} that fails"
    )
    add_run_flags(parser, force)


def add_executor_flags(parser: CommandParser) -> None:
    """Add those of who processes the items of a stage that makes slices."""
    first, *others = names_of(ExecutorConfig)
    add_settings(parser, ExecutorConfig, others, group="run")
    add_settings(parser, ExecutorConfig, [first], group=RAY, topic=RAY)


def executor_config(namespace: Namespace) -> ExecutorConfig:
    """Who processes them, from these flags.

    Raises:
        ConfigError: flags contradict each other.
    """
    return settings_from(namespace, ExecutorConfig)


def add_workers_flag(parser: CommandParser, text: str, count: int) -> None:
    """Add the number of workers."""
    parser.group("run").add_argument(
        "--workers", type=int, metavar="N", default=count, help=text
    )


def add_run_flags(parser: CommandParser, force: str = REDO) -> None:
    """Add the options of a stage with a single output."""
    parser.group("run").add_argument("--force", action="store_true", help=force)
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )


def run_options(namespace: Namespace, least: int = 1) -> RunOptions:
    """Options of the run from those of these flags that the command has.

    Args:
        namespace: the flags.
        least: smallest number of workers.

    Raises:
        ConfigError: fewer workers.
    """
    workers = namespace.get("workers", RunOptions.workers)
    if workers < least:
        raise ConfigError(f"--workers: found {workers}, expected {least} or more")
    return RunOptions(
        workers=workers,
        force=namespace.force,
        strict=namespace.get("strict", False),
        progress=False if namespace.get("quiet") else None,
    )
