"""The refined keypoints in a kapture folder, and a copy of the database with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.stores import Store
from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.check import copy_database
from r2d2_kapture.io.colmap.database import building
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.colmap.update import move_keypoints
from r2d2_kapture.io.kapture.dataset import is_described
from r2d2_kapture.io.kapture.feature_store import SUFFIXES
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME, write_origin
from r2d2_kapture.io.outputs.atomic import atomic_path, write_bytes_atomic
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    ImageRecord,
    RecordWriter,
    open_records,
)
from r2d2_kapture.io.outputs.json_log import JsonLog, json_line, open_log
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.orientations import (
    ORIENTATIONS_NAME,
    RecordedTurn,
    read_turns,
    write_turns,
)
from r2d2_kapture.io.stores.reading import StoredItems, open_items
from r2d2_kapture.io.stores.shard_members import Bytes
from r2d2_kapture.io.stores.shards import SHARD_FILES
from r2d2_kapture.io.stores.writing import ItemWriter, open_item_writer
from r2d2_kapture.stages.refine.results import LOG_NAME, ImageResult, read_results
from r2d2_kapture.stages.refine.scratch import FOLDER
from r2d2_kapture.types import FloatArray

REPORT_NAME = "refine_report.json"
ARCHIVE_NAME = "keypoints.tar"
CONTENTS = Contents(
    what="refined keypoints",
    files=(
        *("**/*.kpt", ARCHIVE_NAME, *SHARD_FILES, "keypoints.txt"),
        *(RECORDS_NAME, ORIENTATIONS_NAME, ORIGIN_NAME),
        *(LOG_NAME, REPORT_NAME, f"{FOLDER}/*"),
    ),
    by_name=True,
)
SUFFIX = SUFFIXES["keypoints"]
DTYPE = np.dtype("<f4")
"""Of the rows; a database holds no more digits."""


def turns_of(folders: Iterable[Path]) -> dict[str, RecordedTurn]:
    """The turns in which the network saw images, of the first folder that has one."""
    found: dict[str, RecordedTurn] = {}
    for folder in folders:
        found = read_turns(folder) | found
    return found


@dataclass(frozen=True, kw_only=True)
class KeypointWriter:
    """Writes refined keypoints, of each image all or none.

    Attributes:
        items: of the folder that is open, see open_ledger.
        source: the keypoints as they were.
        log: of results.
        records: of the photographs.
    """

    items: ItemWriter
    source: MapKeypoints
    log: JsonLog
    records: RecordWriter

    def write(
        self,
        name: str,
        steps: npt.NDArray[np.float64],
        result: ImageResult,
        record: ImageRecord | None,
    ) -> None:
        """Store the keypoints of an image, then what became of them.

        Args:
            name: of the image.
            steps: (N, 2) pixels that all of its keypoints move.
            result: for the log.
            record: of the photograph; None where it cannot be read.

        Raises:
            OutputError: the file system refused.
        """
        rows = self.source.read(name).astype(DTYPE)
        moved = steps.any(axis=1)
        rows[moved, :2] = rows[moved, :2].astype(np.float64) + steps[moved]
        if record is not None:
            self.records.begin(name)
        self.items.write(name + SUFFIX, rows.tobytes())
        if record is not None:
            self.records.finish(name, record)
        self.log.append(result.to_json(name))


@contextmanager
def open_writer(
    folder: Path, source: MapKeypoints, store: Store
) -> Iterator[KeypointWriter]:
    """Describe the keypoints of an open folder, and write to it in a layout.

    Raises:
        OutputError: the file system refused.
    """
    name = folder.name
    config = folder / "keypoints.txt"
    if not is_described(config, name, "float32", str(source.dsize)):
        with atomic_path(config) as path:
            described = kapture.Keypoints(name, np.float32, source.dsize)
            kcsv.keypoints_to_file(str(path), described)
    write_origin(folder, source.origin)
    turns = turns_of(source.folders)
    if turns:
        write_turns(folder, turns)
    with (
        open_records(folder) as records,
        open_log(folder / LOG_NAME) as log,
        open_item_writer(folder, store, ARCHIVE_NAME, SUFFIX) as items,
    ):
        yield KeypointWriter(items=items, source=source, log=log, records=records)
    lines = sorted(read_results(folder).items())
    tidy = b"".join(json_line(result.to_json(name)) for name, result in lines)
    write_bytes_atomic(folder / LOG_NAME, tidy)


def open_refined(folder: Path) -> StoredItems:
    """The keypoints that are written to a folder.

    Raises:
        DatasetError: an archive or a shard cannot be used.
    """
    return open_items(folder, ARCHIVE_NAME, SUFFIX)


def is_written(
    items: StoredItems, image: str, count: int | None, source: MapKeypoints
) -> bool:
    """Whether an image has as many rows written as it has keypoints."""
    found = items.find(image + SUFFIX)
    size = (count or 0) * source.dsize * DTYPE.itemsize
    return found is not None and found.size == size


def _content(items: StoredItems, image: str) -> Bytes:
    found = items.find(image + SUFFIX)
    if found is None:
        raise FeatureFormatError(
            f"'{image}': its refined keypoints are gone; refine again"
        )
    return found.read()


def digest_of(items: StoredItems, images: Iterable[str]) -> str:
    """Digest of the keypoints of images.

    Raises:
        FeatureFormatError: some are gone, or not what was written.
    """
    digest = hashlib.sha256()
    for name in images:
        digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
        digest.update(_content(items, name).tobytes())
    return digest.hexdigest()


def write_refined_database(
    source: Path,
    state: DatabaseState,
    inputs: str,
    items: StoredItems,
    keypoints: MapKeypoints,
) -> None:
    """Copy a database, and give it the refined keypoints.

    Args:
        source: the database of the keypoints as they were.
        state: of the copy.
        inputs: digest of what the copy is made of.
        items: the refined keypoints.
        keypoints: as they were.

    Raises:
        OutputError: SQLite or the file system refused.
    """

    def moved(name: str) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        before = keypoints.read(name)[:, :2].astype(DTYPE)
        rows = _content(items, name).view(DTYPE).reshape(-1, keypoints.dsize)
        after = rows[:, :2]
        xy = after if keypoints.origin == "corner" else colmap_from_kapture(after)
        return xy.astype(DTYPE), (before != after).any(axis=1)

    with building(
        state.database, lambda complete: state.expect(complete, inputs)
    ) as local:
        copy_database(source, local)
        move_keypoints(local, moved)
    state.settle()
