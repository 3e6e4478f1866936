"""What scale.py measured: a file that grows, a table, and what was missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Measurement, machine

from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic

START = 12
"""Images of the world that shows what it takes to start."""
EVEN = ("extract", "match", "verify", "localize", "export")
"""Stages whose items must not cost more the more there are."""
GROWTH, SHARE, GIB = 1.2, 0.01, 4.0
"""The most that the largest size may cost: an item relative to the smallest size, a
resume relative to the run, and memory."""
HEADS = [
    *(
        "stage",
        "images",
        "items",
        "CPU s",
        "of the kernel",
        "wall s",
        "ms an item",
        "ratio",
    ),
    *("MiB", "files", "resume, CPU s", "%", "MiB"),
]


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

    def milliseconds(self, stage: str, images: int) -> float:
        """Processor time of an item, without what it takes to start."""
        one, start = self.found[images, stage], self.found[START, stage]
        seconds = one.run.cpu_seconds - start.run.cpu_seconds
        return 1000 * seconds / (one.items - start.items)

    def milliseconds_again(self, stage: str, images: int) -> float:
        """The same of a resume with nothing to do."""
        one, start = self.found[images, stage], self.found[START, stage]
        seconds = one.again.cpu_seconds - start.again.cpu_seconds
        return 1000 * seconds / (one.items - start.items)

    def share(self, stage: str, images: int) -> float:
        """What a resume takes of the run, both without the start."""
        again = self.milliseconds_again(stage, images)
        return again / self.milliseconds(stage, images)

    def gibibytes(self, stage: str, images: int) -> float:
        """Peak memory of both runs."""
        one = self.found[images, stage]
        return max(one.run.peak_gib, one.again.peak_gib)

    def table(self, sizes: Sequence[int], names: Iterable[str]) -> str:
        """In Markdown."""
        rows = [self._row(name, n, min(sizes)) for name in names for n in sizes]
        lines = [HEADS, ["---", *["---:"] * (len(HEADS) - 1)], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _row(self, stage: str, images: int, smallest: int) -> list[str]:
        """The values of HEADS."""
        one = self.found[images, stage]
        cost, first = (self.milliseconds(stage, n) for n in (images, smallest))
        return [
            stage,
            f"{images:,}",
            f"{one.items:,} {one.unit}",
            f"{one.run.cpu_seconds:.1f}",
            f"{one.run.system_seconds:.1f}",
            f"{one.run.seconds:.1f}",
            f"{cost:.3g}",
            f"{cost / first:.2f}",
            f"{1024 * one.run.peak_gib:.0f}",
            f"{one.files:,}",
            f"{one.again.cpu_seconds:.1f}",
            f"{100 * self.share(stage, images):.1f}",
            f"{1024 * one.again.peak_gib:.0f}",
        ]

    def missed(self, sizes: Sequence[int], names: Iterable[str]) -> list[str]:
        """What costs more at the largest size than it may."""
        smallest, largest = min(sizes), max(sizes)
        said = []
        for name in names:
            ratio = self.milliseconds(name, largest) / self.milliseconds(name, smallest)
            if name in EVEN and ratio > GROWTH:
                said.append(f"{name}: an item costs {ratio:.2f} times as much")
            if (share := self.share(name, largest)) > SHARE:
                said.append(f"{name}: a resume costs {100 * share:.1f} % of the run")
            if (peak := self.gibibytes(name, largest)) > GIB:
                said.append(f"{name}: {peak:.1f} GiB")
        return said
