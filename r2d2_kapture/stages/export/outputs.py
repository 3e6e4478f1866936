"""Where an export goes: a file, with notes hidden beside it, or a folder."""

from __future__ import annotations

import dataclasses
import glob
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.check import database_sha256
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.io.outputs.atomic_folder import owned
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    is_made_with,
    open_ledger,
    rebuilding,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.stages.export.formats import Format, Written
from r2d2_kapture.stages.export.inputs import Inputs
from r2d2_kapture.stages.export.source import Source
from r2d2_kapture.types import Report

STATE_NAME = ".state.json"
REPORT_NAME = "report.json"
DIGESTS = "sha256"
"""In the report of a folder: of its files."""
FILE = Contents(what="export", files=())


@dataclass(frozen=True, kw_only=True)
class Export:
    """A source that goes to an output in a format.

    Attributes:
        source: what is exported.
        form: the format, open.
        inputs: what of it the user gave.
        settings: of the manifest, besides those of source and format.
        output: file or folder.
        started: by time.monotonic.
        options: force and progress are used.
    """

    source: Source
    form: Format
    inputs: Inputs
    settings: dict[str, Any]
    output: Path
    started: float
    options: RunOptions

    def to_file(self) -> Report:
        """Write one file, which appears when it is complete.

        How it was made stands in a hidden folder next to it.

        Raises:
            OutputError: a file that no export wrote, or one made with other settings,
                without force; or the file system refused.
        """
        notes = self.output.with_name(f".{self.output.name}.export")
        contents = dataclasses.replace(FILE, named=self.output)
        finished, manifest = self._digests(notes)
        state = DatabaseState(path=notes / STATE_NAME, database=self.output)
        self._refuse_others(state)
        if self._is_done(notes, contents, manifest):
            kept = state.is_current(finished.inputs)
            earlier = finished.report(self.started, checked=kept)
            if earlier is not None:
                return earlier
        with open_ledger(notes, contents, manifest, self.options):
            if self.output.exists() and not state.is_ours():
                state.adopt()
            written = self.form.write(
                self.output,
                lambda complete: state.expect(complete, finished.inputs),
                progress=self.options.progress,
            )
            state.settle()
            report = self._report(written)
            # images that failed are tried again
            return report if report.failed else finished.note(report, state.files)

    def to_folder(self, contents: Contents) -> Report:
        """Fill a folder, which appears when it is complete.

        Args:
            contents: files of the format.

        Raises:
            OutputError: as ``to_file``, of a folder.
        """
        finished, manifest = self._digests(self.output)
        done = self._is_done(self.output, contents, manifest)
        if done and (earlier := finished.report(self.started)) is not None:
            return earlier
        intact = self._check_unchanged(contents)
        if done and intact:
            earlier = finished.report(self.started, checked=True)
            if earlier is not None:
                return earlier
        ours = (*contents.files, *map(glob.escape, self._earlier()))
        replaced = dataclasses.replace(contents, files=ours)
        with rebuilding(self.output, replaced, manifest) as folder:
            written = self.form.write(
                folder, lambda complete: None, progress=self.options.progress
            )
            made = sorted(p.relative_to(folder) for p in owned(folder, ["**/*"]))
            digests = {str(path): database_sha256(folder / path) for path in made}
            report = self._report(written)
            write_report(folder / REPORT_NAME, report, {DIGESTS: digests})
        if report.failed:  # these are tried again
            return report
        return finished.note(report, map(self.output.joinpath, made))

    def _check_unchanged(self, contents: Contents) -> bool:
        """Whether all files of an earlier export are there; refuse changed ones."""
        digests = self._earlier()
        there = [name for name in digests if (self.output / name).is_file()]
        for name in there:
            path = self.output / name
            changed = database_sha256(path) != digests[name]
            if changed and not self.options.replaces:
                raise contents.refusal(path, "a file that was changed since its export")
        return bool(digests) and len(there) == len(digests)

    def _earlier(self) -> dict[str, Any]:
        """Files of an earlier export, of any format, with their digests."""
        digests = read_json(self.output / REPORT_NAME).get(DIGESTS)
        return digests if isinstance(digests, dict) else {}

    def _digests(self, notes: Path) -> tuple[Finished, Manifest]:
        settings = {
            STAGE: "export",
            **self.settings,
            **self.source.settings,
            **self.form.settings,
        }
        files = [*self.source.files, *self.form.files]
        finished = Finished.of(notes / FINISHED_NAME, settings, files)
        manifest = Manifest(
            model={},
            settings=settings,
            versions=package_versions(),
            inputs={
                self.inputs.flag: (str(self.inputs.root.resolve()), finished.inputs)
            },
        )
        return finished, manifest

    def _is_done(self, notes: Path, contents: Contents, manifest: Manifest) -> bool:
        done = is_made_with(notes, contents, manifest, self.options)
        return done and not self.options.force

    def _refuse_others(self, state: DatabaseState) -> None:
        """Refuse a file that no export wrote, or that has been changed since."""
        if self.output.is_dir():
            found = "a folder, expected a file"
            raise FILE.refusal(self.output, found, forcible=False)
        if self.output.exists() and not self.options.replaces and not state.is_ours():
            found = "a file that no export wrote, or that has been changed since"
            raise FILE.refusal(self.output, found)

    def _report(self, written: Written) -> Report:
        return Report(
            stage="export",
            unit="photograph",
            done=self.source.image_count - len(written.failed),
            skipped=0,
            failed=(*self.source.dataset.left_out, *written.failed),
            seconds=time.monotonic() - self.started,
            outputs=(self.output,),
            details=self.source.details | dict(written.details),
            warnings=(*written.warnings, *self.source.warnings),
        )
