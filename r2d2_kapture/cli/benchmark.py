"""The command of a benchmark, whose flags and help are those of its functions."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    EXIT_OK,
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.evaluation_flags import (
    add_evaluation_flags,
    feature_sources,
    save_all_settings,
)
from r2d2_kapture.cli.extraction_flags import parse_extraction
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import add_parameters, parameter_values, run_options
from r2d2_kapture.errors import ConfigError

STAGE = "r2d2_kapture.stages.benchmark"


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """A command that runs a benchmark, or shows results of earlier runs.

    Attributes:
        name: of the benchmark, and of the module with ``open_benchmark`` and
            ``PRESENTATION``.
        example: of a command line.
        settings: the dataclass of what is measured.
        unit: what is evaluated, such as ``pair``.
        inputs: parameters of ``open_benchmark``, one of which is needed.
        evaluated: what they give.
    """

    name: str
    example: str
    settings: type
    unit: str
    inputs: tuple[str, ...]
    evaluated: str

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Entry point of the command."""
        return run_command(self._command, arguments)

    def _command(self, arguments: list[str]) -> int:
        module = f"{STAGE}.{self.name}"
        description, inputs = read_signature(module, "open_benchmark")
        shared = read_signature(STAGE).parameters
        parser = make_parser(f"kapture_r2d2_{self.name}", description, self.example)
        add_parameters(parser, (*inputs, *shared), {"outputs": ["plot"]}, in_files=True)
        add_settings(parser, self.settings, group="evaluation")
        add_evaluation_flags(parser, self.unit, "kapture_root" in self.inputs)
        namespace = parse_extraction(parser, arguments)
        config: Any = settings_from(namespace, self.settings)
        options = run_options(namespace)
        evaluates = self._evaluates(namespace)
        stage = importlib.import_module(STAGE)
        presentation = importlib.import_module(module).PRESENTATION
        if namespace.plot is not None:
            stage.check_plot_path(namespace.plot)
        # report errors in them before the work
        results = [presentation.read(path) for path in namespace.results]
        if not evaluates:
            presentation.write(results, namespace.output, namespace.plot)
            show(presentation.table(results))
            return EXIT_OK
        open_benchmark = importlib.import_module(module).open_benchmark
        benchmark = open_benchmark(config, **parameter_values(namespace, inputs))
        sources = feature_sources(parser, arguments, namespace, benchmark.root)
        report = stage.run(
            benchmark,
            sources=[source for source, _ in sources],
            **parameter_values(namespace, shared),
            options=options,
        )
        save_all_settings(sources, namespace.output)
        if report.outputs:
            paths = stage.with_others(report.outputs, namespace.results)
            show(presentation.table(presentation.read_all(paths)))
        return finish(report)

    def _evaluates(self, namespace: Namespace) -> bool:
        """Whether there is anything to evaluate, and not only results to show.

        Raises:
            ConfigError: there is neither, or no place for the results.
        """
        if any(namespace[name] is not None for name in self.inputs):
            if namespace.output is None:
                raise ConfigError(
                    "--output: missing, expected a folder for the results"
                )
            return True
        if not namespace.results:
            flags = [f"--{name.replace('_', '-')}" for name in self.inputs]
            raise ConfigError(
                f"found neither {' or '.join(flags)} ({self.evaluated}) nor --results "
                "(files to show); give one of them"
            )
        return False
