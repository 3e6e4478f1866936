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

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.io.colmap.check import copy_database
from r2d2_kapture.io.colmap.database import building
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.colmap.update import move_keypoints
from r2d2_kapture.io.kapture.dataset import check_relative_name, is_described
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
from r2d2_kapture.io.outputs.ledger import Contents, write_item
from r2d2_kapture.io.outputs.orientations import (
    ORIENTATIONS_NAME,
    RecordedTurn,
    read_turns,
    write_turns,
)
from r2d2_kapture.stages.refine.results import LOG_NAME, ImageResult, read_results
from r2d2_kapture.stages.refine.scratch import FOLDER
from r2d2_kapture.types import FloatArray

REPORT_NAME = "refine_report.json"
CONTENTS = Contents(
    what="refined keypoints",
    files=(
        *("**/*.kpt", "keypoints.txt", RECORDS_NAME, ORIENTATIONS_NAME, ORIGIN_NAME),
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
    """Writes refined keypoints, one whole file an image.

    Attributes:
        folder: that is open, see open_ledger.
        source: the keypoints as they were.
        log: of results.
        records: of the photographs.
    """

    folder: Path
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
        write_item(self.folder, path_of(self.folder, name), rows.tobytes())
        if record is not None:
            self.records.finish(name, record)
        self.log.append(result.to_json(name))


@contextmanager
def open_writer(folder: Path, source: MapKeypoints) -> Iterator[KeypointWriter]:
    """Describe the keypoints of an open folder, and write to it.

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
    with open_records(folder) as records, open_log(folder / LOG_NAME) as log:
        yield KeypointWriter(folder=folder, source=source, log=log, records=records)
    lines = sorted(read_results(folder).items())
    tidy = b"".join(json_line(result.to_json(name)) for name, result in lines)
    write_bytes_atomic(folder / LOG_NAME, tidy)


def path_of(folder: Path, image: str) -> Path:
    """The file of an image's keypoints."""
    return folder / (check_relative_name(image, folder) + SUFFIX)


def is_written(
    folder: Path, image: str, count: int | None, source: MapKeypoints
) -> bool:
    """Whether the file of an image has as many rows as it has keypoints."""
    size = (count or 0) * source.dsize * DTYPE.itemsize
    try:
        return path_of(folder, image).stat().st_size == size
    except OSError:
        return False


def refined_rows(folder: Path, image: str, dsize: int) -> npt.NDArray[np.float32]:
    """The (N, dsize) rows of an image that are written."""
    return np.fromfile(path_of(folder, image), DTYPE).reshape(-1, dsize)


def digest_of(folder: Path, images: Iterable[str]) -> str:
    """Digest of the keypoints of images."""
    digest = hashlib.sha256()
    for name in images:
        digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
        digest.update(path_of(folder, name).read_bytes())
    return digest.hexdigest()


def write_refined_database(
    source: Path,
    state: DatabaseState,
    inputs: str,
    folder: Path,
    keypoints: MapKeypoints,
) -> None:
    """Copy a database, and give it the refined keypoints.

    Args:
        source: the database of the keypoints as they were.
        state: of the copy.
        inputs: digest of what the copy is made of.
        folder: of the refined keypoints.
        keypoints: as they were.

    Raises:
        OutputError: SQLite or the file system refused.
    """

    def moved(name: str) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        before = keypoints.read(name)[:, :2].astype(DTYPE)
        after = refined_rows(folder, name, keypoints.dsize)[:, :2]
        xy = after if keypoints.origin == "corner" else colmap_from_kapture(after)
        return xy.astype(DTYPE), (before != after).any(axis=1)

    with building(
        state.database, lambda complete: state.expect(complete, inputs)
    ) as local:
        copy_database(source, local)
        move_keypoints(local, moved)
    state.settle()
