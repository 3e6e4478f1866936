"""Telling a database of ours from others, across kills and changes."""

from __future__ import annotations

import os
from pathlib import Path

from r2d2_kapture.io.colmap.state import DatabaseState


def make(folder: Path, content: bytes | None) -> DatabaseState:
    database = folder / "a.db"
    if content is not None:
        database.write_bytes(content)
    return DatabaseState(path=folder / "state.json", database=database)


def moved(state: DatabaseState, content: bytes, inputs: str, *, kill: bool) -> None:
    complete = state.path.with_name("complete.db")
    complete.write_bytes(content)
    state.expect(complete, inputs)
    if not kill:
        os.replace(complete, state.database)


def test_nothing_there_is_not_ours(tmp_path: Path) -> None:
    state = make(tmp_path, None)
    assert not state.is_ours()
    assert not state.is_current("inputs")


def test_foreign_database_is_not_ours_until_adopted(tmp_path: Path) -> None:
    state = make(tmp_path, b"theirs")
    assert not state.is_ours()
    state.adopt()
    assert state.is_ours()
    assert not state.is_current("inputs")


def test_database_that_moved_into_place_is_current(tmp_path: Path) -> None:
    state = make(tmp_path, None)
    moved(state, b"ours", "inputs", kill=False)
    assert state.is_ours()
    assert state.is_current("inputs")
    assert not state.is_current("other inputs")


def test_kill_before_the_move_leaves_the_former_one_ours(tmp_path: Path) -> None:
    state = make(tmp_path, b"before")
    state.adopt()
    moved(state, b"after", "inputs", kill=True)
    assert state.is_ours()
    assert not state.is_current("inputs")


def test_changes_by_others_are_noticed(tmp_path: Path) -> None:
    state = make(tmp_path, None)
    moved(state, b"ours", "inputs", kill=False)
    state.database.write_bytes(b"changed")
    assert not state.is_ours()
    assert not state.is_current("inputs")


def test_broken_notes_are_no_notes(tmp_path: Path) -> None:
    state = make(tmp_path, b"theirs")
    for text in ("", "[]", "{", "null"):
        state.path.write_text(text, encoding="utf-8")
        assert not state.is_ours()
        assert not state.is_current("inputs")
