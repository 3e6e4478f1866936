"""A failure that nobody foresaw is one line and a log, never a bare traceback."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

import pytest

import r2d2_kapture
from r2d2_kapture.cli import benchmark, pipeline, stage_command
from r2d2_kapture.cli.common import EXIT_DEFECT, run_command, show
from r2d2_kapture.cli.extract import main as extract
from tests.commands import command_modules

CHECKOUT = Path(r2d2_kapture.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "state" / "r2d2_kapture"


def broken(arguments: list[str]) -> int:
    raise IndexError("first line\nlist index out of range")


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: this is a defect of r2d2_ka")
    return lines[0]


def test_the_line_names_the_log_and_the_log_holds_what_a_report_needs(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(broken, ["--images", "my photos"]) == EXIT_DEFECT == 70
    (log,) = state.iterdir()
    line = one_error_line(capsys)
    assert "IndexError: list index out of range" in line
    assert line.endswith(f"please report it with {log}")
    text = log.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in text and "in broken" in text
    assert "first line" in text
    assert "--images 'my photos'" in text
    for name in (f"r2d2_kapture {r2d2_kapture.__version__}", "torch ", "python 3."):
        assert name in text


def test_a_log_goes_elsewhere_where_its_folder_cannot_be_made(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.touch()
    assert run_command(broken, []) == EXIT_DEFECT
    (log,) = (tmp_path / "temporary").iterdir()
    assert one_error_line(capsys).endswith(str(log))
    assert "in broken" in log.read_text(encoding="utf-8")


def test_without_a_log_the_line_says_where_it_came_from(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.touch()
    (tmp_path / "temporary").touch()
    assert run_command(broken, []) == EXIT_DEFECT
    line = one_error_line(capsys)
    assert f"of {__file__}" in line and "no log could be written" in line


def test_a_failure_in_a_thread_is_one_line_too(
    kapture_root: Path,
    checkpoint_path: Path,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def defect(path: Path) -> None:
        raise TypeError("no such thing")

    monkeypatch.setattr("r2d2_kapture.stages.extract.stage.read_rgb", defect)
    command = ["--kapture-root", str(kapture_root), "--model", str(checkpoint_path)]
    assert extract([*command, "--gpu", "-1", "--quiet"]) == EXIT_DEFECT
    assert "TypeError: no such thing" in one_error_line(capsys)
    (log,) = state.iterdir()
    assert "in defect" in log.read_text(encoding="utf-8")


def front_doors() -> list[str]:
    return [
        *command_modules().values(),
        *(f"pipelines.{p.stem}" for p in CHECKOUT.glob("pipelines/[!_]*.py")),
    ]


def test_every_command_and_recipe_runs_behind_the_same_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [str(CHECKOUT), *sys.path])
    doors = front_doors()
    assert len(doors) > 20
    for name in doors:
        module = importlib.import_module(name)
        with monkeypatch.context() as patch:
            for place in (module, benchmark, pipeline, stage_command):
                patch.setattr(place, "run_command", lambda *_: 7, raising=False)
            assert module.main([]) == 7, name


def test_every_script_of_bin_is_a_command() -> None:
    modules = command_modules()
    scripts = list((CHECKOUT / "bin").iterdir())
    assert {f"kapture_r2d2_{name}" for name in modules} == {s.name for s in scripts}
    for script in scripts:
        name = modules[script.name.removeprefix("kapture_r2d2_")].rpartition(".")[2]
        assert f"from r2d2_kapture.cli.entry import {name} " in script.read_text()


def test_a_reader_that_leaves_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for text in ("a report of a stage", "the next one"):
            show(text)
