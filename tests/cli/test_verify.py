"""kapture_r2d2_verify as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.cli.verify import main
from r2d2_kapture.io.colmap.check import check_database
from tests.commands import one_error_line, work_in
from tests.scenes.world import Scene


def command(root: Path) -> list[str]:
    mapping = str(root / "mapping")
    words = ["--mapping", mapping, "--features", mapping, "--matches", mapping]
    words += ["--database", str(root / "a b.db"), "--output", str(root / "verified")]
    return [*words, "--quiet"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Scene(times=2).write_kapture(tmp_path / "mapping")
    return tmp_path


def test_verify_then_resume_then_other_settings(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root)) == 0
    output = capsys.readouterr().out
    assert work_in(output, "verify") == "15 pairs, 15 with a geometry"
    for line in ("pairs: 15", "verified pairs: 15", "matches: 1800", "inliers: "):
        assert f"  {line}" in output
    assert "camera origin: center" in output
    check_database(root / "a b.db")
    assert main([*command(root), "--workers", "1"]) == 0
    assert (
        work_in(capsys.readouterr().out, "verify")
        == "15 pairs, already done, 15 with a geometry"
    )
    assert main([*command(root), "--max-error", "2"]) == 2
    assert "max_error: 4.0, not 2.0" in one_error_line(capsys)
    assert main([*command(root), "--max-error", "2", "--force"]) == 0


def test_known_poses(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(root), "--geometry", "known_poses"]) == 0
    assert "geometry: known_poses" in capsys.readouterr().out
    (root / "mapping" / "sensors" / "trajectories.txt").unlink()
    assert main([*command(root), "--geometry", "known_poses"]) == 2
    assert "6 images have no pose" in one_error_line(capsys)


def test_an_image_that_fails_is_exit_code_1(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "seq é/left/0 b.jpg"
    (root / "mapping/reconstruction/keypoints/r2d2" / f"{name}.kpt").unlink()
    assert main(command(root)) == 1
    output = capsys.readouterr().out
    assert work_in(output, "verify") == "10 pairs, 1 failed, 10 with a geometry"
    assert name in output


def test_help_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--mapping", "--matches", "--database", "--geometry", "--workers"):
        assert flag in text
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert (
        "missing --mapping DIR, --features DIR, --matches DIR"
        in capsys.readouterr().err
    )


def test_bad_inputs_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, value, words in (
        ("--workers", "0", "--workers"),
        ("--min-inliers", "0", "--min-inliers"),
        ("--pairs", str(root / "absent.txt"), "absent.txt"),
        ("--mapping", str(root / "absent"), "absent"),
        ("--features", str(root / "absent"), "absent"),
        ("--matches", str(root / "absent"), "absent"),
    ):
        assert main([*command(root), flag, value]) == 2
        assert words in one_error_line(capsys)
    typed = command(root)
    typed[typed.index("--output") + 1] = str(root / "mapping")
    assert main(typed) == 2
    assert "matches to verify" in one_error_line(capsys)
    assert not (root / "a b.db").exists()


def test_settings_of_a_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "settings.yaml").write_text("max_error: 2.0\nseed: 5\n", encoding="utf-8")
    main([*command(root), "--config", str(root / "settings.yaml")])
    main(command(root))
    line = one_error_line(capsys)
    assert "max_error: 2.0, not 4.0" in line and "seed: 5, not 0" in line
