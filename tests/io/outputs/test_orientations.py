"""The record of turns: as written, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.outputs.orientations import (
    ORIENTATIONS_NAME,
    RecordedTurn,
    read_turns,
    write_turns,
)


def test_turns_are_read_as_written(tmp_path: Path) -> None:
    turns = {
        "é b/1.jpg": RecordedTurn(turn=90, sha256="ab"),
        "not utf-8 \udce9.jpg": RecordedTurn(turn=0, sha256=""),
    }
    assert read_turns(tmp_path) == {}
    write_turns(tmp_path, turns)
    assert read_turns(tmp_path) == turns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "another", "images": {}}',
        '{"format": "r2d2_kapture orientations 1", "images": []}',
        '{"format": "r2d2_kapture orientations 1", "images": {"a": {"turn": 45, '
        '"sha256": ""}}}',
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ORIENTATIONS_NAME).write_text(text)
    with pytest.raises(FeatureFormatError, match="orientations.json: found no record"):
        read_turns(tmp_path)
