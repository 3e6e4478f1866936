"""Verification that is interrupted, repeated, extended, or run beside itself."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, OutputError
from tests.scenes.opened import opened_files
from tests.scenes.world import Scene, write_array
from tests.stages.verify_runs import (
    TYPE,
    folder,
    inliers_of,
    outputs,
    plain_database,
    run,
    write_list,
)


def test_opening_the_database_with_colmap_does_not_count_as_a_change(
    mapping: Path,
) -> None:
    run(mapping)
    pycolmap.Database.open(str(mapping.parent / "map.db")).close()
    assert run(mapping).skipped == 15


def test_lost_and_broken_results_are_made_again(mapping: Path) -> None:
    run(mapping)
    before = outputs(mapping)
    lost, short, odd = sorted(folder(mapping).rglob("*.matches"))[:3]
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-24])
    odd.write_bytes(odd.read_bytes()[:-5])
    assert run(mapping).done == 3
    assert outputs(mapping) == before


def test_a_finished_run_reads_no_keypoints_and_no_matches(
    mapping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mapping)
    opened = opened_files(monkeypatch)
    assert run(mapping).skipped == 15
    assert not [p for p in opened if p.endswith((".kpt", ".matches", ".jsonl", ".db"))]


def test_keypoints_are_read_once_within_the_window(
    mapping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pairs an image has."""
    opened = opened_files(monkeypatch)
    run(mapping)
    reads = Counter(path for path in opened if path.endswith(".kpt"))
    assert len(reads) == 6
    assert max(reads.values()) == 1


def test_changed_keypoints_are_verified_again(mapping: Path, scene: Scene) -> None:
    run(mapping)
    name = scene.names[0]
    file = mapping / "reconstruction" / "keypoints" / TYPE / f"{name}.kpt"
    write_array(file, Scene(times=2).keypoints(name))
    report = run(mapping)
    assert (report.done, report.skipped) == (5, 10)
    with closing(pycolmap.Database.open(str(mapping.parent / "map.db"))) as database:
        stored = database.read_keypoints(database.read_image_with_name(name).image_id)
    np.testing.assert_allclose(
        stored, Scene(times=2).keypoints(name)[:, :2] + 0.5, atol=1e-4
    )


def test_more_pairs_extend_what_is_there(mapping: Path, scene: Scene) -> None:
    pairs = list(itertools.combinations(sorted(scene.names), 2))
    listed = write_list(mapping.parent / "pairs.txt", pairs[:10])
    assert run(mapping, pairs=listed).done == 10
    write_list(listed, [(b, a) for a, b in pairs[:12]])
    report = run(mapping, pairs=listed)
    assert (report.done, report.skipped) == (2, 10)
    assert len(inliers_of(mapping.parent / "map.db")) == 12


def test_database_that_was_changed_is_kept_unless_forced(
    mapping: Path, tmp_path: Path
) -> None:
    run(mapping)
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        database.delete_matches(1, 2)
    with pytest.raises(OutputError, match="changed since"):
        run(mapping)


@pytest.mark.parametrize("ours", [True, False])
def test_database_that_is_being_written_is_never_replaced(
    mapping: Path, tmp_path: Path, scene: Scene, ours: bool
) -> None:
    path = tmp_path / "map.db"
    listed = write_list(tmp_path / "pairs.txt", [tuple(sorted(scene.names)[:2])])
    if ours:
        run(mapping, pairs=listed)
    else:
        plain_database(path, scene)
    before = path.read_bytes()
    options = RunOptions(force=not ours, progress=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatasetError, match="another process is using"):
            run(mapping, options=options)
        assert path.read_bytes() == before
        if ours:
            assert run(mapping, pairs=listed).details["pairs"] == 1  # nothing to write
        other.execute("ROLLBACK")
    assert run(mapping, options=options).details["pairs"] == 15
    assert path.read_bytes() != before
