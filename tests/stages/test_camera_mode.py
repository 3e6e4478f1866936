"""Unknown cameras that are joined or split, from matches to the map and to COLMAP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kapture
import pycolmap
import pytest

from r2d2_kapture.cli.export import main as export_main
from r2d2_kapture.config.verify import VerifyConfig
from tests.scenes.world import FOCAL, UNKNOWN, Scene
from tests.stages.map_runs import load_map, run, verify_scene


def unknown_scene(*, shared: bool) -> Scene:
    """Six images without poses, of one unknown camera, which may be six sensors."""
    scene = Scene(times=2)
    records = kapture.RecordsCamera()
    scene.dataset.sensors = kapture.Sensors()
    for number, name in enumerate(sorted(scene.names)):
        sensor_id = "camera" if shared else f"camera{number}"
        scene.dataset.sensors[sensor_id] = UNKNOWN
        records[number, sensor_id] = name
    scene.dataset.records_camera = records
    scene.dataset.rigs = scene.dataset.trajectories = None
    return scene


def prepare(root: Path, scene: Scene, mode: Any) -> tuple[str, ...]:
    """Verify the scene; the warnings."""
    scene.write_kapture(root / "mapping")
    return verify_scene(root, VerifyConfig(camera_mode=mode)).warnings


def cameras_in(database: Path) -> int:
    with pycolmap.Database.open(str(database)) as opened:
        return int(opened.num_cameras())


def focal_lengths(root: Path) -> Iterator[float]:
    for sensor in load_map(root).cameras.values():
        yield sensor.camera_params[2]


def test_one_camera_for_all_images(tmp_path: Path) -> None:
    assert prepare(tmp_path, unknown_scene(shared=False), "single") == ()
    assert cameras_in(tmp_path / "map.db") == 1
    report = run(tmp_path)
    assert report.details["registered_images"] == 6
    (focal,) = focal_lengths(tmp_path)
    assert focal == pytest.approx(FOCAL, rel=1e-3)
    assert run(tmp_path).skipped == 1


def test_a_camera_for_each_image_may_be_asked_for_and_is_else_pointed_at(
    tmp_path: Path,
) -> None:
    assert prepare(tmp_path, unknown_scene(shared=True), "per-image") == ()
    assert cameras_in(tmp_path / "map.db") == 6
    report = run(tmp_path)
    assert report.details["registered_images"] == 6
    assert len(set(focal_lengths(tmp_path))) == 6
    (hint,) = prepare(tmp_path / "auto", unknown_scene(shared=False), "auto")
    assert hint.startswith("6 images without known intrinsics have separate cameras")
    assert cameras_in(tmp_path / "auto" / "map.db") == 6


def test_export_joins_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = unknown_scene(shared=False).write_kapture(tmp_path / "dataset")
    flags = ["--kapture-root", str(root), "--to", "colmap-db", "--quiet", "--force"]
    for mode, cameras in (("auto", 6), ("single", 1), ("per-folder", 3)):
        assert export_main([*flags, "--camera-mode", mode]) == 0
        text = capsys.readouterr().out
        assert f"  cameras: {cameras}\n" in text
        assert ("--camera-mode single" in text) == (mode == "auto")
        assert cameras_in(root / "colmap.db") == cameras
