"""Matches of kapture: one file of rows (index 1, index 2, score) for each pair.

kapture 1.1 (kapture_format.adoc): float64 rows without a header, at
``reconstruction/matches/<keypoints type>/<image 1>.overlapping/<image 2>.matches`` with
image 1 before image 2 in order of code points, or as members of ``matches.tar``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.kapture.feature_table import index_archive
from r2d2_kapture.io.kapture.followed_features import STATES_NAME, following
from r2d2_kapture.io.kapture.pairs import sorted_pair
from r2d2_kapture.io.outputs.atomic import output_error, remove_file
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger, write_item
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.pieces import refuse_pieces
from r2d2_kapture.types import PairMatches

OVERLAPPING = ".overlapping/"
SUFFIX = ".matches"
ARCHIVE_NAME = "matches.tar"
ROW_BYTES = 3 * np.dtype(np.float64).itemsize
CONTENTS = Contents(
    what="matches",
    files=(f"**/*{SUFFIX}", ARCHIVE_NAME, STATES_NAME, "*_report.json", "*.jsonl"),
    by_name=True,
)


def match_name(pair: tuple[str, str]) -> str:
    """Path of a sorted pair's file below the folder of its type."""
    return f"{pair[0]}{OVERLAPPING}{pair[1]}{SUFFIX}"


def match_bytes(matches: PairMatches) -> bytes:
    """The rows of a file of matches from the first image of a sorted pair."""
    rows = np.column_stack([matches.indices, matches.scores])
    return rows.astype("<f8").tobytes()


def matches_folder(root: Path, keypoints_type: str) -> Path:
    """The folder of a type's matches in a kapture dataset."""
    return root / "reconstruction" / "matches" / keypoints_type


@dataclass(frozen=True, kw_only=True)
class MatchTable:
    """Matches by pair of names; safe to read from several threads.

    Attributes:
        keypoints_type: that the indices count.
        folders: where they are, with the members of an archive or None; a pair's
            matches come from the first that has them.
    """

    keypoints_type: str
    folders: tuple[tuple[Path, Mapping[str, tuple[int, int]] | None], ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Sorted pairs that have matches, also empty ones, in order of names."""
        found = set()
        for folder, members in self.folders:
            for name in _files(folder) if members is None else members:
                pair = _pair_of(name)
                if pair is not None:
                    found.add(pair)
        return sorted(found)

    def read(self, image1: str, image2: str) -> PairMatches | None:
        """Matches from image 1 to image 2 in that order; None where there are none.

        Raises:
            FeatureFormatError: the file is no whole number of rows, or its rows are
                no indices.
        """
        pair = sorted_pair(image1, image2)
        for path, offset, size in self.places(pair):
            matches = _read_rows(path, offset, size, pair)
            return matches if pair == (image1, image2) else matches.swapped()
        return None

    def count(self, image1: str, image2: str) -> int | None:
        """Matches of a pair, by the size of its file; None where there are none."""
        for _, _, size in self.places(sorted_pair(image1, image2)):
            return size // ROW_BYTES
        return None

    def files(self, pairs: Collection[tuple[str, str]]) -> Iterator[str]:
        """Where the rows of sorted pairs are, or would be."""
        for folder, members in self.folders:
            names = map(match_name, pairs) if members is None else [ARCHIVE_NAME]
            yield from (os.path.join(folder, name) for name in names)

    def places(self, pair: tuple[str, str]) -> Iterator[tuple[Path, int, int]]:
        """File, offset and bytes of a sorted pair's rows, of each folder with some."""
        name = match_name(pair)
        for folder, members in self.folders:
            if members is None:
                path = os.path.join(folder, name)
                size = _size_of(path)
                if size is not None:
                    yield Path(path), 0, size
            elif name in members:
                yield folder / ARCHIVE_NAME, *members[name]


def find_matches(roots: Sequence[Path], keypoints_type: str) -> MatchTable:
    """Find the matches of a keypoints type in kapture folders; there may be none.

    Args:
        roots: kapture datasets, or folders with ``reconstruction/matches`` alone.
        keypoints_type: whose matches.

    Raises:
        DatasetError: an archive is unreadable or unsafe.
    """
    folders = [matches_folder(root, keypoints_type) for root in dict.fromkeys(roots)]
    archives = {folder: folder / ARCHIVE_NAME for folder in folders if folder.is_dir()}
    return MatchTable(
        keypoints_type=keypoints_type,
        folders=tuple(
            (folder, index_archive(archive) if archive.is_file() else None)
            for folder, archive in archives.items()
        ),
    )


def open_matches(roots: Sequence[Path], keypoints_type: str) -> MatchTable:
    """The matches of a keypoints type, which must be there in each of the folders.

    Args:
        roots, keypoints_type: as for find_matches.

    Raises:
        DatasetError: one of the folders is not there or has none, or as for
            find_matches.
    """
    for root in roots:
        if not root.is_dir():
            raise DatasetError(
                f"{root}: found no such folder, expected matches; run "
                "kapture_r2d2_match first"
            )
    found = find_matches(roots, keypoints_type)
    folders = [matches_folder(root, keypoints_type) for root in roots]
    for folder in folders:
        refuse_pieces(folder)
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise DatasetError(
            f"{', '.join(missing)}: found no matches of keypoints type "
            f"'{keypoints_type}'; run kapture_r2d2_match first"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class MatchWriter:
    """Writes the matches of pairs, one whole file each.

    Attributes:
        folder: of the type's matches.
        emptied: see open_ledger.
    """

    folder: Path
    emptied: bool = False

    def follow(self, states: Mapping[str, str]) -> None:
        """Remove matches of images whose features are not those they were made of.

        Args:
            states: of the features of images, any text; stored with the matches.

        Raises:
            OutputError: the file system refused.
        """
        with following(self.folder, states) as changed:
            if not changed:
                return
            try:
                for name in list(_files(self.folder)):
                    if not changed.isdisjoint(_pair_of(name) or ()):
                        (self.folder / name).unlink()
            except OSError as error:
                raise output_error(self.folder, error) from error

    def is_complete(self, image1: str, image2: str) -> bool:
        """Whether the matches of a pair are there, in either order."""
        size = _size_of(self._path(image1, image2))
        return size is not None and size % ROW_BYTES == 0

    def write(self, image1: str, image2: str, matches: PairMatches) -> None:
        """Store the matches from image 1 to image 2; none is a result too.

        Raises:
            OutputError: the file system refused.
        """
        if sorted_pair(image1, image2) != (image1, image2):
            matches = matches.swapped()
        write_item(self.folder, self._path(image1, image2), match_bytes(matches))

    def _path(self, image1: str, image2: str) -> str:
        for name in (image1, image2):
            check_relative_name(name, self.folder)
        return os.path.join(self.folder, match_name(sorted_pair(image1, image2)))


@contextmanager
def open_match_writer(
    root: Path,
    keypoints_type: str,
    manifest: Manifest,
    options: RunOptions = RunOptions(),
) -> Iterator[MatchWriter]:
    """Open a type's matches in a kapture folder for one set of settings.

    Args:
        root: kapture dataset, or a folder to make.
        keypoints_type: that the indices will count.
        manifest: what the matches are made with; ``model`` names the features.
        options: see open_ledger.

    Raises:
        OutputError, FeatureFormatError: see open_ledger.
        OutputError: there is an archive, without ``force``.
    """
    folder = matches_folder(root, keypoints_type)
    with open_ledger(folder, CONTENTS, manifest, options) as emptied:
        archive = folder / ARCHIVE_NAME
        # it would hide the files next to it
        if archive.exists() and not options.replaces:
            found = f"{ARCHIVE_NAME}, to which matches cannot be added"
            raise CONTENTS.refusal(folder, found)
        remove_file(archive)
        yield MatchWriter(folder=folder, emptied=emptied)


def _pair_of(name: str) -> tuple[str, str] | None:
    first, separator, second = name.partition(OVERLAPPING)
    if separator and second.endswith(SUFFIX):
        return first, second.removesuffix(SUFFIX)
    return None


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob(f"*{SUFFIX}"):
        yield path.relative_to(folder).as_posix()


def _size_of(path: str) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _read_rows(
    path: Path, offset: int, size: int, pair: tuple[str, str]
) -> PairMatches:
    way_out = f"match '{pair[0]}' and '{pair[1]}' again"
    if size % ROW_BYTES:
        raise FeatureFormatError(
            f"{path}: found {size} bytes, expected rows of 3 float64; {way_out}"
        )
    try:
        with open(path, "rb") as file:
            file.seek(offset, os.SEEK_SET)
            rows = np.frombuffer(file.read(size), "<f8").reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise FeatureFormatError(
            f"{path}: cannot be read: {error}; {way_out}"
        ) from error
    indices = rows[:, :2]
    whole = np.isfinite(indices) & (indices >= 0) & (indices == np.floor(indices))
    if not whole.all():
        row = int(np.flatnonzero(~whole.all(axis=1))[0])
        raise FeatureFormatError(
            f"{path}: found indices {indices[row].tolist()} in row {row}, expected "
            f"whole numbers from 0; {way_out}"
        )
    return PairMatches(
        indices=indices.astype(np.int64), scores=rows[:, 2].astype(np.float32)
    )
