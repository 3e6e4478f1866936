"""Where an exported model goes: its files, a report beside them, and hidden notes."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.outputs.atomic import (
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    is_made_with,
    open_ledger,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import Report

FILE = Contents(what="model", files=())
STAGE_NAME = "export_model"
DIGESTS_NAME, WRITTEN = "sha256.json", "written"
"""Of the note on files that exports wrote, and of what it lists."""
Made = tuple[Mapping[str, bytes], Report, Mapping[str, Any]]
"""Files by their suffixes, the report, and values for the report's file alone."""


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """The files of an exported model.

    Attributes:
        path: the file that a runtime is given.
        suffixes: of all files, as they are written.
        options: force is used.
    """

    path: Path
    suffixes: tuple[str, ...]
    options: RunOptions

    def write(
        self, manifest: Manifest, inputs: list[Path], make: Callable[[], Made]
    ) -> Report:
        """Make the model and write it, unless it is there.

        Args:
            manifest: how it is made.
            inputs: files that it is made of.
            make: makes it.

        Raises:
            OutputError: files that no export wrote, or made with other settings,
                without force; or the file system refused.
        """
        started = time.monotonic()
        notes = self.path.with_name(f".{self.path.name}.export")
        contents = dataclasses.replace(FILE, named=self.path)
        finished = Finished.of(notes / FINISHED_NAME, manifest.settings, inputs)
        self._refuse_others(contents, notes)
        done = is_made_with(notes, contents, manifest, self.options)
        if done and not self.options.force:
            earlier = finished.report(started, checked=self._is_whole(notes))
            if earlier is not None:
                return earlier
        files, report, more = make()
        with open_ledger(notes, contents, manifest, self.options):
            # both, since a kill may come before these files are replaced, or after
            known = {*self._digests(), *map(_sha256, files.values())}
            write_json_atomic(notes / DIGESTS_NAME, {WRITTEN: sorted(known)})
            for suffix, data in files.items():
                write_bytes_atomic(self.path.with_suffix(suffix), data)
            report = dataclasses.replace(report, seconds=time.monotonic() - started)
            write_report(self.report_path, report, more)
            return finished.note(report, [*self.files, self.report_path])

    @property
    def files(self) -> tuple[Path, ...]:
        """Of the model, the one that a runtime is given first."""
        return tuple(map(self.path.with_suffix, reversed(self.suffixes)))

    @property
    def report_path(self) -> Path:
        """Of the report as JSON, and the metadata."""
        return self.path.with_name(f"{self.path.name}.json")

    def _digests(self) -> list[str]:
        """Of the files that are there."""
        return [_sha256(file.read_bytes()) for file in self.files if file.is_file()]

    def _is_whole(self, notes: Path) -> bool:
        """Whether all files are there as an export wrote them."""
        there = all(path.is_file() for path in (*self.files, self.report_path))
        return there and self._are_ours(notes)

    def _are_ours(self, notes: Path) -> bool:
        """Whether exports wrote all files that are there."""
        known = read_json(notes / DIGESTS_NAME).get(WRITTEN, [])
        return set(self._digests()) <= set(known)

    def _refuse_others(self, contents: Contents, notes: Path) -> None:
        """Refuse files that no export wrote, or that have been changed since."""
        for path in (*self.files, self.report_path):
            if path.is_dir():
                found = f"a folder '{path.name}', expected a file"
                raise contents.refusal(path, found, forcible=False)
        if self.options.replaces:
            return
        if not self._are_ours(notes):
            found = "a file that no export wrote, or that has been changed since"
            raise contents.refusal(self.path, found)
        report = read_json(self.report_path)
        if self.report_path.exists() and report.get(STAGE) != STAGE_NAME:
            raise contents.refusal(self.path, f"a file of others, {self.report_path}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
