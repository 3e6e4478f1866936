"""A second export with nothing to do opens nothing, and one with something does."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.config.extract import ExportFormat
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.stages.export import stage as export
from tests.scenes.world import Scene

QUIET = RunOptions(progress=False)
FORMATS: tuple[ExportFormat, ...] = ("colmap", "colmap-db", "colmap3")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Scene(times=2).write_kapture(tmp_path / "k é")


def _forbid_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(export, "open_source", fail)


@pytest.mark.parametrize("to", FORMATS)
def test_a_second_export_opens_nothing(
    root: Path, to: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export.run(kapture_root=root, to=to, options=QUIET)
    _forbid_opening(monkeypatch)
    again = export.run(kapture_root=root, to=to, options=QUIET)
    assert (again.done, again.skipped) == (0, first.done)
    assert again.outputs == first.outputs
    assert again.details == first.details


@pytest.mark.parametrize(
    "changed", ["keypoints", "a new file", "a table", "the output", "settings", "force"]
)
def test_what_has_changed_is_opened(
    root: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export.run(kapture_root=root, to="colmap", options=QUIET)
    kept = next((root / "reconstruction").rglob("*.kpt"))
    settings: dict[str, object] = {"options": QUIET}
    if changed == "keypoints":
        kept.write_bytes(kept.read_bytes()[:-12])
    elif changed == "a new file":
        (kept.parent / "new.kpt").write_bytes(b"")
    elif changed == "a table":
        table = root / "sensors" / "trajectories.txt"
        table.write_text(table.read_text("utf-8") + "\n", "utf-8")
    elif changed == "the output":
        (root / "colmap" / "sparse" / "images.bin").unlink()
    elif changed == "settings":
        settings["camera_mode"] = "per-image"
    else:
        settings["options"] = RunOptions(progress=False, force=True)
    _forbid_opening(monkeypatch)
    with pytest.raises(AssertionError, match="opened"):
        export.run(kapture_root=root, to="colmap", **settings)


def test_a_copy_of_an_export_is_not_taken_for_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export.run(kapture_root=root, to="colmap", options=QUIET)
    (root / "colmap").rename(tmp_path / "moved")
    _forbid_opening(monkeypatch)
    with pytest.raises(AssertionError, match="opened"):
        output = tmp_path / "moved"
        export.run(kapture_root=root, to="colmap", output=output, options=QUIET)
