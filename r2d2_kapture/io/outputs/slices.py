"""Outputs that several runs make together, each a slice of the items.

A slice is an ordinary output of its own, locked, resumed and redone as such, in a
folder beside the whole one (see pieces.py): machines on a shared file system never
write one file, and only a rename has to be atomic there. ``--slice all`` moves what the
slices made into the output, and then is an ordinary run, which finds its items done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import ALL, SharedWork, Slice, read_slice
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import (
    output_error,
    read_json,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.ledger import Contents, is_made_with, write_report
from r2d2_kapture.io.outputs.lock import exclusive, refuse_locked
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    json_text,
    parse_manifest,
    read_manifest,
)
from r2d2_kapture.io.outputs.moving import Merge, move_outputs
from r2d2_kapture.io.outputs.pieces import (
    all_slices,
    listed,
    piece,
    refuse_pieces,
    report_of,
    slices_folder,
    slices_in,
)
from r2d2_kapture.io.outputs.slice_reports import OwnWork, with_work_of
from r2d2_kapture.io.outputs.slice_settings import agree_on_count, agree_on_settings
from r2d2_kapture.types import Report

Item = TypeVar("Item")
ITEMS, MANIFEST = "items", "manifest"
"""What the report of a slice says besides: digest of its items, and how it was made."""


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """An output, and what of it a run makes.

    Attributes:
        output: the folder that a ledger opens.
        contents: of it, for messages.
        part: what the run makes; the only slice of one for everything.
        gathers: whether the run puts slices together.
        beside: another output of the command, whose readers look for slices too.
        unit: of the items, in the singular.
    """

    output: Path
    contents: Contents
    part: Slice
    gathers: bool
    beside: Path | None = None
    unit: str = "item"

    @staticmethod
    def read(
        text: str,
        output: Path,
        contents: Contents,
        *,
        unit: str = "item",
        beside: Path | None = None,
    ) -> Sliced:
        """What ``--slice`` says.

        Raises:
            ConfigError: it is no slice.
        """
        return Sliced(
            output=output,
            contents=contents,
            part=read_slice(text, or_all=True),
            gathers=text == ALL,
            beside=beside,
            unit=unit,
        )

    @property
    def is_part(self) -> bool:
        """Whether the run makes a slice."""
        return self.part.count > 1

    @property
    def is_waiting(self) -> bool:
        """Whether there are slices to put together, or what they left to remove."""
        return self.gathers and self.folder.is_dir()

    @property
    def folder(self) -> Path:
        """Of the slices."""
        return slices_folder(self.output)

    def named(self, part: Slice) -> Path:
        """What messages on a slice name."""
        return Path(f"{self.output} (slice {part})")

    def root(self, root: Path) -> Path:
        """Where the run writes what belongs below the root of the whole output."""
        return _written(self.folder, self.part) if self.is_part else root

    def options(self, options: RunOptions) -> RunOptions:
        """How to run: what slices made is not redone as they are put together."""
        if not self.gathers:
            return options
        if options.make_slices is not None:  # it shows the progress
            options = dataclasses.replace(options, progress=False)
        if not options.force:
            return options
        return dataclasses.replace(options, force=False, replace=True)

    @contextmanager
    def open(
        self,
        manifest: Manifest,
        items: Sequence[Item],
        options: RunOptions,
        describe: Callable[[Item], str] = str,
        lacking: Callable[[], int] | None = None,
    ) -> Iterator[SliceRun]:
        """Check what other runs made or make, and lock the slice.

        Args:
            manifest: of the outputs wanted.
            items: all of them, in the order in which they are divided.
            options: of ``options``.
            describe: says of an item what its slice is outdated without.
            lacking: how many of them the output lacks; by default any may be missing.

        Raises:
            OutputError: the output or other slices were made otherwise, another run is
                writing the slice, or ``all`` misses some.
            DatasetError: there are slices, and the run makes everything.
        """
        run = SliceRun(
            sliced=self,
            manifest=manifest,
            describe=lambda part: map(describe, part.of(items)),
            options=options,
        )
        if self.is_part:
            with self._claimed(run):
                yield run
            return
        if self.gathers:
            if options.make_slices is not None:
                left = len(items) if lacking is None else lacking()
                run.made = options.make_slices(run.shared_work(len(items), left))
            run.find_slices()
        else:
            refuse_pieces(self.output)
        yield run

    @contextmanager
    def _claimed(self, run: SliceRun) -> Iterator[None]:
        folder, options = self.folder, run.options
        self.refuse_others(run.manifest, options)
        agree_on_count(folder, self.output, self.part.count)
        agree_on_settings(folder, self.output, self.contents, run.manifest, options)
        mine = piece(folder, self.part)
        with exclusive(mine, self.named(self.part)):
            if options.force:
                report_of(folder, self.part).unlink(missing_ok=True)
            if self.beside is not None:
                _link(slices_folder(self.beside), folder)
            yield
        if run.is_empty:
            shutil.rmtree(mine, ignore_errors=True)

    def refuse_others(self, manifest: Manifest, options: RunOptions) -> None:
        """Refuse an output that is made otherwise, or written by another run.

        Raises:
            OutputError: naming it.
        """
        if self.contents.files:  # else each file says how it was made
            is_made_with(self.output, self.contents, manifest, options)
        refuse_locked(self.output)


@dataclass(kw_only=True)
class SliceRun:
    """A run that makes a slice, or everything.

    Attributes:
        sliced: the output.
        manifest: what it is made with.
        describe: the items of a slice, as text.
        options: of the run.
        gathered: reports of the slices that the run put together.
        is_empty: whether the slice has nothing that the whole output lacks.
        made: details of the report on how slices were made for the run.
    """

    sliced: Sliced
    manifest: Manifest
    describe: Callable[[Slice], Iterable[str]]
    options: RunOptions
    gathered: list[dict[str, Any]] = field(default_factory=list)
    is_empty: bool = False
    made: Mapping[str, Any] = field(default_factory=dict)

    def shared_work(self, items: int, lacking: int) -> SharedWork:
        """The slices that are to be made.

        Args:
            items: their number.
            lacking: how many of them the output lacks, at most.

        Raises:
            OutputError: the output or slices were made otherwise, or another run is
                writing it.
        """
        sliced, options = self.sliced, self.options
        begun = slices_in(sliced.folder)
        sliced.refuse_others(self.manifest, options)
        if begun and not options.replaces:
            first = read_manifest(sliced.folder / FILE_NAME) or self.manifest
            sliced.contents.refuse(sliced.output, self.manifest.differences(first))
        return SharedWork(
            unit=sliced.unit,
            items=items,
            lacking=lacking,
            begun=begun[0].count if begun else None,
            unfinished=self.unfinished,
            output=sliced.output,
            folder=sliced.folder,
        )

    def unfinished(self, count: int) -> list[Slice]:
        """Of so many slices those that are not made, or were made otherwise."""
        every = all_slices(count)
        made = [read_json(report_of(self.sliced.folder, part)) for part in every]
        return sorted([*_missing(every, made), *self._outdated(every, made)])

    def find_slices(self) -> None:
        """Find the slices to put together; there are none where that is done.

        Raises:
            OutputError: one is missing, or was made otherwise.
        """
        sliced = self.sliced
        begun = slices_in(sliced.folder)
        if begun:
            every = all_slices(begun[0].count)
            made = [read_json(report_of(sliced.folder, part)) for part in every]
            self._check(every, made)
            self.gathered = made
        elif not (
            sliced.output / (FILE_NAME if sliced.contents.files else "")
        ).exists():
            raise OutputError(
                f"{sliced.output}: found no slices of it, expected all; run the same "
                f"command with --slice 1/n to n/n, then with --slice {ALL}"
            )

    def gather(self, root: Path, merge: Mapping[str, Merge] = {}) -> None:
        """Move what slices made into the whole output, which is locked.

        Args:
            root: of the whole output.
            merge: what adds files that every slice has, see move_outputs.

        Raises:
            OutputError: a slice is being made, or the file system refused.
        """
        sliced, folder = self.sliced, self.sliced.folder
        if not sliced.gathers:
            return
        _remove_gathered(folder)
        every = all_slices(len(self.gathered))
        for part in every:
            refuse_locked(piece(folder, part), sliced.named(part))
        try:
            for part in every:
                mine = piece(folder, part)
                if mine.is_dir():
                    with exclusive(mine, sliced.named(part)):
                        move_outputs(_written(folder, part), root, merge)
            if sliced.beside is not None:
                slices_folder(sliced.beside).unlink(missing_ok=True)
        except OSError as error:
            raise output_error(sliced.output, error) from error

    def _check(self, every: Sequence[Slice], reports: Sequence[dict[str, Any]]) -> None:
        if missing := _missing(every, reports):
            raise OutputError(
                f"{self.sliced.output}: found {len(every) - len(missing)} of "
                f"{len(every)} slices; {listed(missing)} missing: run the same command "
                f"with these --slice, then with --slice {ALL} again"
            )
        if other := self._outdated(every, reports):
            raise OutputError(
                f"{self.sliced.output}: found slices made with other settings or of "
                f"other inputs; {listed(other)} outdated: run the same command with "
                f"these --slice, then with --slice {ALL} again"
            )

    def _outdated(
        self, every: Sequence[Slice], reports: Sequence[dict[str, Any]]
    ) -> list[Slice]:
        return [
            part
            for part, made in zip(every, reports)
            if made
            and (made.get(ITEMS) != self._digest(part) or not self._is_same(made))
        ]

    def _is_same(self, made: Mapping[str, Any]) -> bool:
        theirs = parse_manifest(
            json_text(made.get(MANIFEST, {})), str(self.sliced.folder)
        )
        same = self.manifest.has_inputs_of(theirs)
        return same and not self.manifest.differences(theirs)

    def _digest(self, part: Slice) -> str:
        digest = hashlib.sha256()
        for text in self.describe(part):
            digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def finish(
        self,
        report: Report,
        path: Path,
        own: OwnWork = OwnWork(),
    ) -> Report:
        """Write the report of the run, or of its slice in the folder of slices.

        Args:
            report: of the run.
            path: of the file beside the whole output.
            own: numbers of the run's own work, to which that of the slices that it put
                together is added.

        Raises:
            OutputError: the file system refused.
        """
        if self.sliced.is_part:
            return self._finish_slice(report)
        if self.gathered:
            report = with_work_of(self.gathered, report, own)
            report.details.update(self.made)
        write_report(path, report)
        if self.sliced.gathers:
            self._remove_slices()
        return report

    def _remove_slices(self) -> None:
        """Remove what is left of slices: until they are in the report, it counts."""
        folder = self.sliced.folder
        try:
            if folder.is_dir():
                os.replace(folder, _trash(folder))
        except OSError as error:
            raise output_error(self.sliced.output, error) from error
        _remove_gathered(folder)

    def _finish_slice(self, report: Report) -> Report:
        sliced = self.sliced
        path = report_of(sliced.folder, sliced.part)
        report = dataclasses.replace(
            report,
            details={"slice": str(sliced.part), **report.details},
            outputs=(path,),
        )
        more = {
            ITEMS: self._digest(sliced.part),
            MANIFEST: self.manifest.to_json(),
        }
        stopped = self.options.strict and report.failed
        known = read_json(path)
        same = known.get(ITEMS) == more[ITEMS] and self._is_same(known)
        if not stopped and (report.done or report.failed or not same):
            write_json_atomic(path, report.to_json() | more)
        return report


def _missing(every: Sequence[Slice], reports: Sequence[dict[str, Any]]) -> list[Slice]:
    return [part for part, made in zip(every, reports) if not made]


def _link(link: Path, folder: Path) -> None:
    """Point from beside another output to the slices, where links can be made."""
    if link != folder:
        with suppress(OSError):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder)


def _written(folder: Path, part: Slice) -> Path:
    """What a slice writes; its lock is beside."""
    return piece(folder, part) / "output"


def _trash(folder: Path) -> Path:
    """Where slices are until they are removed, so that none is missed meanwhile."""
    return folder.with_name(f"{folder.name}.old")


def _remove_gathered(folder: Path) -> None:
    shutil.rmtree(_trash(folder), ignore_errors=True)
