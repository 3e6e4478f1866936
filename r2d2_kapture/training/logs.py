"""The logs of a run: CSV rows, TensorBoard curves, and a line a minute.

A run that resumes cuts the rows after the step that it resumes from, since it takes
those steps again. A log that cannot be written never stops the training.
"""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STEP = "step"


class CsvLog:
    """A table that grows by rows; its first column is the step.

    Args:
        path: of the file; its folder exists. It is made with the first row.
        last_step: rows after it are cut off, and so is a last row that is not whole.

    Raises:
        OSError: the file cannot be cut.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self._path = path
        self._columns: list[str] = []
        if path.exists():
            self._cut(last_step)

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row; columns that the file does not have are left out.

        Raises:
            OSError: the file system refused.
        """
        text = io.StringIO()
        new = not self._columns
        self._columns = self._columns or list(row)
        writer = csv.DictWriter(
            text, self._columns, extrasaction="ignore", lineterminator="\n"
        )
        if new:
            writer.writeheader()
        writer.writerow(dict(row))
        # in one piece, so that a reader sees whole rows
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())

    def _cut(self, last_step: int) -> None:
        kept = 0
        with self._path.open("r+b") as file:
            for line in file:
                fields = line.decode("utf-8", "replace").rstrip("\n").split(",")
                whole = line.endswith(b"\n")
                if not self._columns and whole and fields[0] == STEP:
                    self._columns = fields
                elif not (whole and _at_most(fields[0], last_step)):
                    break
                kept += len(line)
            file.truncate(kept)


def _at_most(text: str, last_step: int) -> bool:
    return text.isdecimal() and int(text) <= last_step


class TensorBoardLog:
    """Curves for TensorBoard: an event file that grows by the values of one step.

    TensorBoard's own writer works in a thread, where a full disk is a traceback.

    Args:
        folder: of its event files.
        last_step: what was logged after it is hidden.

    Raises:
        ImportError: TensorBoard is missing.
        OSError: the file system refused.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from torch.utils.tensorboard import RecordWriter

        self._writer, self._event, self._summary = RecordWriter, event_pb2, summary_pb2
        folder.mkdir(exist_ok=True)
        name = f"{time.time():.6f}.{platform.node()}.{os.getpid()}"
        self._path = folder / f"events.out.tfevents.{name}"
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append(file_version="brain.Event:2")
        self._append(step=last_step + 1, session_log=start)

    def append(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step.

        Raises:
            OSError: the file system refused.
        """
        values_of = self._summary.Summary.Value
        found = [
            values_of(tag=f"{group}/{k}", simple_value=v) for k, v in values.items()
        ]
        self._append(step=step, summary=self._summary.Summary(value=found))

    def _append(self, **content: Any) -> None:
        event = self._event.Event(wall_time=time.time(), **content)
        with self._path.open("ab") as file:
            self._writer(file).write(event.SerializeToString())


def open_tensorboard(
    folder: Path, last_step: int, announce: Callable[[str], None]
) -> TensorBoardLog | None:
    """Open TensorBoard's log; where the package is missing, warn and continue without.

    Args:
        folder: of its event files.
        last_step: what was logged after it is hidden.
        announce: takes the note.

    Raises:
        OSError: the file system refused.
    """
    try:
        return TensorBoardLog(folder, last_step)
    except ImportError as error:
        announce(f"no TensorBoard log ({error}); to have one: pip install tensorboard")
        return None


class Mean:
    """Means of values since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add one value a name."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means by name, empty where nothing was added; then start anew."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class RunLog:
    """Everything that a run logs while it trains.

    Args:
        folder: of ``log.csv``, ``validation.csv`` and ``tensorboard/``; it exists.
        last_step: that the run resumes from, 0 at its start.
        announce: takes a line for the terminal.

    Raises:
        OSError: a log cannot be begun, or one of an earlier run cannot be cut.
    """

    def __init__(
        self, folder: Path, last_step: int, announce: Callable[[str], None]
    ) -> None:
        self.announce = announce
        self._tables = {
            name: CsvLog(folder / f"{name}.csv", last_step)
            for name in ("log", "validation")
        }
        self._tensorboard = open_tensorboard(
            folder / "tensorboard", last_step, announce
        )
        self._broken = False

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Log the means of some steps that end with this one."""
        self._write("log", "train", step, values)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Log and announce a validation after a step."""
        self._write("validation", "validation", step, values)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.announce(f"step {step}: validation  {text}")

    def _write(
        self, table: str, group: str, step: int, values: Mapping[str, float]
    ) -> None:
        rounded = {name: _rounded(value) for name, value in values.items()}
        try:
            self._tables[table].append({STEP: step, **rounded})
            if self._tensorboard is not None:
                self._tensorboard.append(group, step, values)
            self._broken = False
        except OSError as error:
            if not self._broken:  # once, not at every row
                self.announce(f"the log cannot be written: {error}; training continues")
            self._broken = True


def _rounded(value: float) -> float:
    """Six digits, which is what a curve needs."""
    return float(f"{value:.6g}") if math.isfinite(value) else value


def progress_line(
    step: int, total_steps: int, values: Mapping[str, float], seconds_per_step: float
) -> str:
    """The line of a minute: where the run is, its means, and when it will end."""
    means = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
    left = _duration(seconds_per_step * (total_steps - step))
    return f"step {step}/{total_steps}  {means}  {seconds_per_step:.3g} s/step  {left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min left"
