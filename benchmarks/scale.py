"""Time and memory of every stage for more and more images, and of a resume.

    python benchmarks/scale.py --images 1000 10000 --output scale

makes a world of each size, whose geometry is known (scale_world.py), runs the commands
of the package on it, each in a process of its own, runs each again with nothing to do,
and compares poses and points with the truth. What was measured stays in scale.json, and
is measured again with another command or by --again only; scale.png shows it.

Time is that of the processor, which other work on the machine changes little. What a
command takes for 12 images, which is to start, is subtracted from times of items and of
resumes. Extraction is all but its network: the extractor knows the world.

1,000 and 10,000 images take about 12 minutes of one core, 100,000 about 40 more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from measure import Measurement, machine, measure
from scale_dataset import World, install_extractor
from scale_plot import plot
from scale_ray import compare_workers, machine_allows
from scale_results import COLUMNS, START, Result, Results
from scale_slices import compare_slices
from scale_stages import COMMANDS, Settings, Stage, stages
from scale_truth import compare_with_truth

HERE = Path(__file__).resolve().parent
SHORT = 8.0
"""Seconds of a run below which the least of several counts."""
MADE_NAME = "made"
"""Of the file that says that a world is complete."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was not measured, compare, print and plot."""
    options = parse(arguments)
    settings = Settings(
        keypoints=options.keypoints,
        dim=options.dim,
        store=options.store,
        workers=options.workers,
    )
    output: Path = options.output.resolve()
    results = Results(output / "scale.json")
    os.environ["PYTHONPATH"] = install_extractor(output / "plugin")
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of torch that wait would count
    sizes = sorted({*options.images})
    worlds = {n: World(n) for n in (START, *sizes)}
    for images, world in worlds.items():
        make(world, output / f"{images}")
    for name in options.stages:
        # size after size, so that these are measured on a machine that is as busy
        for images, world in worlds.items():
            root = output / f"{images}"
            stage = stages(world, settings, root)[name]
            command = [word.replace(str(root), "") for word in stage.command]
            if name in options.again or not results.has(images, name, command):
                results.add(measured(stage, images, command, options.runs))
                print(f"{images:,} images: {name} measured", flush=True)
    for images in sizes:
        world, root = worlds[images], output / f"{images}"
        numbers = compare_with_truth(world, options.keypoints, root)
        for what, (found, right) in numbers.items():
            print(f"{images:,} images: {what}: {found:,}, expected {right:,}")
        if options.slices:
            print_slices(world, settings, root, options.slices)
        if options.ray_workers:
            start = World(START), output / f"{START}"
            print_workers([start, (world, root)], settings, options.ray_workers)
    print(machine())
    print(results.table(sizes, options.stages))
    for column, meaning in COLUMNS.items():
        print(f"{column}: {meaning}")
    for sentence in results.missed(sizes, options.stages):
        print(f"missed: {sentence}")
    plot(results, sizes, options.stages, output / "scale.png")


def print_slices(world: World, settings: Settings, root: Path, count: int) -> None:
    """Run slices, and print what differs from one run."""
    for name, files, unlike in compare_slices(world, settings, root, count):
        print(
            f"{world.images:,} images: {name} in {count} slices: {files:,} files, of "
            f"these other than in one run: {unlike}",
            flush=True,
        )


def print_workers(
    worlds: Sequence[tuple[World, Path]], settings: Settings, workers: Sequence[int]
) -> None:
    """Run stages by workers of Ray, and print how much sooner the last one ends."""
    allowed = machine_allows(max(workers))
    print(f"{max(workers)} processes that compute alone: {allowed:.2f} times one")
    for name, seconds in compare_workers(worlds, settings, workers):
        times = ", ".join(
            f"{count} workers {wall:.1f} s ({seconds[0] / wall:.2f} times)"
            for count, wall in zip(workers, seconds, strict=True)
        )
        print(f"{worlds[-1][0].images:,} images: {name}: {times}", flush=True)


def make(world: World, root: Path) -> None:
    """Make the datasets of a world, in a process whose memory is not that of stages."""
    if not (root / MADE_NAME).exists():
        shutil.rmtree(root, ignore_errors=True)
        script = str(HERE / "scale_dataset.py")
        measure([script, "--images", str(world.images), "--output", str(root)])
        (root / MADE_NAME).touch()


def measured(stage: Stage, images: int, command: list[str], most: int) -> Result:
    """Run a stage from the beginning, and again with nothing to do.

    Args:
        stage: the stage.
        images: of the world.
        command: to keep with it.
        most: short runs are repeated so often.
    """
    runs = [first_run(stage)]
    while len(runs) < most and runs[-1].cpu_seconds < SHORT:
        runs.append(first_run(stage))
    files = stage.files()
    again = [measure(stage.command)]
    while len(again) < most and again[-1].cpu_seconds < SHORT:
        again.append(measure(stage.command))
    return Result(
        stage=stage.name,
        images=images,
        unit=stage.unit,
        items=stage.items,
        command=command,
        run=least(runs),
        again=least(again),
        files=files,
        commit=commit(),
    )


def first_run(stage: Stage) -> Measurement:
    """Run a stage from the beginning."""
    stage.clear()
    return measure(stage.command)


def least(runs: list[Measurement]) -> Measurement:
    """The one that took least."""
    return min(runs, key=lambda run: run.cpu_seconds)


def commit() -> str:
    """Of the package."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    names = list(COMMANDS)
    lines = [f"  {name}: {command}" for name, (_, command) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["stages, kapture_r2d2_...:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--output", type=Path, default=Path("scale"))
    parser.add_argument(
        "--stages", nargs="+", choices=names, default=names, help="to measure"
    )
    parser.add_argument(
        "--again", nargs="+", choices=names, default=[], help="to measure again"
    )
    parser.add_argument("--keypoints", type=int, default=64, help="of an image")
    parser.add_argument("--dim", type=int, default=32, help="values of a descriptor")
    parser.add_argument("--store", help="of features and matches")
    parser.add_argument("--workers", type=int, default=2, help="of a command")
    parser.add_argument(
        "--runs", type=int, default=3, help="of short ones the least counts"
    )
    parser.add_argument(
        "--slices", type=int, help="compare so many slices with one run, byte by byte"
    )
    parser.add_argument(
        "--ray-workers", type=int, nargs="+", help="compare so many workers of Ray"
    )
    options = parser.parse_args(arguments)
    options.stages = [name for name in names if name in options.stages]
    if min(options.images) <= START:
        parser.error(f"--images: expected more than {START}, which show the start")
    if options.keypoints % 4 or options.keypoints < 64:
        parser.error("--keypoints: expected a multiple of 4 from 64 on")
    return options


if __name__ == "__main__":
    main()
