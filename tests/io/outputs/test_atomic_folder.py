"""Folders that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic_folder import building_folder, refuse_foreign_folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def build(path: Path, text: str) -> None:
    with building_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text(text, encoding="utf-8")


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "above" / "map é"
    with building_folder(path) as folder:
        (folder / "file").write_text("a", encoding="utf-8")
        assert not path.exists()
    assert content(path) == {"file": "a"}
    assert os.listdir(path.parent) == [path.name]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.mkdir()
    (path / "old").write_text("old", encoding="utf-8")
    build(path, "new")
    assert content(path) == {"deep/file": "new"}
    assert os.listdir(tmp_path) == ["map"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "map"
    build(path, "old")
    with pytest.raises(error):
        with building_folder(path) as folder:
            (folder / "file").write_text("new", encoding="utf-8")
            raise error
    assert content(path) == {"deep/file": "old"}
    assert os.listdir(tmp_path) == ["map"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".map.partial" / "new" / "deep"
    left.mkdir(parents=True)
    (left / "file").write_text("half", encoding="utf-8")
    with building_folder(tmp_path / "map") as folder:
        assert os.listdir(folder) == []


def test_kill_between_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map"
    build(tmp_path / ".map.partial" / "old", "old")
    with pytest.raises(ValueError):
        with building_folder(path):
            assert content(path) == {"deep/file": "old"}
            raise ValueError
    assert content(path) == {"deep/file": "old"}


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    with building_folder(tmp_path / "map"):
        with pytest.raises(OutputError, match="another run"):
            build(tmp_path / "map", "b")
        build(tmp_path / "other", "b")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        build(tmp_path / "file" / "map", "a")


def test_foreign_folders_are_distinguished_from_ours(tmp_path: Path) -> None:
    refuse_foreign_folder(tmp_path / "absent", "mark")
    refuse_foreign_folder(tmp_path, "mark")
    (tmp_path / "photo.jpg").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="other content"):
        refuse_foreign_folder(tmp_path, "mark")
    with pytest.raises(OutputError, match="found a file"):
        refuse_foreign_folder(tmp_path / "photo.jpg", "mark")
    (tmp_path / "mark").write_text("", encoding="utf-8")
    refuse_foreign_folder(tmp_path, "mark")
