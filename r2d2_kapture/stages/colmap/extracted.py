"""The database of a folder's images with keypoints as extracted, to be refined."""

from __future__ import annotations

import hashlib
from pathlib import Path

from r2d2_kapture.io.colmap.database import keypoints_or_no_rows, write_database
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.stages.verify import VerifiedPairs

STATE_NAME = "extracted.json"


def write_extracted(
    path: Path,
    dataset: Path,
    keypoints: FeatureTable,
    matches: MatchTable,
    verified: VerifiedPairs,
) -> None:
    """Write the database, unless it is there.

    The user's own may hold images of others, and gets the refined keypoints at once.

    Args:
        path: of the database, in the work folder.
        dataset: kapture dataset of the images.
        keypoints: as extracted.
        matches: of their pairs.
        verified: geometries of these.

    Raises:
        OutputError: SQLite or the file system refused.
    """
    opened = open_dataset(dataset)
    names = sorted(set(opened.image_names) & set(keypoints.image_names))
    digest = hashlib.sha256(verified.digest().encode())
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape"))
        digest.update(keypoints.read_stored(name).tobytes())
    inputs = digest.hexdigest()
    state = DatabaseState(path=path.with_name(STATE_NAME), database=path)
    if state.is_current(inputs):
        return
    write_database(
        path,
        opened.data,
        read_keypoints=keypoints_or_no_rows(keypoints),
        read_matches=matches.read,
        pairs=verified.pairs,
        read_geometry=verified.geometry,
        overwrite=True,
        before_move=lambda complete: state.expect(complete, inputs),
    )
    state.settle()
