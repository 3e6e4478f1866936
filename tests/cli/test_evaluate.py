"""kapture_r2d2_evaluate as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2d2_kapture.cli.evaluate import main
from tests.commands import one_error_line, work_in
from tests.scenes.kapture_files import write_dataset
from tests.scenes.poses import moved, random_poses
from tests.scenes.report import skip_drawing

NAMES = ["q/day/a b.jpg", "q/day/b.jpg", "q/night/c.jpg"]
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Pictures have tests of their own; some tests here draw them all the same."""
    if "draws" not in request.function.__name__:
        skip_drawing(monkeypatch)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The ground truth, an estimate 1 cm off, one that lacks an image, and a text."""
    true = random_poses(NAMES)
    near = {name: moved(pose, (0.01, 0, 0)) for name, pose in true.items()}
    write_dataset(tmp_path / "truth", NAMES, true)
    write_dataset(tmp_path / "near", NAMES, near)
    write_dataset(tmp_path / "part", NAMES, {name: near[name] for name in NAMES[:2]})
    (tmp_path / "poses.txt").write_text("c.jpg 1 0 0 0 0 0 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags):
    return main(["--ground-truth", "truth", "--output", "out", *flags])


def test_a_table_and_where_the_files_are(folder, capsys):
    assert run("--estimated", "near", "--by", "folder") == 0
    out = capsys.readouterr().out
    assert "0.25 m 2 deg" in out and "0.0100 m 0.0000 deg" in out
    assert "night" in out and "100.0 %" in out
    assert work_in(out, "evaluate") == (
        "1 estimate, median errors 0.01 m and 0 degrees"
    )
    assert "output: out/results.json" in out


def test_missing_images_are_no_failure_of_the_command(folder, capsys):
    assert run("--estimated", "part") == 0
    out = capsys.readouterr().out
    assert "66.7 %" in out and "median of all" in out


def test_estimates_by_name_and_by_flag(folder, capsys):
    flags = ["--estimated", "ours=near", "part", "--estimated", "poses.txt"]
    assert run(*flags) == 0
    results = json.loads(Path("out/results.json").read_text())
    assert list(results["estimates"]) == ["ours", "part", "poses"]
    assert results["estimates"]["ours"]["path"] == "near"


def test_a_path_with_an_equals_sign_is_a_path(folder):
    (folder / "near").rename(folder / "k=5000")
    assert run("--estimated", "k=5000") == 0
    results = json.loads(Path("out/results.json").read_text())
    assert list(results["estimates"]) == ["k=5000"]


def test_thresholds_and_settings_in_a_file(folder, capsys):
    Path("settings.yaml").write_text('thresholds: ["0.005,1", "0.02,1"]\nby: folder\n')
    assert run("--config", "settings.yaml", "--estimated", "near") == 0
    out = capsys.readouterr().out
    assert "0.005 m 1 deg" in out and "0.02 m 1 deg" in out and "night" in out
    flags = ["--thresholds", "3,4", "--force", "--by", "none"]
    assert run("--config", "settings.yaml", "--estimated", "near", *flags) == 0
    results = json.loads(Path("out/results.json").read_text())
    assert results["settings"]["thresholds"] == [[3, 4]]
    assert results["settings"]["by"] == "none"


def test_lists(folder, capsys):
    Path("wet days.txt").write_text(f"{NAMES[0]}\n")
    flags = ["--by", "lists", "--lists", "wet days.txt"]
    assert run("--estimated", "near", *flags) == 0
    assert "wet days" in capsys.readouterr().out


def test_what_cannot_be_aligned_is_exit_code_1(folder, capsys):
    assert run("--estimated", "poses.txt", "near", "--align") == 1
    out = capsys.readouterr().out
    assert "failed: poses: alignment: found 1 images" in out
    assert "near: aligned by a scale of 1" in out


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--estimated", "truth", "truth"], "found the name 'truth' twice"),
        (["--estimated", "=near"], "twice or empty"),
        (["--estimated", "nothing"], "nothing: found nothing there"),
        (["--estimated", "near", "--thresholds", "0.25"], "expected METRES,DEGREES"),
        (["--estimated", "near", "--thresholds", "a,b"], "expected METRES,DEGREES"),
        (["--estimated", "near", "--thresholds", "0,1"], "above 0"),
        (["--estimated", "near", "--by", "lists"], "lists: found 0"),
        (["--estimated", "near", "--by", "lists", "--lists", "x.txt"], "x.txt"),
        (["--estimated", "near", "--config", "x.yaml"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, flags, reason):
    assert run(*flags) == 2
    assert reason in one_error_line(capsys)
    assert not Path("out").exists()


def test_a_malformed_line_is_named(folder, capsys):
    with Path("poses.txt").open("a") as file:
        file.write("c.jpg 1 0 0\n")
    assert run("--estimated", "poses.txt") == 2
    assert "poses.txt, line 2: found 'c.jpg 1 0 0'" in one_error_line(capsys)


def test_other_results_are_not_overwritten(folder, capsys):
    assert run("--estimated", "near") == 0
    assert run("--estimated", "near") == 0
    assert (
        work_in(capsys.readouterr().out, "evaluate")
        == "1 estimate, already done, median errors 0.01 m and 0 degrees"
    )
    assert run("--estimated", "part") == 2
    assert "--force" in one_error_line(capsys)
    assert run("--estimated", "part", "--force") == 0
