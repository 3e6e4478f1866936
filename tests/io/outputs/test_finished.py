"""Notes about the ends of runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.finished import Finished
from r2d2_kapture.types import Report


def report(done: int) -> Report:
    return Report(
        stage="s",
        unit="item",
        done=done,
        skipped=1,
        failed=(),
        seconds=1,
        outputs=(),
    )


def test_a_copy_of_outputs_is_not_what_the_note_is_about(tmp_path: Path) -> None:
    """Its files may be others than those whose sizes and times are noted."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "item").write_bytes(b"result")
    note = Finished.of(made / "note.json", {}, [tmp_path / "input"])
    note.note(report(done=2), [made / "item"])
    again = note.report(0)
    assert again is not None and (again.done, again.skipped) == (0, 3)
    shutil.copytree(made, tmp_path / "copy")
    (tmp_path / "copy" / "item").unlink()
    copied = Finished.of(tmp_path / "copy" / "note.json", {}, [tmp_path / "input"])
    assert copied.report(0) is None
    assert not copied.is_another() and copied.missing() == set()
    (made / "item").unlink()
    assert note.missing() == {made / "item"} and copied.missing() == set()
    other = Finished.of(made / "note.json", {"pairs": 2}, [tmp_path / "input"])
    assert other.is_another() and other.missing() == set()


def test_a_run_without_work_needs_no_note(tmp_path: Path) -> None:
    """Finished outputs may be where nothing can be written."""
    (tmp_path / "file").touch()
    note = Finished.of(tmp_path / "file" / "note.json", {}, [])
    assert note.note(report(done=0), []) == report(done=0)
    with pytest.raises(OutputError, match="note.json: cannot write"):
        note.note(report(done=1), [])
