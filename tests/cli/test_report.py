"""kapture_r2d2_report as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.cli.report import main
from tests.scenes.report import write_model


def test_a_map_becomes_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "sparse", ["a.png", "b.png", "c.png"])
    page = tmp_path / "a é" / "my page.html"
    flags = ["--map", str(tmp_path / "sparse"), "--output", str(page)]
    assert main([*flags, "--title", "Tom & Jerry"]) == 0
    assert str(page) in capsys.readouterr().out
    assert "<title>Tom &amp; Jerry</title>" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "typed, said",
    [
        ([], "found none"),
        (["--map", "m", "--pipeline", "w"], "found --pipeline, --map"),
        (["--map", "m", "--hpatches", "h"], "found --map, --hpatches"),
        (["--pipeline", "w", "--images", "i"], "--images: expected only with --map"),
        (["--pipeline", "w"], "found no report of a pipeline"),
        (["--map", "m"], "found no COLMAP model"),
        (["--hpatches", "h"], "kapture_r2d2_hpatches"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    typed: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "mwhi":
        Path(name).mkdir()
    assert main(typed) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line
    assert not list(tmp_path.rglob("*.html"))
