"""The commands as a user types them: output, exit codes, one-line errors, resume."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli.export import main as export
from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.extract_images import main as extract_images
from r2d2_kapture.cli.localize import main as localize
from r2d2_kapture.cli.pair_poses import main as pair_poses
from r2d2_kapture.cli.train import main as train
from r2d2_kapture.cli.verify import main as verify
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.io.features.hdf5 import h5_names, read_h5
from r2d2_kapture.io.features.npz import read_npz
from tests.commands import one_error_line, work_in
from tests.scenes.features import read_colmap_text, read_mat
from tests.scenes.kapture_files import write_dataset

ANY_MAXIMUM = ["--reliability-thr", "0", "--repeatability-thr", "0", "--min-size", "32"]
CPU = ["--gpu", "-1", "--precision", "fp32", "--top-k", "20"]


@pytest.fixture
def flags(checkpoint_path: Path) -> list[str]:
    return ["--model", str(checkpoint_path), *ANY_MAXIMUM, *CPU]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images, one broken, in folders with spaces and accents."""
    folder = tmp_path / "my photos"
    rng = np.random.default_rng(1)
    for name in ("a.png", "été/b, c.jpg", "été/d.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(path)
    (folder / "broken.jpg").write_bytes(b"not an image")
    return folder


def test_extract_then_resume_then_other_settings(
    kapture_root: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), *flags]
    assert extract(command) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, N keypoints"
    assert extract(command) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"
    assert extract([*command, "--top-k", "10"]) == 2
    assert "top_k: 20, not 10" in one_error_line(capsys)
    assert extract([*command, "--top-k", "10", "--force"]) == 0
    settings = kapture_root / "reconstruction/keypoints/tiny/extract_config.yaml"
    assert "top_k: 10" in settings.read_text()


def test_some_failed_is_exit_code_1(
    kapture_root: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (kapture_root / "sensors/records_data/a.png").write_bytes(b"")
    assert extract(["--kapture-root", str(kapture_root), *flags]) == 1
    out = capsys.readouterr().out
    assert work_in(out, "extract") == "4 photographs, 1 failed, N keypoints"
    assert "failed: a.png" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--kapture-root", "/nowhere"],
            "found no such file or folder, expected folder of a",
        ),
        ([], "--kapture-root: missing"),
        (["--kapture-root", "{root}", "--model", "/no.pt"], "no such file"),
        (["--kapture-root", "{root}", "--gpu", "99"], "CUDA devices"),
        (["--kapture-root", "{root}", "--top-k", "-1"], "--top-k: found -1"),
        (["--kapture-root", "{root}", "--scale-f", "1"], "--scale-f"),
        (["--kapture-root", "{root}", "--config", "no_preset"], "aachen, fast"),
        (["--kapture-root", "{root}", "--preset", "fats"], "did you mean fast?"),
        (["--kapture-root", "{root}", "--preset=configs/pipelines/demo.yaml"], "demo"),
        (["--kapture-root", "{root}", "--workers", "0"], "--workers"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    kapture_root: Path,
    flags: list[str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = [a.replace("{root}", str(kapture_root)) for a in arguments]
    assert extract([*flags, *typed]) == 2
    assert message in one_error_line(capsys)
    assert not (kapture_root / "reconstruction").exists()


def test_an_unknown_key_of_a_config_is_an_error(
    kapture_root: Path, flags: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("top_kk: 3\n")
    with pytest.raises(SystemExit) as caught:
        extract(["--config", str(config), "--kapture-root", str(kapture_root), *flags])
    assert caught.value.code == 2


def test_every_preset_is_accepted_and_flags_win(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    presets = sorted(Path("configs/extract").glob("*.yaml"))
    assert len(presets) >= 4
    for preset in presets:
        arguments = ["--preset", preset.stem, "--kapture-root", str(kapture_root)]
        arguments += ["--model", str(checkpoint_path), "--gpu", "-1"]
        assert (
            extract([*arguments, "--top-k", "7", "--keypoints-type", preset.stem]) == 0
        )
        saved = kapture_root / "reconstruction/keypoints" / preset.stem
        assert "top_k: 7" in (saved / "extract_config.yaml").read_text()


def test_flags_win_over_a_config_wherever_it_stands(
    kapture_root: Path, checkpoint_path: Path
) -> None:
    arguments = ["--kapture-root", str(kapture_root), "--model", str(checkpoint_path)]
    arguments += ["--gpu", "-1", "--top-k", "7", "--config", "fast"]
    assert extract(arguments) == 0
    saved = kapture_root / "reconstruction/keypoints/tiny/extract_config.yaml"
    assert "top_k: 7" in saved.read_text()
    assert "max_size: 768" in saved.read_text()


def test_a_dataset_without_images_is_an_error(
    kapture_root: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(kapture_root, [])
    assert extract(["--kapture-root", str(kapture_root), *flags]) == 2
    assert "lists no image" in one_error_line(capsys)


def test_the_front_door_runs_from_a_checkout(
    kapture_root: Path, flags: list[str], tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "bin" / "kapture_r2d2_extract"
    done = subprocess.run(
        [sys.executable, script, "--kapture-root", kapture_root, *flags],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert work_in(done.stdout, "extract") == "5 photographs, N keypoints"
    assert done.stderr == ""


def test_images_become_npz_next_to_them(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "list.txt").write_text("a.png\nété/b, c.jpg\nbroken.jpg\na.png\n")
    command = ["--images", str(photos / "list.txt"), *flags]
    assert extract_images(command) == 1
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "2 photographs, 1 failed, N keypoints"
    )
    features = read_npz(photos / "été" / "b, c.jpg.r2d2")
    assert features.image_size == (56, 40)
    assert len(features) == 20
    with np.load(photos / "a.png.r2d2") as raw:
        assert raw["keypoints"].shape == (20, 3)
        assert raw["imsize"].tolist() == [56, 40]
    assert extract_images(command) == 1
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "2 photographs, already done, 1 failed"
    )
    assert extract_images([*command, "--top-k", "5"]) == 2
    assert "top_k: 20, not 5" in one_error_line(capsys)


@pytest.mark.parametrize("file_format", ["npz", "mat", "h5"])
def test_formats_hold_the_same_features(
    photos: Path, flags: list[str], tmp_path: Path, file_format: str
) -> None:
    reference, output = tmp_path / "reference", tmp_path / "out"
    pattern = str(photos / "**/*.png")
    assert (
        extract_images(["--images", pattern, "--output-dir", str(reference), *flags])
        == 0
    )
    command = ["--images", pattern, "--output-dir", str(output), *flags]
    assert extract_images([*command, "--format", file_format]) == 0
    for name in ("a.png", "été/d.png"):
        expected = read_npz(reference / f"{name}.r2d2")
        found = {
            "npz": lambda: read_npz(output / f"{name}.r2d2"),
            "mat": lambda: read_mat(output / f"{name}.r2d2.mat"),
            "h5": lambda: read_h5(output / "features.h5", name),
        }[file_format]()
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_array_equal(found.descriptors, expected.descriptors)


def test_h5_grows_by_what_is_new(
    photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output-dir", str(tmp_path / "out"), "--format", "h5"]
    output += ["--image-root", str(photos)]
    first = ["--images", str(photos / "a.png"), *output, *flags]
    assert extract_images(first) == 0
    capsys.readouterr()
    both = ["--images", str(photos / "**/*.png"), *output, *flags]
    assert extract_images(both) == 0
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "1 photograph, 1 already done, N keypoints"
    )
    path = tmp_path / "out" / "features.h5"
    assert h5_names(path) == ["a.png", "été/d.png"]
    with h5py.File(path) as file:
        assert file["a.png/descriptors"].shape == (16, 20)
        assert file["a.png/keypoints"].dtype == np.float32
    assert sorted(p.name for p in path.parent.iterdir()) == [
        ".finished.json",
        ".lock",
        "extract_config.yaml",
        "extract_report.json",
        "features.h5",
        "images.jsonl",
        "names.json",
    ]


def test_one_name_never_stands_for_two_images(
    photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    other.write_bytes((photos / "été/d.png").read_bytes())
    output = ["--output-dir", str(tmp_path / "out")]
    assert extract_images(["--images", str(photos / "a.png"), *output, *flags]) == 0
    capsys.readouterr()
    assert extract_images(["--images", str(other), *output, *flags]) == 2
    assert "--image-root or --output-dir" in one_error_line(capsys)
    nested = ["--images", str(photos / "été/d.png"), *output, *flags]
    assert extract_images(nested) == 0
    assert (tmp_path / "out" / "été" / "d.png.r2d2").is_file()


def test_of_several_folders_each_image_is_named_as_in_its_own(
    photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, names in zip(folders, (["a.png"], ["sub/b.png"], ["a.png"])):
        for name in names:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes((photos / "a.png").read_bytes())
    one, two, three = (["--images", str(folder)] for folder in folders)
    output = tmp_path / "out"
    command = [*flags, "--output-dir", str(output)]
    assert extract_images([*one, *two, *command]) == 0
    assert extract_images([*two, *command]) == 0
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "1 photograph, already done"
    )
    assert sorted(output.rglob("*.r2d2")) == [
        output / "a.png.r2d2",
        output / "sub" / "b.png.r2d2",
    ]
    assert extract_images([*one, *two, *three, *command]) == 2
    assert "a.png: not in " in one_error_line(capsys)
    (folders[2] / "a.png").rename(folders[2] / "c.png")
    assert extract_images([*three, *one, *two, *command]) == 0
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "1 photograph, 2 already done, N keypoints"
    )
    assert (output / "c.png.r2d2").is_file()
    assert extract_images([*three, *command]) == 0
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "1 photograph, already done"
    )
    (folders[2] / "c.png").rename(folders[2] / "a.png")
    apart = tmp_path / "apart"
    assert extract_images([*one, *three, *flags, "--output-dir", str(apart)]) == 0
    assert sorted(apart.rglob("*.r2d2")) == [
        apart / "one" / "a.png.r2d2",
        apart / "three" / "a.png.r2d2",
    ]


def test_a_forced_text_run_that_stops_leaves_nothing_old(
    photos: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(shared / "data/weights/faster2d2_WASF_N16.pt")
    command = ["--images", str(photos / "**/*.png"), "--model", model, "--gpu", "-1"]
    command += ["--output-dir", str(tmp_path / "out"), "--format", "colmap-text"]
    assert extract_images([*command, "--top-k", "9"]) == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("r2d2_kapture.stages.extract.stage.read_rgb", stop)
        assert extract_images([*command, "--top-k", "3", "--force"]) == 130
    assert not list((tmp_path / "out").rglob("*.txt"))


def test_view_writes_both_pictures(photos: Path, flags: list[str]) -> None:
    pictures = photos.parent / "pictures"
    command = [str(photos / "a.png"), "--output-dir", str(pictures), *flags]
    assert view(command) == 0
    for name in ("a.png.keypoints.png", "a.png.maps.png"):
        assert min(Image.open(pictures / name).size) > 100


def test_export_of_extracted_features(
    kapture_root: Path,
    checkpoint_path: Path,
    tmp_path: Path,
    flags: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert extract(["--kapture-root", str(kapture_root), *flags]) == 0
    database = tmp_path / "c.db"
    command = ["--kapture-root", str(kapture_root), "--to", "colmap-db"]
    assert export([*command, "--output", str(database)]) == 0
    with sqlite3.connect(database) as connection:
        counts = [
            connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("images", "cameras", "keypoints")
        ]
    assert counts == [5, 1, 5]
    written = database.stat().st_mtime_ns
    assert export([*command, "--output", str(database)]) == 0
    assert database.stat().st_mtime_ns == written
    with closing(sqlite3.connect(database)) as changed, changed:
        changed.execute("DELETE FROM keypoints")
    assert export([*command, "--output", str(database)]) == 2
    assert export([*command, "--output", str(database), "--force"]) == 0
    capsys.readouterr()
    joined = [*command, "--output", str(database), "--camera-mode", "single"]
    assert export(joined) == 2
    assert f" {database}: found export made with" in one_error_line(capsys)
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert export([*command, "--output", str(database), "--force"]) == 2


def test_colmap_text_refuses_what_it_cannot_hold(
    kapture_root: Path,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert extract(["--kapture-root", str(kapture_root), *flags]) == 0
    capsys.readouterr()
    command = ["--kapture-root", str(kapture_root), "--to", "colmap-text"]
    assert export([*command, "--output", str(tmp_path / "text")]) == 2
    assert "128" in one_error_line(capsys)


def test_published_weights_to_colmap_text(
    shared: Path, photos: Path, tmp_path: Path
) -> None:
    model = shared / "data/weights/faster2d2_WASF_N16.pt"
    output = tmp_path / "text"
    command = ["--images", str(photos / "a.png"), "--output-dir", str(output)]
    command += ["--model", str(model), "--format", "colmap-text", "--gpu", "-1"]
    assert extract_images([*command, *ANY_MAXIMUM]) == 0
    reference = ["--images", str(photos / "a.png"), "--output-dir", str(tmp_path)]
    assert (
        extract_images([*reference, "--model", str(model), "--gpu", "-1", *ANY_MAXIMUM])
        == 0
    )
    keypoints, _, descriptors = read_colmap_text(output / "a.png.txt")
    expected = read_npz(tmp_path / "a.png.r2d2")
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-3)
    cosines = (descriptors * expected.descriptors).sum(axis=1)
    assert cosines.min() > 0.995


def test_list_models_needs_no_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        extract(["--list-models"])
    assert capsys.readouterr().out.strip()


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """Two images, the name of one of which is not UTF-8."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("caf\udce9.png", "b.png"):
        try:
            Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(
                folder / name
            )
        except OSError:
            pytest.skip("this file system holds UTF-8 names only")
    return folder


@pytest.mark.parametrize("file_format", ["npz", "mat"])
def test_a_name_that_is_not_utf_8_is_a_name(
    latin: Path, tmp_path: Path, flags: list[str], file_format: str
) -> None:
    command = [
        "--images",
        str(latin),
        "--output-dir",
        str(tmp_path / "o"),
        "--format",
        file_format,
    ]
    assert extract_images([*command, *flags]) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("caf*")}
    assert len(before) == 1
    assert extract_images([*command, *flags]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_name_that_is_not_utf_8_fails_alone_in_hdf5(
    latin: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output-dir", str(tmp_path / "o"), "--format", "h5"]
    command = ["--images", str(latin), *output]
    assert extract_images([*command, *flags]) == 1
    printed = capsys.readouterr().out
    assert r"  failed: caf\xe9.png holds the byte 0xE9, which is not UTF-8" in printed
    assert list(h5_names(tmp_path / "o" / "features.h5")) == ["b.png"]


def test_a_name_that_is_not_utf_8_is_drawn(
    latin: Path, tmp_path: Path, flags: list[str]
) -> None:
    assert view([str(latin), "--output-dir", str(tmp_path / "v"), *flags]) == 0
    assert len(list((tmp_path / "v").glob("caf*"))) == 2


@pytest.mark.parametrize(
    "command", [export, localize, pair_poses, train, verify], ids=lambda c: c.__module__
)
def test_every_help_says_what_auto_takes_for_the_camera_origin(
    command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "auto takes the origin stated in files, else infers it from principal points "
        "at (W / 2, H / 2) and from names of COLMAP's import"
    ) in text
