"""kapture_r2d2_pairs as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.cli.pairs import main
from r2d2_kapture.io.kapture.pairs import read_pairs
from tests.commands import one_error_line, work_in
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import (
    write_dataset,
    write_features,
    write_global_features,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a b.jpg", "é/c.jpg", "d.jpg"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    mapping = write_dataset(tmp_path / "mapping", NAMES)
    return ["--mapping", str(mapping), "--output", str(tmp_path / "p.txt")]


def test_pairs_then_again_then_other_settings(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    assert work_in(capsys.readouterr().out, "pairs") == "3 pairs"
    assert main(command) == 0
    assert work_in(capsys.readouterr().out, "pairs") == "3 pairs, already done"
    other = [*command, "--method", "sequential", "--overlap", "1"]
    assert main(other) == 2
    assert "method: exhaustive, not sequential" in one_error_line(capsys)
    assert main([*other, "--loop", "--force"]) == 0
    assert len(read_pairs(tmp_path / "p.txt")) == 3


def test_queries_by_global_features(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = write_dataset(tmp_path / "query", ["q.jpg"])
    rows = {name: unit_rows(1, seed=i) for i, name in enumerate([*NAMES, "q.jpg"])}
    features = write_global_features(tmp_path / "features", rows)
    flags = ["--query", str(query), "--method", "global", "--features", str(features)]
    assert main([*command, *flags, "--top-k", "2"]) == 0
    assert "global features type: apgem" in capsys.readouterr().out
    found = read_pairs(tmp_path / "p.txt")
    assert [pair.image1 for pair in found] == ["q.jpg"] * 2
    cosines = sorted(
        (float(rows[n][0] @ rows["q.jpg"][0]) for n in NAMES), reverse=True
    )
    assert [pair.score for pair in found] == pytest.approx(cosines[:2], abs=1e-5)


def test_local_features_merge_and_slice(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features(
        tmp_path / "features", {n: unit_rows(30, seed=i) for i, n in enumerate(NAMES)}
    )
    (tmp_path / "more.txt").write_text("x.jpg, d.jpg, 0.5\n", "utf-8")
    flags = ["--method", "local", "--vlad-clusters", "4", "--features", str(features)]
    shared = ["--global-features-output", str(tmp_path / "g")]
    merge = ["--merge", str(tmp_path / "more.txt"), "--slice", "2/2"]
    assert main([*command, *flags, *shared, *merge]) == 0
    assert (tmp_path / "g/reconstruction/global_features/r2d2_vlad4").is_dir()
    found = [pair.names for pair in read_pairs(tmp_path / "p.txt")]
    assert found == [("d.jpg", "é/c.jpg"), ("x.jpg", "d.jpg")]
    assert "images described: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--method", "global"], "found no global features, expected"),
        (["--method", "local"], "found no keypoints, expected local features"),
        (["--method", "poses"], "found no image with a pose"),
        (["--method", "covisibility"], "found no --map"),
        (["--method", "gnss"], "found no image with a GNSS position"),
        (["--method", "lowres", "--lowres-size", "9"], "--lowres-size: found 9"),
        (["--method", "merge"], "found no --merge"),
        (["--method", "fuse"], "found no --merge"),
        (
            ["--method", "sequential", "--loop-top-k", "1"],
            "found no keypoints, expected local features",
        ),
        (["--method", "sequential", "--max-interval", "0"], "--max-interval: found 0"),
        (["--slice", "3/2"], "--slice: found '3/2'"),
        (["--query", "nowhere"], "nowhere: found no such file or folder"),
        (["--workers", "0"], "--workers: found 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: list[str],
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, *flags]) == 2
    assert message in one_error_line(capsys)
    assert not (tmp_path / "p.txt").exists()


def test_an_image_that_fails_is_exit_code_1(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {name: unit_rows(1, seed=i) for i, name in enumerate(NAMES[:2])}
    write_global_features(tmp_path / "mapping", rows)
    assert main([*command, "--method", "global"]) == 1
    out = capsys.readouterr().out
    assert work_in(out, "pairs") == "1 pair, 1 failed"
    assert "failed: d.jpg: 'd.jpg': found no global_features" in out
