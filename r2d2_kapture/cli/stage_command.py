"""Commands that call a stage with what is typed, and print its report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    REDO,
    THREADS,
    add_executor_flags,
    add_parameters,
    add_run_flags,
    add_stage_flags,
    executor_config,
    parameter_values,
    run_options,
)
from r2d2_kapture.config.executor import ExecutorConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class StageCommand:
    """A command whose flags and help are those of a stage's ``run``.

    Attributes:
        name: of the command.
        stage: name of the module that shows ``run``.
        example: of a command line.
        settings: the dataclass of the stage's settings, by the title of its flags.
        groups: titles of flags, see add_parameters.
        item: the items that the stage processes; None if it has a single output.
        force, workers, count: see add_stage_flags.
        presets: puts ``--config`` first, see resolve_presets.
        flags: adds others that ``presets`` reads.
    """

    name: str
    stage: str
    example: str
    settings: Mapping[str, type] = field(default_factory=dict)
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    item: str | None = None
    force: str = REDO
    workers: str = THREADS
    count: int | None = None
    presets: Callable[[Sequence[str]], list[str]] = resolve_presets
    flags: Callable[[CommandParser], None] | None = None

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Entry point of the command."""
        return run_command(self._command, arguments)

    def _command(self, arguments: list[str]) -> int:
        description, parameters = read_signature(self.stage)
        parser = make_parser(self.name, description, self.example)
        add_parameters(parser, parameters, self.groups)
        for title, settings in self.settings.items():
            add_settings(parser, settings, group=title)
        if self.flags is not None:
            self.flags(parser)
        if self.item is None:
            add_run_flags(parser, self.force)
        else:
            add_stage_flags(parser, self.item, self.force, self.workers, self.count)
        shared = any(parameter.name == "slice" for parameter in parameters)
        if shared:
            add_executor_flags(parser)
        namespace = parser.parse_args(self.presets(arguments))
        values = parameter_values(namespace, parameters)
        config: list[Any] = [
            settings_from(namespace, kind) for kind in self.settings.values()
        ]
        options = run_options(namespace)
        executor = executor_config(namespace) if shared else ExecutorConfig()
        run = importlib.import_module(self.stage).run
        from r2d2_kapture.stages.cluster import open_executor

        with open_executor(executor) as execute:
            return finish(execute(run, *config, **values, options=options))
