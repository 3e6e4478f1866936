"""Databases that must not reach pycolmap."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.colmap.check import (
    check_database,
    check_unused,
    copy_database,
    database_sha256,
)
from tests.scenes.world import Scene


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "a b é.db"
    Scene().write(path)
    return path


@pytest.fixture
def path(tmp_path: Path, complete: Path) -> Path:
    return Path(shutil.copy(complete, tmp_path / complete.name))


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def assert_refused(path: Path, *words: str, to_replace: bool = False) -> None:
    with pytest.raises(DatasetError) as caught:
        check_database(path, to_replace=to_replace)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_complete_databases_pass_unchanged(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    check_database(path)
    check_database(path, to_replace=True)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    path.chmod(0o400)
    check_database(path)
    path = tmp_path / "new.db"
    pycolmap.Database.open(str(path)).close()
    check_database(path)


def test_what_is_no_database_of_colmap(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert_refused(path, "no such file")
    assert_refused(tmp_path, "folder")
    assert not path.exists()
    path.touch()
    assert_refused(path, "empty file")
    path.write_bytes(b"Dear diary, " * 100)
    assert_refused(path, "no SQLite database")
    path.unlink()
    execute(path, "CREATE TABLE birds (name TEXT)")
    assert_refused(path, "without tables", "cameras")


def test_database_of_colmap_3_and_the_upgrade_that_is_named(path: Path) -> None:
    execute(
        path,
        "PRAGMA user_version = 3900",
        *(f"DROP TABLE {t}" for t in ("rig_sensors", "rigs", "frame_data", "frames")),
    )
    before = path.read_bytes()
    assert_refused(path, "COLMAP 3", "version 3900", "rigs", "frames", "upgrade")
    assert path.read_bytes() == before
    execute(path, "PRAGMA user_version = 0")
    assert_refused(path, "COLMAP 3")
    pycolmap.Database.open(str(path)).close()
    check_database(path)


@contextmanager
def another_process(path: Path, code: str) -> Iterator[None]:
    code += "\nprint('ready', flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.communicate("\n", timeout=60)


def test_database_that_another_process_writes(path: Path) -> None:
    writing = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE')"
    )
    with another_process(path, writing):
        assert_refused(path, "another process is using")
    check_database(path)


def test_open_database_may_be_read_but_not_replaced(path: Path) -> None:
    opened = (
        "import pycolmap, sys\nd = pycolmap.Database.open(sys.argv[1])\n"
        "d.num_images()"
    )
    with another_process(path, opened):
        check_database(path)
        assert_refused(path, "another process is using", to_replace=True)
        with pytest.raises(DatasetError, match="another process is using"):
            check_unused(path)
    check_database(path, to_replace=True)
    check_unused(path)


@pytest.mark.parametrize(
    "content", [b"", b"precious", b"SQLite format 3\0" + b"x" * 99]
)
def test_a_file_that_is_not_a_database_is_not_in_use(
    tmp_path: Path, content: bytes
) -> None:
    check_unused(tmp_path / "absent.db")
    check_unused(tmp_path)
    (tmp_path / "file.db").write_bytes(content)
    check_unused(tmp_path / "file.db")
    assert (tmp_path / "file.db").read_bytes() == content


def test_copy_that_broke_off(path: Path) -> None:
    data = path.read_bytes()
    for length in (16, *(int(share * len(data)) for share in (0.2, 0.6, 0.999))):
        path.write_bytes(data[:length])
        assert_refused(path, "half-written")
    assert b"tableframe_data" in data
    path.write_bytes(data.replace(b"tableframe_data", b"tableframe_dat\xff"))
    assert_refused(path)


@pytest.mark.parametrize(
    "statement, words",
    [
        ("DELETE FROM keypoints WHERE image_id = 3", ["half-written", "no keypoints"]),
        ("DELETE FROM images WHERE image_id = 3", ["half-written", "not in images"]),
        ("UPDATE keypoints SET cols = 3 WHERE image_id = 1", ["3 columns"]),
    ],
)
def test_rows_that_do_not_fit(path: Path, statement: str, words: list[str]) -> None:
    execute(path, "PRAGMA foreign_keys = OFF", statement)
    assert_refused(path, *words)


@pytest.mark.parametrize("table", ["matches", "two_view_geometries"])
def test_matches_beyond_the_keypoints(path: Path, table: str) -> None:
    rows = np.array([[0, 120]], np.uint32)
    with closing(pycolmap.Database.open(str(path))) as database:
        if table == "matches":
            database.delete_matches(1, 2)
            database.write_matches(1, 2, rows)
        else:
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = rows
            database.write_two_view_geometry(1, 2, geometry)
    assert_refused(path, "keypoint 120", "which has 120")


def test_digest_stays_when_colmap_opens_and_changes_when_it_writes(path: Path) -> None:
    before = database_sha256(path)
    with closing(pycolmap.Database.open(str(path))) as database:
        database.num_images()
    assert database_sha256(path) == before
    with closing(pycolmap.Database.open(str(path))) as database:
        database.delete_matches(1, 2)
    assert database_sha256(path) != before


def test_copies_hold_what_is_not_yet_in_the_file(path: Path, tmp_path: Path) -> None:
    with closing(pycolmap.Database.open(str(path))) as database:
        database.delete_matches(1, 2)
        assert path.with_name(f"{path.name}-wal").stat().st_size > 0
        copy_database(path, tmp_path / "copy.db")
    with closing(pycolmap.Database.open(str(tmp_path / "copy.db"))) as copy:
        assert copy.num_matched_image_pairs() == 65
    with pytest.raises(OutputError, match="cannot be copied"):
        copy_database(path, tmp_path / "absent" / "copy.db")
