"""How many matches and inliers a COLMAP database holds for each pair of images."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.content import PAIR_BASE
from r2d2_kapture.types import IndexArray

QUERY = """
SELECT pair_id, MAX(matches), MAX(inliers) FROM (
    SELECT pair_id, rows AS matches, 0 AS inliers FROM matches
    UNION ALL SELECT pair_id, 0, rows FROM two_view_geometries)
GROUP BY pair_id ORDER BY pair_id
"""
"""Pairs of either table: a database may hold verified matches alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCounts:
    """Pairs that were tried.

    Attributes:
        names: of all images, in order.
        pairs: (K, 2) rows in ``names``, each pair once.
        matches, inliers: (K,) of each pair; an inlier agrees with its geometry.
    """

    names: tuple[str, ...]
    pairs: IndexArray
    matches: IndexArray
    inliers: IndexArray


def read_pair_counts(database: Path) -> PairCounts:
    """Count matches and inliers; the database is only read.

    Raises:
        DatasetError: it is none of COLMAP, or cannot be read.
    """
    uri = f"file:{quote(str(database.resolve()))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=1)) as connection:
            images = connection.execute("SELECT image_id, name FROM images").fetchall()
            rows = connection.execute(QUERY).fetchall()
        names = {int(image_id): str(name) for image_id, name in images}
        counts = np.array(rows, np.int64).reshape(-1, 3)
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{database}: found no readable COLMAP database: {error}; expected tables "
            "of images, matches and two_view_geometries"
        ) from error
    ordered = tuple(sorted(names.values()))
    row_of = {name: row for row, name in enumerate(ordered)}
    of_id = {image_id: row_of[name] for image_id, name in names.items()}
    ends = np.stack(np.divmod(counts[:, 0], PAIR_BASE), axis=1)
    known = np.array([a in of_id and b in of_id for a, b in ends.tolist()], bool)
    pairs = [sorted((of_id[a], of_id[b])) for a, b in ends[known].tolist()]
    return PairCounts(
        names=ordered,
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        matches=counts[known, 1],
        inliers=counts[known, 2],
    )
