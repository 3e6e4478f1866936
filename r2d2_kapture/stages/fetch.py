"""Fetches the data of the named training sources, or states how to obtain it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, R2D2KaptureError
from r2d2_kapture.io.archives import unpack
from r2d2_kapture.io.download import download
from r2d2_kapture.io.outputs.atomic import read_json, remove_file, write_json_atomic
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.training.sources import FLOW_LIST, SOURCE_FOLDERS
from r2d2_kapture.types import Failure, Report

ARCHIVES = "archives"
"""Folder of archives below the data root, downloaded or copied by hand."""
RECORDS = ".fetched"
REPORT_NAME = "fetch_report.json"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A named source.

    Attributes:
        letter: of the named source.
        what: description.
        licence: of the data, as text.
        archive: file name of the archive.
        unpack_to: folder below the data root that the archive is unpacked into.
        url: of the archive; None where it must be downloaded by hand.
        sha256: of the archive; None where none is published.
        by_hand: how to obtain it without a url.
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
        """Folder of its files below the data root."""
        return SOURCE_FOLDERS[self.letter]


SOURCES = {
    source.letter: source
    for source in (
        DataSource(
            letter="W",
            what="random web photographs",
            licence="depends on the photograph",
            archive="web_images.zip",
            unpack_to=PurePosixPath("web_images"),
            by_hand="use a few thousand photographs of your own (the paper: "
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
            by_hand="obtain it as described in the README of github.com/naver/r2d2",
        ),
        DataSource(
            letter="F",
            what="optical flow between Aachen database images",
            licence="research only, see the README of github.com/naver/r2d2",
            archive="aachen_optical_flow.zip",
            unpack_to=SOURCE_FOLDERS["F"],
            by_hand="obtain it as described in the README of github.com/naver/r2d2, "
            f"convert it to the encoding of training/sources.py ({FLOW_LIST} and .npz "
            "files)",
        ),
    )
}
"""By letter. The first download records a checksum that is None."""


def run(
    *,
    data_root: Path,
    sources: str = "WASF",
    url: Mapping[str, str] | None = None,
    sha256: Mapping[str, str] | None = None,
    keep_archives: bool = False,
    options: RunOptions = RunOptions(),
) -> Report:
    """Fetch, check and unpack the named sources of training data.

    W: web images, A: Aachen, S: style transfer, F: optical flow. Reports what must be
    downloaded by hand. An archive in ``<data root>/archives`` replaces a download. An
    interrupted download resumes when the command is run again; fetched sources are
    skipped.

    Args:
        data_root: folder for the sources.
        sources: letters of the sources.
        url: addresses that replace the built-in ones: '{S: https://...}'.
        sha256: checksums of the archives: '{S: 0123...}'; without one, that of the
            first download is recorded and later ones are compared with it.
        keep_archives: keep archives after unpacking.
        options: force (fetch again), strict and progress are used.

    Raises:
        ConfigError: an unknown letter.
        OutputError: the data root is in use or cannot be written.
    """
    started = time.monotonic()
    urls, checksums = url or {}, sha256 or {}
    for letter in (*sources, *urls, *checksums):
        require(
            letter in SOURCES, f"found source {letter!r}, expected one of {[*SOURCES]}"
        )
    done, skipped, failed, notes = 0, 0, [], {}
    with exclusive(data_root):
        for letter in dict.fromkeys(sources):
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
        return write_report(data_root / REPORT_NAME, report)


def table() -> Sequence[str]:
    """The sources as text, one per line."""
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
        """Whether it is recorded, or the user put files there."""
        folder = self.root / self.source.folder
        has_files = folder.is_dir() and any(folder.iterdir())
        # without a record, files next to an archive may be incomplete
        recorded = "files" in read_json(self.record)
        return has_files and (recorded or not self._is_under_way())

    def _is_under_way(self) -> bool:
        part = self.archive.with_name(self.archive.name + ".part")
        return self.archive.is_file() or part.is_file() or self._is_begun()

    def _is_begun(self) -> bool:
        """Whether a run was stopped after it had begun to download."""
        record = read_json(self.record)
        return bool(record) and "files" not in record

    def run(self, keep_archive: bool, options: RunOptions) -> str:
        """Fetch it.

        Returns:
            A description of the result, for the report.

        Raises:
            DatasetError, OutputError, ConfigError: it cannot be fetched.
        """
        known, checksum_source = self._expected()
        by_hand = self.archive.is_file() and not self._is_begun()
        if not by_hand and self.url is None:
            raise DatasetError(self._by_hand_line())
        if self.archive.is_file():
            sha256 = sha256_of(self.archive)
            if known is not None and sha256 != known:
                raise DatasetError(
                    f"{self.archive}: found SHA-256 {sha256}, expected {known} "
                    f"({checksum_source}); replace the file, or delete it"
                )
        else:
            write_json_atomic(self.record, {"url": self.url, "sha256": known})
            sha256 = download(
                str(self.url), self.archive, sha256=known, progress=options.progress
            ).sha256
        count = unpack(
            self.archive,
            self.root / self.source.unpack_to,
            progress=options.progress,
        )
        self._check_layout()
        if not by_hand and not keep_archive:
            remove_file(self.archive)
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
        checked = checksum_source if known else "recorded, not verified"
        return f"{count} files; SHA-256 {sha256} ({checked})"

    def _expected(self) -> tuple[str | None, str]:
        """The expected checksum and its source."""
        if self.sha256 is not None:
            return self.sha256.lower(), "as published or given"
        recorded = read_json(self.record).get("sha256")
        return recorded, f"as recorded in {self.record}"

    def _by_hand_line(self) -> str:
        source = self.source
        return (
            f"{source.letter} ({source.what}) must be downloaded by hand: "
            f"{source.by_hand}; then copy the files to {self.root / source.folder}, or "
            f"the archive to {self.archive} and run again; or give its address with "
            "--url"
        )

    def _check_layout(self) -> None:
        folder = self.root / self.source.folder
        if not (folder.is_dir() and any(folder.iterdir())):
            raise DatasetError(
                f"{self.archive}: unpacked into {self.root / self.source.unpack_to}, "
                f"but {folder} is missing; move its files there"
            )
