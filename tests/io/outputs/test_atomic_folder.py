"""Folders that are complete or absent."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic_folder import building_folder
from tests.scenes.contents import files_below

OURS = ("deep/*", "f[hi]le")


def content(folder: Path) -> dict[str, str]:
    return {name: data.decode() for name, data in files_below(folder).items()}


def build(path: Path, text: str) -> None:
    with building_folder(path, OURS) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text(text, encoding="utf-8")


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "above" / "map é"
    with building_folder(path, OURS) as folder:
        (folder / "file").write_text("a", encoding="utf-8")
        assert not path.exists()
    assert content(path) == {"file": "a"}
    assert os.listdir(path.parent) == [path.name]


def test_what_is_ours_is_replaced_as_a_whole_and_the_rest_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "map"
    (path / "deep" / "notes").mkdir(parents=True)
    for name in ("deep/old", "deep/notes/a", "file", "notes.txt"):
        (path / name).write_text("old", encoding="utf-8")
    build(path, "new")
    assert content(path) == {
        "deep/file": "new",
        "deep/notes/a": "old",
        "notes.txt": "old",
    }
    assert os.listdir(tmp_path) == ["map"]


def test_a_linked_folder_is_filled_where_it_is(tmp_path: Path) -> None:
    link, path = tmp_path / "map", tmp_path / "disk" / "map"
    path.mkdir(parents=True)
    link.symlink_to(path)
    for text in ("first", "new"):
        build(link, text)
        (path / "notes.txt").write_text("mine", encoding="utf-8")
    assert link.is_symlink()
    assert content(path) == {"deep/file": "new", "notes.txt": "mine"}
    assert os.listdir(path.parent) == ["map"]


def test_kill_after_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    path, left = tmp_path / "map", tmp_path / ".map.partial" / "old"
    build(path, "new")
    build(left, "old")
    (left / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError):
        with building_folder(path, OURS):
            raise ValueError
    assert content(path) == {"deep/file": "new", "notes.txt": "mine"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "map"
    build(path, "old")
    with pytest.raises(error):
        with building_folder(path, OURS) as folder:
            (folder / "file").write_text("new", encoding="utf-8")
            raise error
    assert content(path) == {"deep/file": "old"}
    assert os.listdir(tmp_path) == ["map"]


def test_a_full_disk_is_named_with_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "map"
    said = re.escape(f"{path}: cannot write: {os.strerror(errno.ENOSPC)}; free space")
    with pytest.raises(OutputError, match=said), building_folder(path, OURS) as folder:
        (folder / "file").write_text("a", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".map.partial" / "new" / "deep"
    left.mkdir(parents=True)
    (left / "file").write_text("half", encoding="utf-8")
    with building_folder(tmp_path / "map", OURS) as folder:
        assert os.listdir(folder) == []


def test_kill_between_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map"
    build(tmp_path / ".map.partial" / "old", "old")
    with pytest.raises(ValueError):
        with building_folder(path, OURS):
            assert content(path) == {"deep/file": "old"}
            raise ValueError
    assert content(path) == {"deep/file": "old"}


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    with building_folder(tmp_path / "map", OURS):
        with pytest.raises(OutputError, match="another run"):
            build(tmp_path / "map", "b")
        build(tmp_path / "other", "b")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        build(tmp_path / "file" / "map", "a")
