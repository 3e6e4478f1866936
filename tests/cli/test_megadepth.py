"""kapture_r2d2_megadepth: exit codes, interruption and resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import r2d2_kapture
from r2d2_kapture.cli.megadepth import main
from r2d2_kapture.stages.megadepth.layout import DEPTH_FOLDER, SFM_FOLDER
from r2d2_kapture.stages.train.megadepth import scene_info_paths
from tests.commands import listen_to_ctrl_c
from tests.scenes.megadepth import write_scene

COMMAND = (
    Path(r2d2_kapture.__file__).resolve().parents[1] / "bin" / "kapture_r2d2_megadepth"
)
SCENES = ("0000", "0001", "0002")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of the same content."""
    root = tmp_path_factory.mktemp("published")
    write_scene(root, SCENES[0])
    for folder in (root / DEPTH_FOLDER, root / SFM_FOLDER):
        for scene in SCENES[1:]:
            shutil.copytree(folder / SCENES[0], folder / scene)
    return root


def flags(root: Path, output: Path) -> list[str]:
    return [
        *("--depth-root", str(root), "--sfm-root", str(root)),
        *("--output", str(output), "--workers", "1", "--quiet"),
    ]


def scene_list(folder: Path, *lines: str) -> list[str]:
    path = folder / "scenes.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return ["--scenes", str(path)]


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
    ids=["interrupted", "killed"],
)
def test_a_stopped_run_continues(root: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), *flags(root, output)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not scene_info_paths(output, "0000") and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGINT:
        process.send_signal(number)  # to the parent alone, which ends the others
    else:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "interrupted; run the same command again to resume\n"
    assert not scene_info_paths(output, "0002")
    assert main(flags(root, output)) == 0
    report = json.loads((output / "megadepth_report.json").read_text())
    assert report["done"] + report["skipped"] == 3 and report["skipped"] >= 1
    first = [path.read_bytes() for path in _pictures(output / "Undistorted_SfM/0000")]
    for scene in SCENES:
        assert scene_info_paths(output, scene)
        pictures = _pictures(output / "Undistorted_SfM" / scene)
        assert [path.read_bytes() for path in pictures] == first


def _pictures(folder: Path) -> list[Path]:
    return sorted((folder / "images").rglob("*.jpg"))


def test_failed_scenes_end_in_exit_code_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = scene_list(tmp_path, "0777  # not there")
    assert main(flags(root, tmp_path / "out") + listed) == 1
    out = capsys.readouterr().out
    assert "failed: 0777: found no dense<k>/depths" in out
    assert "cs.cornell.edu/projects/megadepth" in out


def test_wrong_input_is_one_line_and_exit_code_2(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in (
        ["--sfm-root", str(tmp_path / "gone")],
        scene_list(tmp_path, "../00"),
        ["--workers", "-3"],
        ["--workers", "0"],
        ["--max-image-size", "0"],
    ):
        assert main(flags(root, tmp_path / "out") + extra) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for word in ("cs.cornell.edu", "--depth-root", "--max-image-size", "example:"):
        assert word in out
