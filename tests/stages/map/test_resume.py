"""Maps that are finished, stale, of others, interrupted or killed."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError
from tests.stages.map_runs import outputs, run


def test_only_missing_pictures_of_a_finished_map_are_drawn(root: Path) -> None:
    run(root)
    picture, points = root / "map" / "map.png", root / "map" / "map.ply"
    drawn = picture.read_bytes()
    picture.unlink()
    points.write_bytes(b"mine")
    assert run(root).skipped == 1
    assert (picture.read_bytes(), points.read_bytes()) == (drawn, b"mine")


@pytest.mark.parametrize(
    "lost", ["sparse/points3D.bin", "kapture/reconstruction/points3d.txt", "kapture"]
)
def test_a_map_of_which_files_were_lost_is_made_again(root: Path, lost: str) -> None:
    run(root)
    before = outputs(root / "map")
    shutil.move(root / "map" / lost, root / "lost")
    assert run(root).done == 1
    assert outputs(root / "map") == before
    assert run(root).skipped == 1


@pytest.mark.parametrize("error", [OutputError("disk full"), ValueError("singular")])
def test_a_map_that_cannot_be_drawn_is_made(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("r2d2_kapture.stages.map.drawing.draw_map", fail)
    report = run(root)
    assert (report.done, report.failed) == (1, ())
    assert any(str(error) in text for text in report.warnings)
    assert (root / "map" / "sparse" / "points3D.bin").exists()


def test_a_broken_map_that_cannot_be_drawn_again_is_a_warning(root: Path) -> None:
    run(root)
    (root / "map" / "map.png").unlink()
    points = root / "map" / "sparse" / "points3D.bin"
    points.write_bytes(points.read_bytes()[:-5])
    report = run(root)
    assert (report.skipped, len(report.warnings)) == (1, 1)
    assert "the map is complete but could not be drawn" in report.warnings[0]


def test_a_map_whose_report_says_how_it_was_made_is_taken_for_ours(root: Path) -> None:
    """Version 0.1 had no manifest."""
    run(root)
    manifest, report = (root / "map" / f"{n}.json" for n in ("manifest", "report"))
    made, saved = (json.loads(path.read_text("utf-8")) for path in (manifest, report))
    manifest.unlink()
    del made["settings"]["stage"]
    path, digest = made["inputs"].pop("database")
    digests = {"database": digest, "dataset": made["inputs"]["dataset"][1]}
    saved["inputs"] = {
        "database": path,
        "digests": digests,
        "settings": made["settings"],
    }
    report.write_text(json.dumps(saved), encoding="utf-8")
    assert run(root).skipped == 1
    with pytest.raises(OutputError, match="min_angle: 1.5, not 3.0.*--force"):
        run(root, MapConfig(min_angle=3.0))


def test_stale_map_is_made_again_but_not_of_another_database(root: Path) -> None:
    run(root)
    shutil.copy(root / "map.db", root / "other.db")
    assert run(root, database=root / "other.db").skipped == 1
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        database.delete_two_view_geometry(1, 2)
    assert run(root).done == 1
    assert run(root).skipped == 1
    with pytest.raises(OutputError, match="other.db"):
        run(root, database=root / "other.db")


@pytest.mark.parametrize(
    "text", ['{"stage": "localize", "inputs": {}}', '{"stage": "map"}', "[]", "broken"]
)
def test_reports_of_other_stages_mark_no_map(root: Path, text: str) -> None:
    (root / "map").mkdir()
    (root / "map" / "report.json").write_text(text, encoding="utf-8")
    (root / "map" / "poses.txt").write_bytes(b"precious")
    for force in (False, True):
        with pytest.raises(
            OutputError, match="found 'poses.txt' without a manifest"
        ) as caught:
            run(root, options=RunOptions(force=force, progress=False))
        assert "choose another --output" in str(caught.value)
    assert sorted(os.listdir(root / "map")) == ["poses.txt", "report.json"]


@pytest.mark.parametrize("method", ["triangulate", "incremental", "global"])
def test_same_seed_gives_the_same_bytes(root: Path, method: Any) -> None:
    for name in ("map", "again"):
        run(root, MapConfig(method=method), output=root / name)
    assert outputs(root / "map") == outputs(root / "again")
