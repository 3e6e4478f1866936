"""kapture_r2d2_localize as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r2d2_kapture.cli.localize import main
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from tests.commands import one_error_line, work_in
from tests.scenes.localization import LocalizationScene, position_error

CHECKOUT = Path(__file__).resolve().parents[2]


def test_localize_then_resume_then_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = LocalizationScene(tmp_path, noise=0.5, outliers=0.3)
    command = scene.command()
    assert main(command) == 0
    assert work_in(capsys.readouterr().out, "localize") == "3 queries"
    assert main(command) == 0
    assert work_in(capsys.readouterr().out, "localize") == "3 queries, already done"
    assert main([*command, "--max-error", "8"]) == 2
    assert "max_error: 12.0, not 8.0" in one_error_line(capsys)
    assert main([*command, "--max-error", "8", "--force"]) == 0
    assert main([*command, "--max-error", "8", "--format", "robotcar"]) == 0
    text = (tmp_path / "output/poses.txt").read_text()
    assert text.startswith("left/3 b.jpg ")
    found = read_camera_poses(open_dataset(tmp_path / "output")).cam_from_world
    for name in scene.queries:
        assert position_error(found[name], scene.truth(name)) < 0.02


def test_a_query_that_fails_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = LocalizationScene(tmp_path)
    scene.keypoint_file(scene.queries[2]).unlink()
    assert main(scene.command()) == 1
    output = capsys.readouterr().out
    assert work_in(output, "localize") == "2 queries, 1 failed"
    assert f"failed: {scene.queries[2]}" in output.replace("failed: '", "failed: ")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--map", "/nowhere", "with points3d and observations; run kapture_r2d2_map"),
        ("--map", "{empty}", "neither a COLMAP model"),
        ("--query", "/nowhere", "expected kapture dataset of the queries"),
        ("--query", "{empty}", "expected a kapture dataset"),
        ("--pairs", "/nowhere.txt", "expected list of pairs of query and map image"),
        ("--pairs", "/nowhere.txt", "run kapture_r2d2_pairs first"),
        ("--features", "/nowhere", "run kapture_r2d2_extract first"),
        ("--matches", "/nowhere", "run kapture_r2d2_match first"),
        ("--matches", "{empty}", "run kapture_r2d2_match first"),
        ("--keypoints-type", "sift", "expected 'sift'"),
        ("--workers", "0", "--workers"),
        ("--min-inliers", "2", "--min-inliers"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    flag: str,
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene = LocalizationScene(tmp_path)
    (tmp_path / "empty").mkdir()
    command = scene.command()
    at = command.index(flag) if flag in command else len(command)
    command[at : at + 2] = [flag, value.format(empty=tmp_path / "empty")]
    assert main(command) == 2
    assert message in one_error_line(capsys)
    assert not (tmp_path / "output").exists()


def test_the_query_dataset_has_the_features_by_default(tmp_path: Path) -> None:
    scene = LocalizationScene(tmp_path)
    (scene.features / "reconstruction").rename(scene.query / "reconstruction")
    command = scene.command()
    at = command.index("--features")
    assert main(command[:at] + command[at + 2 :]) == 0


def test_the_front_door_runs_from_a_checkout(tmp_path: Path) -> None:
    scene = LocalizationScene(tmp_path)
    done = subprocess.run(
        [sys.executable, CHECKOUT / "bin/kapture_r2d2_localize", *scene.command()],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert work_in(done.stdout, "localize") == "3 queries"
    assert done.stderr == ""
