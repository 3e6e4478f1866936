"""Pictures of a pair of images in a COLMAP database."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from r2d2_kapture.io.colmap.stored_pair import read_stored_pair
from r2d2_kapture.stages.two_view import with_geometry
from r2d2_kapture.stages.view.pair import ViewedPair, report_of
from r2d2_kapture.stages.view.sources import image_file, image_folder
from r2d2_kapture.types import PairMatches, Report


def run_database(
    *,
    database: Path,
    pair: tuple[str, str],
    images: Path | None = None,
    output_dir: Path = Path(),
) -> Report:
    """Draw the matches and the two-view geometry of a pair of a COLMAP database.

    Args:
        database: COLMAP database to draw the matches and geometry of --pair from; of
            COLMAP 3 or 4, only read.
        pair: names of images.
        images: folder that names are relative to; None takes it from the report of the
            pipeline that made the database.
        output_dir: folder of pictures and numbers, see write_pair.

    Raises:
        DatasetError: no such database, image, pair or file.
        ImageError: an image cannot be read.
        OutputError: files cannot be written.
    """
    started = time.monotonic()
    stored = read_stored_pair(database, pair)
    folder = image_folder(images, database)
    rows = stored.matches
    matches = PairMatches(indices=rows, scores=np.ones(len(rows), np.float32))
    geometry = stored.geometry
    notes: tuple[str, ...] = ()
    if geometry is None:
        notes = (
            f"{database}: has no two-view geometry of this pair, so that outliers are "
            "unknown; verify the database first",
        )
    viewed = ViewedPair(
        names=pair,
        paths=(image_file(folder, pair[0]), image_file(folder, pair[1])),
        keypoints=stored.keypoints,
        matches=matches,
        verified=None if geometry is None else with_geometry(matches, geometry),
        made_of={"database": str(database)},
    )
    return report_of(viewed, output_dir, started, notes)
