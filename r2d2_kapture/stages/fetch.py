"""Fetches the data of the named training sources, or says how to get it by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, R2D2KaptureError
from r2d2_kapture.io.archives import unpack
from r2d2_kapture.io.download import download, sha256_of
from r2d2_kapture.io.outputs.atomic import output_error, write_json_atomic
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.training.sources import FLOW_LIST, SOURCE_FOLDERS
from r2d2_kapture.types import Failure, Report

ARCHIVES = "archives"
"""Folder below the data root of the archives, fetched or put there by hand."""
RECORDS = ".fetched"
REPORT_NAME = "fetch_report.json"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One row of the table of sources.

    Attributes:
        letter: of the named source.
        what: description.
        licence: of the data, as text.
        archive: file name of the archive.
        unpack_to: folder below the data root that the archive is unpacked into.
        url: of the archive; None where it must be downloaded by hand.
        sha256: of the archive; None where none is published.
        by_hand: where to get it without a url.
    """

    letter: str
    what: str
    licence: str
    archive: str
    unpack_to: PurePosixPath
    url: str | None = None
    sha256: str | None = None
    by_hand: str = ""

    @property
    def folder(self) -> PurePosixPath:
        """Where its files lie below the data root."""
        return SOURCE_FOLDERS[self.letter]


SOURCES = {
    source.letter: source
    for source in (
        DataSource(
            letter="W",
            what="random web photographs",
            licence="that of each photograph",
            archive="web_images.zip",
            unpack_to=PurePosixPath("web_images"),
            by_hand="take any few thousand photographs that you may use (the paper: "
            "distractors of revisitop, cmp.felk.cvut.cz/revisitop)",
        ),
        DataSource(
            letter="A",
            what="Aachen Day-Night, database and query images",
            licence="research only, see visuallocalization.net",
            archive="database_and_query_images.zip",
            unpack_to=PurePosixPath("aachen"),
            url="https://data.ciirc.cvut.cz/public/projects/2020VisualLocalization/"
            "Aachen-Day-Night/images/database_and_query_images.zip",
            by_hand="see visuallocalization.net",
        ),
        DataSource(
            letter="S",
            what="Aachen database images in the style of night-time queries",
            licence="research only, see the README of github.com/naver/r2d2",
            archive="aachen_style_transfer.zip",
            unpack_to=SOURCE_FOLDERS["S"],
            by_hand="get it as the README of github.com/naver/r2d2 says",
        ),
        DataSource(
            letter="F",
            what="optical flow between Aachen database images",
            licence="research only, see the README of github.com/naver/r2d2",
            archive="aachen_optical_flow.zip",
            unpack_to=SOURCE_FOLDERS["F"],
            by_hand="get it as the README of github.com/naver/r2d2 says, convert it to "
            f"the encoding of training/sources.py ({FLOW_LIST} and .npz files)",
        ),
    )
}
"""By letter. A checksum that is None is unknown here: the first download records it."""


def run(
    *,
    data_root: Path,
    letters: str = "WASF",
    urls: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | None = None,
    keep_archives: bool = False,
    options: RunOptions = RunOptions(),
) -> Report:
    """Fetch, check and unpack sources.

    What is unpacked and recorded is skipped. An archive in ``<data root>/archives`` is
    used in place of a download. What cannot be fetched is a failure whose reason says
    in one line what to do.

    Args:
        data_root: folder of the sources.
        letters: of the sources.
        urls: letter -> address in place of the table's.
        checksums: letter -> SHA-256 in place of the table's.
        keep_archives: do not delete an archive that was downloaded and unpacked.
        options: force (fetch again), strict and progress are used.

    Raises:
        ConfigError: an unknown letter.
        OutputError: the data root is in use or cannot be written.
    """
    started = time.monotonic()
    urls, checksums = urls or {}, checksums or {}
    for letter in (*letters, *urls, *checksums):
        require(
            letter in SOURCES, f"found source {letter!r}, expected one of {[*SOURCES]}"
        )
    done, skipped, failed, notes = 0, 0, [], {}
    with exclusive(data_root):
        for letter in dict.fromkeys(letters):
            fetch = _Fetch(
                source=SOURCES[letter],
                root=data_root,
                url=urls.get(letter, SOURCES[letter].url),
                sha256=checksums.get(letter, SOURCES[letter].sha256),
            )
            if not options.force and fetch.is_done():
                skipped += 1
                continue
            try:
                notes[letter] = fetch.run(keep_archives, options)
                done += 1
            except R2D2KaptureError as error:
                if options.strict:
                    raise
                failed.append(Failure(name=letter, reason=str(error)))
        report = Report(
            stage="fetch",
            unit="data set",
            done=done,
            skipped=skipped,
            failed=tuple(failed),
            seconds=time.monotonic() - started,
            outputs=(data_root,),
            details=notes,
        )
        write_json_atomic(data_root / REPORT_NAME, report.to_json())
    return report


def table() -> Sequence[str]:
    """The sources as text, one line each."""
    return [
        f"{source.letter}: {source.what}; licence: {source.licence}; goes to "
        f"{source.folder}; {source.url or 'by hand: ' + source.by_hand}"
        for source in SOURCES.values()
    ]


@dataclass(frozen=True, kw_only=True)
class _Fetch:
    """One source on its way to a data root."""

    source: DataSource
    root: Path
    url: str | None
    sha256: str | None

    @property
    def archive(self) -> Path:
        return self.root / ARCHIVES / self.source.archive

    @property
    def record(self) -> Path:
        return self.root / RECORDS / f"{self.source.letter}.json"

    def is_done(self) -> bool:
        """Whether it is recorded, or somebody put files there."""
        folder = self.root / self.source.folder
        has_files = folder.is_dir() and any(folder.iterdir())
        # without a record, files beside an archive may be half of it
        return has_files and (self.record.is_file() or not self._is_under_way())

    def _is_under_way(self) -> bool:
        part = self.archive.with_name(self.archive.name + ".part")
        return self.archive.is_file() or part.is_file()

    def run(self, keep_archive: bool, options: RunOptions) -> str:
        """Fetch it.

        Returns:
            What was found, for the report.

        Raises:
            DatasetError, OutputError, ConfigError: it is not there, and why.
        """
        known, checksum_source = self._expected()
        by_hand = self.archive.is_file()
        if not by_hand and self.url is None:
            raise DatasetError(self._by_hand_line())
        if by_hand:
            sha256 = sha256_of(self.archive)
            if known is not None and sha256 != known:
                raise DatasetError(
                    f"{self.archive}: found SHA-256 {sha256}, expected {known} "
                    f"({checksum_source}); put another file there, or delete it"
                )
        else:
            sha256 = download(
                str(self.url), self.archive, sha256=known, progress=options.progress
            ).sha256
        count = unpack(
            self.archive,
            self.root / self.source.unpack_to,
            progress=options.progress,
        )
        self._check_layout()
        write_json_atomic(
            self.record,
            {
                "url": None if by_hand else self.url,
                "archive": self.source.archive,
                "sha256": sha256,
                "licence": self.source.licence,
                "files": count,
            },
        )
        if not by_hand and not keep_archive:
            self._delete_archive()
        checked = (
            checksum_source if known else "recorded: none was known to compare it with"
        )
        return f"{count} files; SHA-256 {sha256} ({checked})"

    def _expected(self) -> tuple[str | None, str]:
        """The checksum to expect, and whose it is."""
        if self.sha256 is not None:
            return self.sha256.lower(), "as published or given"
        recorded = _read_record(self.record).get("sha256")
        return recorded, f"as recorded in {self.record}"

    def _by_hand_line(self) -> str:
        source = self.source
        return (
            f"{source.letter} ({source.what}) must be downloaded by hand: "
            f"{source.by_hand}; then put the files into {self.root / source.folder}, "
            f"or the archive at {self.archive} and run again; or name its address with "
            "--url"
        )

    def _check_layout(self) -> None:
        folder = self.root / self.source.folder
        if not (folder.is_dir() and any(folder.iterdir())):
            raise DatasetError(
                f"{self.archive}: unpacked into {self.root / self.source.unpack_to}, "
                f"but {folder} is not there; move its files there"
            )

    def _delete_archive(self) -> None:
        try:
            self.archive.unlink()
        except OSError as error:
            raise output_error(self.archive, error) from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
