"""Workers of Ray on this machine: how much sooner the stages of scale.py end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import measure
from scale_dataset import World
from scale_stages import SLICED, Settings, Stage, stages

LOOP = "sum(number * number for number in range(30_000_000))"
"""Python that one core computes, and memory has no part in."""


def compare_workers(
    worlds: Sequence[tuple[World, Path]], settings: Settings, workers: Sequence[int]
) -> Iterator[tuple[str, list[float]]]:
    """For each stage its name, and the wall seconds by each number of workers.

    Args:
        worlds: a small one, which shows what it takes to start, and the one that is
            measured, with the folders of their stages, which have run.
        settings: of all stages.
        workers: numbers of workers of one core each.
    """
    of_worlds = [stages(world, settings, root, root / "ray") for world, root in worlds]
    for name in SLICED:
        start, end = (
            [wall_seconds(of[name], count) for count in workers] for of in of_worlds
        )
        yield name, [last - first for first, last in zip(start, end, strict=True)]


def wall_seconds(stage: Stage, workers: int) -> float:
    """Of a stage by workers of Ray."""
    stage.clear()
    ray = ["--executor", "ray", "--ray-workers", str(workers)]
    return measure([*stage.command, *ray]).seconds


def machine_allows(count: int) -> float:
    """How much sooner so many processes do, at once, what one would do in turn."""
    return count * busy_seconds(1) / busy_seconds(count)


def busy_seconds(count: int) -> float:
    """Wall seconds of so many processes that compute at once."""
    started = time.perf_counter()
    busy = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    for process in busy:
        process.wait()
    return time.perf_counter() - started
