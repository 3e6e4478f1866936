"""Shared parts of all commands: flags from settings, one-line errors, exit codes.

A command is a module of cli/ with ``main``, a line of setup.cfg and a script of bin/.
Where it calls one stage with what is typed, ``main`` is a StageCommand. Otherwise:

- At its top it imports config/, errors, types and other modules of cli/ only; its stage
  and whatever else loads torch, scipy or kapture is imported inside the function that
  runs, after the flags are parsed and every setting is checked.
- ``make_parser`` makes the parser. A flag belongs to a group:
  ``parser.group("inputs")`` (whose files and folders must exist), "outputs",
  "features", "run" or another title, and its metavar states its value.
  ``add_parameters`` adds those of a stage's signature, and ``add_settings`` those of a
  dataclass. A group with a topic is shown by ``--help TOPIC`` and ``--help all`` only.
- ``main`` calls ``run_command``, and ``finish`` prints the report.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ActionYesNo, Namespace

from r2d2_kapture.cli.defects import describe_defect
from r2d2_kapture.cli.door_flags import chosen_settings
from r2d2_kapture.cli.entry import EXIT_INTERRUPTED, INTERRUPTED
from r2d2_kapture.cli.parser import EXIT_BAD_INPUT, CommandParser, value_name
from r2d2_kapture.cli.repeated_flags import take_flag
from r2d2_kapture.cli.signatures import Parameter, setting_parameters
from r2d2_kapture.config.checks import require
from r2d2_kapture.config.match import MATCHERS, MutualNearestConfig
from r2d2_kapture.config.presets import preset_path
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.core.allocator import keep_heap
from r2d2_kapture.errors import (
    LostWorkersError,
    R2D2KaptureError,
    StoppedRunError,
)
from r2d2_kapture.types import Report

if TYPE_CHECKING:
    from jsonargparse._core import ArgumentGroup

Settings = TypeVar("Settings")

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_DEFECT = 70
"""As EX_SOFTWARE of sysexits.h: the command itself is wrong, not its input."""


def make_parser(command: str, description: str, example: str) -> CommandParser:
    """A parser with ``--config`` and a help that ends with an example."""
    parser = CommandParser(command, description, example)
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="YAML file of the settings above, or the name of a preset of configs/; "
        "flags override it",
    )
    return parser


def add_settings(
    parser: CommandParser,
    settings: type,
    taken: Collection[str] = (),
    section: str = "",
    prefix: str = "",
    group: str = "settings",
    topic: str | None = None,
) -> None:
    """Add one flag for each field of a settings dataclass, with help from its
    docstring.

    Args:
        parser: to add to.
        settings: the dataclass.
        taken: fields to omit, because the command has its own flag of that name.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.
        prefix: after the section, before the names.
        group: title of the group of flags that they join.
        topic: of the help that shows them, see CommandParser.group.
    """
    container = parser.group(group, topic)
    for field in setting_parameters(settings):
        if field.name in taken:
            continue
        if field.name == MATCHERS.kind:
            _add_matchers(parser, section, group, topic)
            continue
        flag = f"--{section}{prefix.replace('_', '-')}{field.flag}"
        if field.kind is bool:
            container.add_argument(
                flag,
                action=ActionYesNo(yes_prefix=section, no_prefix=f"{section}no-"),
                default=field.default,
                help=field.text,
            )
        else:
            add_flag(container, flag, field, value_name(field.kind, field.text))


def add_flag(
    group: ArgumentGroup,
    flag: str,
    parameter: Parameter,
    metavar: str,
    *,
    required: bool = False,
) -> None:
    """Add a flag with a value, or with several.

    Args:
        group: of flags.
        flag: with its dashes.
        parameter: whose value it gives.
        metavar: of a value.
        required: whether the parser requires it; a value that it does not may be None.
    """
    unset = parameter.required and not required
    # a script's list of files may be empty
    nargs = "*" if parameter.kind is Path and not parameter.required else "+"
    group.add_argument(
        flag,
        type=parameter.kind | None if unset else parameter.kind,
        metavar=metavar,
        nargs=nargs if parameter.several else None,
        default=parameter.default,
        required=required,
        help=parameter.text,
    )


def _add_matchers(
    parser: CommandParser, section: str, group: str, topic: str | None
) -> None:
    """Add --matcher, and the settings of each matcher, those of the default in its
    group.

    The help shows settings of other matchers by their name as a topic.
    """
    parser.group(group, topic).add_argument(
        f"--{section}{MATCHERS.kind}",
        type=str,
        metavar="NAME",
        default=MutualNearestConfig.matcher,
        help=f"how images are matched: {', '.join(MATCHERS.settings())}",
    )
    for name, kind in MATCHERS.settings().items():
        own = (
            (group, topic)
            if kind is MutualNearestConfig
            else (f"{group} by {name}", name)
        )
        prefix = MATCHERS.prefix(name)
        add_settings(parser, kind, (), section, prefix, *own)


def check_section(values: object, section: str) -> None:
    """Refuse a section that a file gives as a single value.

    Raises:
        ConfigError: naming it.
    """
    require(
        isinstance(values, Namespace),
        f"{section.rstrip('.')}: found {values}, expected settings by name, each on a "
        "line of its own",
    )


def settings_from(
    namespace: Namespace, settings: type[Settings], section: str = ""
) -> Settings:
    """Build a settings dataclass from the flags that add_settings added.

    Raises:
        ConfigError: a setting is out of its range, or the section is none.
    """
    check_section(namespace, section)
    values = {name: namespace[name] for name in names_of(settings)}
    if MATCHERS.kind in values:
        values[MATCHERS.kind] = chosen_settings(namespace, MATCHERS, section)
    # the parser makes lists of several values
    tuples = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    return settings(**values | tuples)


def resolve_presets(arguments: Sequence[str], folder: str = "") -> list[str]:
    """Put ``--config`` first, so that flags override it, and find the file of a preset.

    Args:
        arguments: of the command line.
        folder: of the command's presets in configs/; most commands have none.

    Raises:
        ConfigError: it is neither a file nor a preset.
    """
    configs, others = take_flag(arguments, "--config")
    return [
        f"--config={preset_path(name, folder, '--config')}" for name in configs
    ] + others


def run_command(
    command: Callable[[list[str]], int], arguments: Sequence[str] | None
) -> int:
    """Run a command: every failure becomes one line and an exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    if isinstance(sys.stdout, TextIOWrapper):
        # file names may contain bytes that the terminal's encoding cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    keep_heap()
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return command(typed)
    except (R2D2KaptureError, OSError, UnicodeError, MemoryError) as error:
        text = (
            ascii(str(error))[1:-1] if isinstance(error, UnicodeError) else str(error)
        )
        line = " ".join(text.split()) or type(error).__name__
        print(f"error: {line}", file=sys.stderr)
        lost = isinstance(error, (LostWorkersError, StoppedRunError))
        return EXIT_SOME_FAILED if lost else EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # the one place for unforeseen errors
        print(f"error: {describe_defect(error, typed)}", file=sys.stderr)
        return EXIT_DEFECT


def show(text: str) -> None:
    """Print; a closed pipe, as by head, does not stop the run."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python stays quiet at exit too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finish(report: Report) -> int:
    """Print the report and return the exit code."""
    show(report.to_text())
    return EXIT_SOME_FAILED if report.failed else EXIT_OK


def dump_settings(namespace: Namespace, classes: Sequence[type]) -> str:
    """The resolved fields of settings dataclasses as YAML that ``--config`` takes."""
    names = [name for settings in classes for name in names_of(settings)]
    if MATCHERS.kind in names:
        names += MATCHERS.flags(namespace[MATCHERS.kind])
    return dump_values(namespace, names)


def dump_values(namespace: Namespace, names: Sequence[str]) -> str:
    """The values of flags as YAML that ``--config`` takes."""
    return "".join(
        f"{name}: {json.dumps(namespace[name], default=str)}\n" for name in names
    )
