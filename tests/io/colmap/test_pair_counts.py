"""Counts of pairs against what pycolmap wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.pair_counts import read_pair_counts
from tests.scenes.colmap import verify
from tests.scenes.world import Scene, pair_matches

FULL, EMPTY = ("seq é/left/0 b.jpg", "seq é/left/1 b.jpg"), (
    "seq é/left/0 b.jpg",
    "seq é/walker/1 b.jpg",
)


def test_pairs_with_matches_without_and_not_tried(tmp_path: Path) -> None:
    path = tmp_path / "database é?.db"
    scene = Scene(times=2)
    scene.write(
        path,
        pairs=[FULL, EMPTY],
        read_matches=lambda *pair: (
            scene.matches(*pair) if pair == FULL else pair_matches([])
        ),
    )
    verify(path)

    found = read_pair_counts(path)

    assert found.names == tuple(sorted(scene.names))
    counts = {
        tuple(found.names[row] for row in pair): (matches, inliers)
        for pair, matches, inliers in zip(
            found.pairs.tolist(), found.matches.tolist(), found.inliers.tolist()
        )
    }
    assert counts == {FULL: (120, 120), EMPTY: (0, 0)}


def test_ids_of_pairs_are_those_of_pycolmap(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    scene = Scene(times=2)
    scene.write(path)
    with pycolmap.Database.open(str(path)) as database:
        pairs, counts = database.read_num_matches()
        name_of = {image.image_id: image.name for image in database.read_all_images()}
    expected = {
        tuple(sorted(name_of[i] for i in pycolmap.pair_id_to_image_pair(pair_id)))
        for pair_id in pairs
    }
    found = read_pair_counts(path)
    assert {tuple(found.names[i] for i in pair) for pair in found.pairs} == expected
    assert np.array_equal(np.sort(found.matches), np.sort(counts))
    assert not found.inliers.any()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and nothing of it"])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "database.db"
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match="database.db: found no readable COLMAP database"
    ):
        read_pair_counts(path)
    assert path.read_bytes() == content
