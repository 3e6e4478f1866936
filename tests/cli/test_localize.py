"""kapture_r2d2_localize as a user types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.cli.localize import main
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from tests.commands import listen_to_ctrl_c, one_error_line, work_in
from tests.scenes.contents import files_below
from tests.scenes.localization import LocalizationScene, position_error

VOLATILE = ("report.json", FINISHED_NAME, ".lock")
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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, how: signal.Signals
) -> None:
    scene = LocalizationScene(tmp_path, noise=0.5)
    scene.write_pairs([(q, image) for q in scene.queries for image in scene.mapped[:1]])
    # few true matches among many false ones: slow enough to be stopped
    for query in scene.queries:
        for image in scene.mapped[:1]:
            rows = scene.rng.permutation(scene.rows[image])
            rows[:4] = scene.rows[image][:4]
            indices = np.column_stack([scene.rows[query], rows])
            scene.replace_matches(query, image, indices)
    command = [*scene.command("broken"), "--rigs", "off", "--workers", "1"]
    command += ["--min-inliers", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "r2d2_kapture.cli.localize", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        preexec_fn=listen_to_ctrl_c,
    )
    first = tmp_path / "broken/queries" / f"{scene.queries[0]}.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if first.exists():
            break
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be stopped"
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode in (-9, 130)
    if how == signal.SIGINT:
        assert "run the same command again to resume" in errors
    assert not (tmp_path / "broken/poses.txt").exists()
    written = first.stat().st_mtime_ns
    assert main(command) == 0
    assert first.stat().st_mtime_ns == written
    unbroken = [arg.replace("/broken", "/unbroken") for arg in command]
    assert main(unbroken) == 0
    found, expected = (
        files_below(tmp_path / name, VOLATILE) for name in ("broken", "unbroken")
    )
    assert found == expected
    assert len(expected) == 4 + 6
