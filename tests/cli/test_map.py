"""kapture_r2d2_map as a user types it."""

from __future__ import annotations

from pathlib import Path

import pycolmap
import pytest

from r2d2_kapture.cli.map import main
from r2d2_kapture.cli.verify import main as verify
from tests.commands import one_error_line, work_in
from tests.scenes.world import Scene


@pytest.fixture
def root(tmp_path: Path) -> Path:
    mapping = str(Scene(times=3).write_kapture(tmp_path / "mapping"))
    verify(
        ["--mapping", mapping, "--features", mapping, "--matches", mapping, "--quiet"]
        + ["--database", str(tmp_path / "a b.db"), "--output", str(tmp_path / "v")]
    )
    return tmp_path


def command(root: Path, *others: str) -> list[str]:
    """A command line; what the others give takes the place of what it would have."""
    inputs = {"mapping": "mapping", "database": "a b.db", "output": "my map"}
    words = ["--quiet", *others]
    for flag, name in inputs.items():
        if f"--{flag}" not in others:
            words += [f"--{flag}", str(root / name)]
    return words


def test_map_then_skip_then_other_settings(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root)) == 0
    output = capsys.readouterr().out
    assert work_in(output, "map") == "9 of 9 photographs in the map, 120 points"
    for line in (
        "method: triangulate",
        "registered images: 9",
        "points: 120",
        "observations: 1080",
        "mean track length: 9",
        "mean reprojection error: 0",
    ):
        assert f"  {line}" in output
    assert main(command(root)) == 0
    assert (
        work_in(capsys.readouterr().out, "map")
        == "9 of 9 photographs in the map, 120 points, already done"
    )
    assert main(command(root, "--seed", "3")) == 2
    assert "seed: 0, not 3" in one_error_line(capsys)
    assert main(command(root, "--seed", "3", "--force")) == 0


def test_unknown_poses(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "mapping" / "sensors" / "trajectories.txt").unlink()
    assert main(command(root, "--method", "triangulate")) == 2
    assert "0 of 9 images have a pose" in one_error_line(capsys)
    assert main(command(root, "--refine-intrinsics", "false")) == 0
    assert "method: incremental" in capsys.readouterr().out
    model = pycolmap.Reconstruction(str(root / "my map" / "sparse"))
    assert model.num_reg_images() == 9


def test_help_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--mapping", "--database", "--output", "--method", "--force"):
        assert flag in text
    assert "--workers" not in text and "--strict" not in text  # --threads counts here
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert (
        "missing --mapping DIR, --database FILE, --output DIR"
        in capsys.readouterr().err
    )


def test_bad_inputs_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "broken.db").write_bytes(b"")
    for flag, value, words in (
        ("--threads", "0", "--threads"),
        ("--database", str(root / "absent.db"), "absent.db"),
        ("--database", str(root / "broken.db"), "empty file"),
        ("--mapping", str(root / "absent"), "absent"),
        ("--output", str(root / "mapping"), "without a manifest.json of maps"),
        ("--features", str(root / "absent"), "absent"),
        ("--keypoints-type", "../../escaped", "escaped"),
    ):
        assert main(command(root, flag, value)) == 2
        assert words in one_error_line(capsys)
    assert not (root / "my map").exists()
