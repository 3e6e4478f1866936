"""Matches of kapture: one file of rows (index 1, index 2, score) for each pair.

kapture 1.1 (kapture_format.adoc): float64 rows without a header, at
``reconstruction/matches/<keypoints type>/<image 1>.overlapping/<image 2>.matches`` with
image 1 before image 2 in order of code points, or as members of ``matches.tar``; or of
our shards, see io/stores/shards.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.kapture.followed_features import STATES_NAME, following
from r2d2_kapture.io.kapture.pairs import sorted_pair
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.pieces import refuse_pieces
from r2d2_kapture.io.stores.reading import (
    StoredItems,
    open_items,
)
from r2d2_kapture.io.stores.shards import SHARD_FILES
from r2d2_kapture.io.stores.writing import (
    ItemWriter,
    open_item_writer,
    replaces_layout,
)
from r2d2_kapture.types import PairMatches

OVERLAPPING = ".overlapping/"
SUFFIX = ".matches"
ARCHIVE_NAME = "matches.tar"
ROW_BYTES = 3 * np.dtype(np.float64).itemsize
CONTENTS = Contents(
    what="matches",
    files=(
        *(f"**/*{SUFFIX}", ARCHIVE_NAME, *SHARD_FILES),
        *(STATES_NAME, "*_report.json", "*.jsonl"),
    ),
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
        folders: where they are, with what is in them; a pair's matches come from the
            first that has them.
    """

    keypoints_type: str
    folders: tuple[tuple[Path, StoredItems], ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Sorted pairs that have matches, also empty ones, in order of names."""
        found = {
            pair
            for _, items in self.folders
            for name in items.names()
            if (pair := _pair_of(name)) is not None
        }
        return sorted(found)

    def read(self, image1: str, image2: str) -> PairMatches | None:
        """Matches from image 1 to image 2 in that order; None where there are none.

        Raises:
            FeatureFormatError: the file is no whole number of rows, its rows are no
                indices, or it is not what was written.
        """
        pair = sorted_pair(image1, image2)
        for _, items in self.folders:
            matches = _read_rows(items, pair)
            if matches is not None:
                return matches if pair == (image1, image2) else matches.swapped()
        return None

    def count(self, image1: str, image2: str) -> int | None:
        """Matches of a pair, by the size of its file; None where there are none."""
        for _, _, size in self.places(sorted_pair(image1, image2)):
            return size // ROW_BYTES
        return None

    def is_complete(self, image1: str, image2: str) -> bool:
        """Whether a pair has whole rows, by the size of its file."""
        places = self.places(sorted_pair(image1, image2))
        return any(size % ROW_BYTES == 0 for _, _, size in places)

    def files(self, pairs: Collection[tuple[str, str]]) -> Iterator[str]:
        """Where the rows of sorted pairs are, or would be."""
        for _, items in self.folders:
            yield from items.files(map(match_name, pairs))

    def places(self, pair: tuple[str, str]) -> Iterator[tuple[Path, int, int]]:
        """File, offset and bytes of a sorted pair's rows, of each folder with some."""
        name = match_name(pair)
        for _, items in self.folders:
            found = items.find(name)
            if found is not None:
                yield found.path, found.offset, found.size


def find_matches(roots: Sequence[Path], keypoints_type: str) -> MatchTable:
    """Find the matches of a keypoints type in kapture folders; there may be none.

    Args:
        roots: kapture datasets, or folders with ``reconstruction/matches`` alone.
        keypoints_type: whose matches.

    Raises:
        DatasetError: an archive or a shard is unreadable or unsafe.
    """
    folders = [matches_folder(root, keypoints_type) for root in dict.fromkeys(roots)]
    return MatchTable(
        keypoints_type=keypoints_type,
        folders=tuple(
            (folder, open_items(folder, ARCHIVE_NAME, SUFFIX))
            for folder in folders
            if folder.is_dir()
        ),
    )


def match_files(
    root: Path, keypoints_type: str, pairs: Collection[tuple[str, str]]
) -> Iterator[str]:
    """Where the matches of sorted pairs are below a root, found when it is asked for.

    Raises:
        DatasetError: see find_matches.
    """
    yield from find_matches([root], keypoints_type).files(pairs)


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
    """Writes the matches of pairs, each whole or not at all.

    Attributes:
        folder: of the type's matches.
        items: the matches there.
        emptied: see open_ledger.
    """

    folder: Path
    items: ItemWriter
    emptied: bool = False

    def follow(self, states: Mapping[str, str]) -> None:
        """Remove matches of images whose features are not those they were made of.

        Args:
            states: of the features of images, any text; stored with the matches.

        Raises:
            OutputError: the file system refused.
        """
        with following(self.folder, states) as changed:
            if changed:
                self.remove(lambda pair: not changed.isdisjoint(pair))

    def remove(self, is_unwanted: Callable[[tuple[str, str]], bool]) -> None:
        """Remove the matches of pairs, and complete what is on the disk.

        Args:
            is_unwanted: by sorted pair.

        Raises:
            OutputError: the file system refused.
        """
        names = [
            name
            for name in self.items.names()
            if (pair := _pair_of(name)) is not None and is_unwanted(pair)
        ]
        self.items.remove(names)
        self.items.close()

    def is_complete(self, image1: str, image2: str) -> bool:
        """Whether the matches of a pair are there, in either order."""
        size = self.items.size(match_name(sorted_pair(image1, image2)))
        return size is not None and size % ROW_BYTES == 0

    def write(self, image1: str, image2: str, matches: PairMatches) -> None:
        """Store the matches from image 1 to image 2; none is a result too.

        Raises:
            DatasetError: a name leaves the folder.
            OutputError: the file system refused.
        """
        for name in (image1, image2):
            check_relative_name(name, self.folder)
        pair = sorted_pair(image1, image2)
        if pair != (image1, image2):
            matches = matches.swapped()
        self.items.write(match_name(pair), match_bytes(matches))


@contextmanager
def open_match_writer(
    root: Path,
    keypoints_type: str,
    manifest: Manifest,
    options: RunOptions = RunOptions(),
    store: Store = "files",
) -> Iterator[MatchWriter]:
    """Open a type's matches in a kapture folder for one set of settings.

    Args:
        root: kapture dataset, or a folder to make.
        keypoints_type: that the indices will count.
        manifest: what the matches are made with; ``model`` names the features.
        options: see open_ledger.
        store: layout of the matches.

    Raises:
        OutputError, FeatureFormatError: see open_ledger.
        OutputError: there are matches in another layout, without ``force``.
    """
    folder = matches_folder(root, keypoints_type)
    anew = is_in_other_layout(folder, manifest, options, store)
    with (
        open_ledger(folder, CONTENTS, manifest, options, anew=anew) as emptied,
        open_item_writer(folder, store, ARCHIVE_NAME, SUFFIX) as items,
    ):
        yield MatchWriter(folder=folder, items=items, emptied=emptied)


def is_in_other_layout(
    folder: Path, manifest: Manifest, options: RunOptions, store: Store
) -> bool:
    """Whether there are matches made with the same settings in another layout.

    Raises:
        OutputError: there are, and they are not replaced; or as open_ledger.
    """
    return replaces_layout(
        folder, store, ARCHIVE_NAME, SUFFIX, CONTENTS, manifest, options
    )


def _pair_of(name: str) -> tuple[str, str] | None:
    first, separator, second = name.partition(OVERLAPPING)
    if separator and second.endswith(SUFFIX):
        return first, second.removesuffix(SUFFIX)
    return None


def _read_rows(items: StoredItems, pair: tuple[str, str]) -> PairMatches | None:
    found = items.find(match_name(pair))
    if found is None:
        return None
    way_out = f"match '{pair[0]}' and '{pair[1]}' again"
    if found.size % ROW_BYTES:
        raise FeatureFormatError(
            f"{found.path}: found {found.size} bytes, expected rows of 3 float64; "
            + way_out
        )
    try:
        rows = found.read().view("<f8").reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise FeatureFormatError(
            f"{found.path}: cannot be read: {error}; {way_out}"
        ) from error
    indices = rows[:, :2]
    whole = np.isfinite(indices) & (indices >= 0) & (indices == np.floor(indices))
    if not whole.all():
        row = int(np.flatnonzero(~whole.all(axis=1))[0])
        raise FeatureFormatError(
            f"{found.path}: found indices {indices[row].tolist()} in row {row}, "
            f"expected whole numbers from 0; {way_out}"
        )
    return PairMatches(
        indices=indices.astype(np.int64), scores=rows[:, 2].astype(np.float32)
    )
