"""Items in any layout, written by runs that were killed and by those that follow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.match_store import SUFFIX
from r2d2_kapture.io.stores.reading import open_items
from r2d2_kapture.io.stores.writing import open_item_writer


def write(folder: Path, *names: str) -> None:
    with open_item_writer(folder, "tar", "matches.tar", SUFFIX) as items:
        for name in names:
            items.write(name, name.encode() * 1000)


def test_an_open_archive_can_be_read_whatever_a_killed_run_left(tmp_path: Path) -> None:
    write(tmp_path, "é a.matches", "b.matches")
    archive = tmp_path / "matches.tar"
    os.truncate(archive, archive.stat().st_size - 3000)
    with pytest.raises(DatasetError, match="matches.tar: .*; remove it, and extract"):
        open_items(tmp_path, "matches.tar", SUFFIX)
    with open_item_writer(tmp_path, "tar", "matches.tar", SUFFIX) as items:
        read = open_items(tmp_path, "matches.tar", SUFFIX)
        assert list(read.names()) == ["é a.matches"]
        assert items.size("b.matches") is None


def test_what_was_removed_from_an_archive_is_not_in_it(tmp_path: Path) -> None:
    names = [f"{number}.matches" for number in range(6)]
    write(tmp_path, *names)
    with open_item_writer(tmp_path, "tar", "matches.tar", SUFFIX) as items:
        items.remove([*names[1:4], "none.matches"])
        assert sorted(items.names()) == [names[0], *names[4:]]
    read = open_items(tmp_path, "matches.tar", SUFFIX)
    assert sorted(read.names()) == [names[0], *names[4:]]
