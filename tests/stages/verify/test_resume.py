"""Verification that is interrupted, repeated, extended, or run beside itself."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.stages.verify import pairs as verify_pairs
from tests.scenes.world import Scene, write_array
from tests.stages.verify_runs import (
    CHECKOUT,
    TYPE,
    folder,
    inliers_of,
    outputs,
    plain_database,
    run,
    write_list,
)


def test_second_run_finds_everything_done(mapping: Path) -> None:
    first = run(mapping)
    before = {path: path.stat().st_mtime_ns for path in folder(mapping).rglob("*")}
    database = (mapping.parent / "map.db").stat()
    report = run(mapping)
    assert (report.done, report.skipped) == (0, 15)
    assert report.details == first.details
    for path, time in before.items():
        assert path.name in (".lock", "manifest.json") or (
            path.is_dir() or path.stat().st_mtime_ns == time
        )
    assert (mapping.parent / "map.db").stat().st_ino == database.st_ino


def test_opening_the_database_with_colmap_does_not_count_as_a_change(
    mapping: Path,
) -> None:
    run(mapping)
    pycolmap.Database.open(str(mapping.parent / "map.db")).close()
    assert run(mapping).skipped == 15


KILLED = """
import os, signal, sys
from pathlib import Path
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.stages.verify import stage as verify
from r2d2_kapture.stages.verify import pairs as verify_pairs

root, place = Path(sys.argv[1]), sys.argv[2]
count = 0
def die(*arguments, **settings):
    global count
    count += 1
    if count == 8 or place == "database":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **settings)

module, name = {
    "pairs": (verify_pairs, "verify_matches"), "database": (verify, "write_database")
}[place]
real = getattr(module, name)
setattr(module, name, die)
verify.run(
    VerifyConfig(), mapping=root, features=[root], matches=[root], pairs=None,
    database=root.parent / "map.db", output=root.parent / "verified",
    options=RunOptions(workers=2, progress=False),
)
"""


@pytest.mark.parametrize("place, kept", [("pairs", 4), ("database", 15)])
def test_killed_run_is_resumed_to_the_same_end(
    tmp_path: Path, scene: Scene, place: str, kept: int
) -> None:
    unbroken = scene.write_kapture(tmp_path / "unbroken" / "mapping")
    run(unbroken)
    mapping = scene.write_kapture(tmp_path / "killed" / "mapping")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(mapping), place], cwd=CHECKOUT
    )
    assert done.returncode == -signal.SIGKILL
    assert not (mapping.parent / "map.db").exists()
    report = run(mapping)
    assert report.skipped >= kept
    assert report.done + report.skipped == 15
    assert outputs(mapping) == outputs(unbroken)


def test_interrupted_run_is_resumed_to_the_same_end(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = scene.write_kapture(tmp_path / "unbroken" / "mapping")
    run(unbroken)
    mapping = scene.write_kapture(tmp_path / "broken" / "mapping")
    real, calls = verify_pairs.verify_matches, itertools.count()

    def interrupted(*arguments: Any) -> pycolmap.TwoViewGeometry:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(verify_pairs, "verify_matches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(mapping)
    assert not (mapping.parent / "map.db").exists()
    assert run(mapping).skipped >= 6
    assert outputs(mapping) == outputs(unbroken)


def test_lost_and_broken_results_are_made_again(mapping: Path) -> None:
    run(mapping)
    before = outputs(mapping)
    lost, short, odd = sorted(folder(mapping).rglob("*.matches"))[:3]
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-24])
    odd.write_bytes(odd.read_bytes()[:-5])
    assert run(mapping).done == 3
    assert outputs(mapping) == before


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


def test_other_settings_are_refused_and_named(mapping: Path) -> None:
    run(mapping)
    before = outputs(mapping)
    with pytest.raises(OutputError, match="max_error: 4.0, not 2.0") as caught:
        run(mapping, VerifyConfig(max_error=2.0))
    assert "--force" in str(caught.value)
    assert outputs(mapping) == before
    options = RunOptions(force=True, progress=False)
    assert run(mapping, VerifyConfig(max_error=2.0), options=options).done == 15
    assert outputs(mapping) != before
    assert run(mapping, VerifyConfig(max_error=2.0)).skipped == 15


def test_foreign_database_is_kept_unless_forced(mapping: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="did not write"):
        run(mapping)
    assert path.read_bytes() == b"precious"
    run(mapping, options=RunOptions(force=True, progress=False))
    check_database(path)


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


def test_two_runs_into_one_folder_are_kept_apart(
    mapping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> None:
        run(mapping)

    monkeypatch.setattr(verify_pairs, "verify_matches", meanwhile)
    with pytest.raises(OutputError, match="another run"):
        run(mapping)
