"""Recipes of known benchmarks: import, map, localize and evaluate each scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from r2d2_kapture.cli.common import finish, show
from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.cli.pipeline import (
    Recipe,
    add_folder,
    pipeline_config,
    pipeline_report,
    print_report,
)
from r2d2_kapture.cli.stage_flags import run_options
from r2d2_kapture.config.benchmarks import Benchmark
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.types import Failure

if TYPE_CHECKING:
    from r2d2_kapture.stages.imports.benchmarks import ReadScene


def benchmark_recipe(name: str, flow: Callable[[Namespace], int]) -> Recipe:
    """The command of a benchmark, with the preset of its name."""
    return Recipe(
        name=name,
        flow=flow,
        example=f"python -m r2d2_kapture.pipelines.{name} --dataset {name} "
        "--output work",
        preset=name,
        add_inputs=_add_inputs,
    )


def _add_inputs(parser: CommandParser) -> None:
    add_folder("--dataset", "folder of the dataset, or of one of its scenes")(parser)
    parser.group(INPUTS).add_argument(
        "--scenes",
        type=str,
        metavar="NAME",
        nargs="*",
        default=[],
        help="folders of scenes; by default all",
    )


def run_benchmark(
    flags: Namespace, benchmark: Benchmark, read: ReadScene | None = None
) -> int:
    """Run a pipeline for each scene, report all together, and return the exit code.

    Args:
        flags: of a benchmark_recipe.
        benchmark: how its scenes are found.
        read: reads the authors' files of a scene; None if they are kapture's.

    Raises:
        R2D2KaptureError: a file is missing or malformed, flags contradict each other,
            or none of the scenes can be mapped.
    """
    from r2d2_kapture.stages.imports.benchmarks import (
        TABLE_NAME,
        Localized,
        import_scene,
        report_scenes,
    )

    started = time.monotonic()
    config, options = pipeline_config(flags), run_options(flags)
    output: Path = flags.output
    scenes = benchmark.find(flags.dataset, flags.scenes)
    localized: dict[str, Localized] = {}
    failed: list[Failure] = []
    for name, folder in scenes.items():
        show(f"{benchmark.title}, {name}: {folder}")
        flags.output = output / name
        datasets = import_scene(
            read,
            folder,
            flags.output / "datasets",
            depth=config.map.points_from != "triangulation",
            options=options,
        )
        for report in datasets.reports:
            print_report(report)
        try:
            if config.map.points_from != "triangulation":
                _require_depth(datasets.mapping, config.map.points_from)
            report = pipeline_report(
                flags, mapping=datasets.mapping, queries=datasets.queries
            )
        except ReconstructionError as error:
            if len(scenes) == 1 or options.strict:
                raise
            failed.append(Failure(name=name, reason=str(error)))
            continue
        print_report(report)
        localized[name] = Localized(queries=tuple(datasets.queries), report=report)
    flags.output = output
    whole = report_scenes(
        output,
        localized,
        config.evaluate.thresholds,
        submitted=benchmark.submitted,
        failed=failed,
        seconds=time.monotonic() - started,
    )
    if output / TABLE_NAME in whole.outputs:
        show((output / TABLE_NAME).read_text("utf-8").rstrip())
    return finish(whole)


def _require_depth(mapping: Path, points_from: str) -> None:
    """Refuse a scene without depth maps before anything is extracted.

    Raises:
        ReconstructionError: points are to come from depth maps, and there are none.
    """
    from r2d2_kapture.io.kapture.dataset import open_dataset
    from r2d2_kapture.io.kapture.depth_maps import depth_map_files

    if not depth_map_files(open_dataset(mapping)):
        raise ReconstructionError(
            f"{mapping}: found no depth map, expected some, since points come from "
            f"them (--map.points-from {points_from}); add them beside the images, or "
            "give --map.points-from triangulation"
        )
