"""What scale.py measured: a file that grows, a table, and what was missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Measurement, machine

from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.types import counted

START = 12
"""Images of the world that shows what it takes to start."""
EVEN = ("extract", "match", "verify", "localize", "export")
"""Stages whose items must not cost more the more there are."""
GROWTH, SHARE, GIB = 1.2, 0.01, 4.0
"""Goals: the most that the largest size may cost, an item relative to the smallest
size, a resume relative to the run, and memory."""
TOLD = 0.5
"""Seconds beside the start from which on a cost of items is told."""
COLUMNS = {
    "stage": "see --help",
    "images": "of the world",
    "items": "that the stage processes",
    "CPU s": "processor time of the command",
    "kernel": "of this, in the kernel, such as for files",
    "wall s": "which depends on what else the machine does",
    "ms an item": "CPU time without that of a command for 12 images; - is too little",
    "ratio": "of that to the smallest size",
    "MiB": "peak memory",
    "files": "made",
    "again, CPU s": "of the same command with nothing to do",
    "%": "of the first run, both without the start",
    "again, MiB": "its peak memory",
}
"""Of the table, with what they mean."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A stage at a size.

    Attributes:
        stage, unit, items, command: see scale_stages.Stage; the command without the
            folder of the world.
        images: of the world.
        run, again: the first run, and one with nothing to do.
        files: that it made.
        commit: of the package.
    """

    stage: str
    images: int
    unit: str
    items: int
    command: list[str]
    run: Measurement
    again: Measurement
    files: int
    commit: str

    @classmethod
    def read(cls, values: dict[str, Any]) -> Result:
        """From JSON."""
        both = {key: Measurement(**values[key]) for key in ("run", "again")}
        return cls(**(values | both))


class Results:
    """What was measured, in a file.

    Args:
        path: of the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        there = read_json(path)["results"] if path.is_file() else []
        found = map(Result.read, there)
        self.found = {(one.images, one.stage): one for one in found}

    def has(self, images: int, stage: str, command: list[str]) -> bool:
        """Whether a stage was measured with the same command."""
        found = self.found.get((images, stage))
        return found is not None and found.command == command

    def add(self, result: Result) -> None:
        """Keep one, in the file as well."""
        self.found[result.images, result.stage] = result
        rows = [dataclasses.asdict(one) for one in self.found.values()]
        write_json_atomic(self.path, {"machine": machine(), "results": rows})

    def milliseconds(self, stage: str, images: int) -> float | None:
        """Processor time of an item without the start; None is too little to tell."""
        seconds = self._seconds(stage, images)
        items = self.found[images, stage].items - self.found[START, stage].items
        return None if seconds < TOLD else 1000 * seconds / items

    def ratio(self, stage: str, smallest: int, images: int) -> float | None:
        """Of the times of an item at two sizes; None is too little to tell."""
        times = [self.milliseconds(stage, size) for size in (smallest, images)]
        first, last = times
        return None if first is None or last is None else last / first

    def share(self, stage: str, images: int) -> float | None:
        """What a resume takes of the run, both without the start; None as above."""
        one, start = self.found[images, stage], self.found[START, stage]
        again = one.again.cpu_seconds - start.again.cpu_seconds
        seconds = self._seconds(stage, images)
        return None if seconds < TOLD else max(again, 0) / seconds

    def _seconds(self, stage: str, images: int) -> float:
        """Processor time without the start."""
        one, start = self.found[images, stage], self.found[START, stage]
        return one.run.cpu_seconds - start.run.cpu_seconds

    def seconds_again(self, stage: str, images: int) -> float:
        """Processor time of a resume with nothing to do."""
        return self.found[images, stage].again.cpu_seconds

    def gibibytes(self, stage: str, images: int) -> float:
        """Peak memory of both runs."""
        one = self.found[images, stage]
        return max(one.run.peak_gib, one.again.peak_gib)

    def table(self, sizes: Sequence[int], names: Iterable[str]) -> str:
        """In Markdown."""
        rows = [self._row(name, n, min(sizes)) for name in names for n in sizes]
        lines = [[*COLUMNS], ["---", *["---:"] * (len(COLUMNS) - 1)], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _row(self, stage: str, images: int, smallest: int) -> list[str]:
        """The values of COLUMNS."""
        one = self.found[images, stage]
        share = self.share(stage, images)
        return [
            stage,
            f"{images:,}",
            counted(one.items, one.unit),
            f"{one.run.cpu_seconds:.1f}",
            f"{one.run.system_seconds:.1f}",
            f"{one.run.seconds:.1f}",
            shown(self.milliseconds(stage, images), ".3g"),
            shown(self.ratio(stage, smallest, images), ".2f"),
            f"{1024 * one.run.peak_gib:.0f}",
            f"{one.files:,}",
            f"{one.again.cpu_seconds:.1f}",
            shown(None if share is None else 100 * share, ".1f"),
            f"{1024 * one.again.peak_gib:.0f}",
        ]

    def missed(self, sizes: Sequence[int], names: Iterable[str]) -> list[str]:
        """What costs more at the largest size than the goals say."""
        smallest, largest = min(sizes), max(sizes)
        said = []
        for name in names:
            ratio = self.ratio(name, smallest, largest)
            if name in EVEN and ratio is not None and ratio > GROWTH:
                said.append(
                    f"{name}: an item of {largest:,} images costs {ratio:.2f} times "
                    f"one of {smallest:,}, goal: {GROWTH}"
                )
            share = self.share(name, largest)
            if share is not None and share > SHARE:
                said.append(
                    f"{name}: a resume of {largest:,} images costs {100 * share:.1f} % "
                    f"of the run, goal: {100 * SHARE:g} %"
                )
            if (peak := self.gibibytes(name, largest)) > GIB:
                said.append(f"{name}: {peak:.1f} GiB, goal: {GIB:g} GiB")
        return said


def shown(value: float | None, form: str) -> str:
    """A number, or that there is too little to tell it."""
    return "-" if value is None else format(value, form)
