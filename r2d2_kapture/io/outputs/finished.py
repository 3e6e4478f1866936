"""The end of a run: a resume with nothing to do reads no input, but sizes and times.

``.finished.json`` beside the outputs holds a digest of the settings and of the sizes
and times of all inputs, those of all outputs (of outputs that are one or more an item,
their digest too), and the report. Where one differs, the stage compares contents, as it
does without the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import r2d2_kapture
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.types import Failure, Report

FINISHED_NAME = ".finished.json"
NO_FILE = "-"
BLOCK_FILES = 1000
"""Whose stamps are digested at once."""

Files = Iterable[Path | str]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The inputs of a run, and the place of the note about its end.

    Attributes:
        path: of the note.
        settings: digest of what is done with the inputs.
        inputs: digest of all, taken before the inputs are read.
        source: one of several whose notes are in one file; empty for a note alone.
    """

    path: Path
    settings: str
    inputs: str
    source: str = ""

    @staticmethod
    def of(path: Path, settings: object, files: Files, source: str = "") -> Finished:
        """The inputs of a run that begins.

        Args:
            path: of the note.
            settings: plain values that change outputs or the report.
            files: inputs, which need not exist.
            source: see Finished.
        """
        # with the path: a copy of outputs is not what the note is about
        text = json.dumps(settings, default=str)
        made_by = f"{r2d2_kapture.__version__} {os.fsdecode(path.resolve())} "
        return Finished(
            path=path,
            settings=_digest((), text),
            inputs=_digest(files, made_by + text),
            source=source,
        )

    def report(
        self, started: float, *, checked: bool = False, items: Files = ()
    ) -> Report | None:
        """The report of an earlier run whose inputs and outputs are as they were.

        Args:
            started: when this run did, by time.monotonic.
            checked: whether the caller knows that the outputs are, by their content.
            items: outputs of items, in the order in which they were noted.

        Returns:
            Everything counts as done before; None if anything has changed.
        """
        note = self._noted
        try:
            if note["inputs"] != self.inputs:
                return None
            stamps = {Path(path): stamp for path, stamp in note["outputs"].items()}
            if not checked and (
                any(_stamp(path) != stamp for path, stamp in stamps.items())
                or note.get("items") != _digest(items)
            ):
                return None
            return _to_report(note["report"], started)
        except (TypeError, KeyError, AttributeError, DatasetError):
            return None  # also of outputs that cannot be read

    def note(self, report: Report, outputs: Files, items: Files = ()) -> Report:
        """Note the end of a run.

        Args:
            report: of the run; the next one repeats it.
            outputs: files whose loss or change must be noticed.
            items: many more of them, of which only a digest is kept.

        Raises:
            OutputError: the file system refused, unless nothing was done.
        """
        again = dataclasses.replace(
            report, done=0, skipped=report.done + report.skipped, seconds=0
        )
        values = dataclasses.asdict(again)
        note = {
            "settings": self.settings,
            "inputs": self.inputs,
            "outputs": {str(path): _stamp(path) for path in outputs},
            "items": _digest(items),
            "report": values | {"outputs": list(map(str, report.outputs))},
        }
        others = read_json(self.path) if self.source else {}
        try:
            write_json_atomic(
                self.path, others | {self.source: note} if self.source else note
            )
        except OutputError:  # finished work may be where nothing can be written
            if report.done:
                raise
        return report

    @property
    def _noted(self) -> dict[str, Any]:
        """The note that is there; empty without one."""
        content = read_json(self.path)
        note = content.get(self.source) if self.source else content
        return note if isinstance(note, dict) else {}

    def missing(self) -> set[Path]:
        """Outputs beside the note, of the same settings, that are gone since."""
        note = self._noted
        if note.get("settings") != self.settings:
            return set()
        stamps: dict[str, str] = note.get("outputs", {})
        gone = (path for path in stamps if stamps[path] != _stamp(path) == NO_FILE)
        beside = self.path.parent
        return {path for path in map(Path, gone) if path.is_relative_to(beside)}

    def is_another(self) -> bool:
        """Whether the note is about other settings, such as another list of pairs."""
        noted = self._noted.get("settings")
        return noted is not None and noted != self.settings


def _digest(files: Files, text: str = "") -> str:
    """Digest of a text, and of names and stamps of files."""
    digest = hashlib.sha256(text.encode())
    stamped = (f"{file} {_stamp(file)}\n" for file in files)
    while lines := "".join(itertools.islice(stamped, BLOCK_FILES)):
        digest.update(lines.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamp(path: Path | str) -> str:
    """What changes with a file; that of a pipe is never the same."""
    try:
        found = os.stat(path)
    except OSError:
        return NO_FILE
    if not stat.S_ISREG(found.st_mode):
        return f"read at {time.time_ns()}"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _to_report(values: dict[str, Any], started: float) -> Report:
    changed = {
        "failed": tuple(Failure(**failure) for failure in values["failed"]),
        "outputs": tuple(map(Path, values["outputs"])),
        "warnings": tuple(values["warnings"]),
        "stages": (),
        "seconds": time.monotonic() - started,
    }
    return Report(**(values | changed))
