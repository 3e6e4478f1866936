"""kapture_r2d2_match as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2d2_kapture.cli.match import main
from r2d2_kapture.io.kapture.match_store import open_matches
from tests.commands import one_error_line, work_in
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"a b.jpg": unit_rows(9), "é/c.jpg": unit_rows(8, seed=1)}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    write_features(tmp_path / "features", IMAGES)
    (tmp_path / "pairs.txt").write_text("é/c.jpg, a b.jpg, 1\n", "utf-8")
    return [
        *("--features", str(tmp_path / "features")),
        *("--pairs", str(tmp_path / "pairs.txt")),
        *("--output", str(tmp_path / "out"), "--gpu", "-1"),
    ]


def test_match_then_resume_then_other_settings(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    out = capsys.readouterr().out
    assert work_in(out, "match") == "1 pair, N matches"
    assert "keypoints type: r2d2" in out
    assert open_matches([tmp_path / "out"], "r2d2").pairs == [("a b.jpg", "é/c.jpg")]
    assert main([*command, "--workers", "1"]) == 0
    assert work_in(capsys.readouterr().out, "match") == "1 pair, already done"
    assert main([*command, "--ratio", "0.8"]) == 2
    assert "ratio: 1.0, not 0.8" in one_error_line(capsys)
    assert main([*command, "--ratio", "0.8", "--min-similarity", ".1", "--force"]) == 0
    manifest = tmp_path / "out/reconstruction/matches/r2d2/manifest.json"
    assert json.loads(manifest.read_text())["settings"]["ratio"] == 0.8


def test_a_pair_that_fails_is_exit_code_1(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / "pairs.txt", "a", encoding="utf-8") as file:
        file.write("a b.jpg, none.jpg, 1\n")
    assert main(command) == 1
    out = capsys.readouterr().out
    assert work_in(out, "match") == "1 pair, 1 failed, N matches"
    assert "failed: a b.jpg, none.jpg: 'none.jpg': found no keypoints" in out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--workers", "0"], "--workers: found 0, expected 1 or more"),
        (["--ratio", "2"], "--ratio: found 2.0"),
        (["--keypoints-type", "sift"], "found keypoints types r2d2, expected 'sift'"),
        (["--features", "nowhere"], "nowhere: found no such file or folder"),
        (["--features", "nowhere"], "run kapture_r2d2_extract first"),
        (["--pairs", "nowhere.txt"], "run kapture_r2d2_pairs first"),
        (["--pairs", "nowhere.txt"], "nowhere.txt: found no such file or folder"),
        (["--config", "nowhere"], "--config nowhere: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: list[str],
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, *flags]) == 2
    assert message in one_error_line(capsys)


def test_settings_from_a_file(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text("ratio: 0.7\n")
    assert main([*command, "--config", str(tmp_path / "strict.yaml")]) == 0
    manifest = tmp_path / "out/reconstruction/matches/r2d2/manifest.json"
    assert json.loads(manifest.read_text())["settings"]["ratio"] == 0.7


def test_another_matcher_and_settings_of_two(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--matcher", "dual_softmax", "--min-probability", "0.01"]
    assert main([*command, *chosen]) == 0
    manifest = tmp_path / "out/reconstruction/matches/r2d2/manifest.json"
    settings = json.loads(manifest.read_text())["settings"]
    assert settings["matcher"] == "dual_softmax"
    assert settings["min_probability"] == 0.01 and "ratio" not in settings
    capsys.readouterr()
    assert main([*command, *chosen, "--ratio", "0.9"]) == 2
    line = one_error_line(capsys)
    assert "--ratio: found for --matcher dual_softmax, expected only for" in line
    assert main([*command, "--matcher", "nearest"]) == 2
    assert "--matcher nearest: no such name, expected one of mutual_nearest" in (
        one_error_line(capsys)
    )
