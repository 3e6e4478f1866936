"""kapture_r2d2_view of two images: what is found, drawn and written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli.view import main as view
from r2d2_kapture.core.extraction import Extractor
from tests.commands import one_error_line

SHIFT = (16, 8)
FLAGS = ["--reliability-thr", "0", "--repeatability-thr", "0", "--min-size", "32"]
CPU = ["--gpu", "-1", "--precision", "fp32", "--top-k", "200"]


@pytest.fixture
def flags(checkpoint_path: Path) -> list[str]:
    return ["--model", str(checkpoint_path), *FLAGS, *CPU]


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    """Two crops of one picture: pixel x of the first is x - SHIFT of the second."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    picture = np.asarray(noise.resize((200, 160), Image.Resampling.BICUBIC))
    folder = tmp_path / "my photos"
    folder.mkdir()
    x, y = SHIFT
    Image.fromarray(picture[: 160 - y, : 200 - x]).save(folder / "a.png")
    Image.fromarray(picture[y:, x:]).save(folder / "b é.png")
    return folder / "a.png", folder / "b é.png"


def numbers(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def test_a_planar_pair(
    photos: tuple[Path, Path],
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert view([*map(str, photos), *flags, "--output-dir", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png-b é.png.matches.json",
        "a.png-b é.png.matches.png",
        "a.png-b é.png.overlay.png",
    ]
    found = numbers(out)
    assert found["geometry"] == "homography"
    assert found["pictures"] == [
        "a.png-b é.png.matches.png",
        "a.png-b é.png.overlay.png",
    ]
    H = np.array(found["H"]) / found["H"][2][2]
    assert H == pytest.approx(
        np.array([[1, 0, -SHIFT[0]], [0, 1, -SHIFT[1]], [0, 0, 1]]), abs=0.5
    )
    assert [image["name"] for image in found["images"]] == ["a.png", "b é.png"]
    assert found["images"][0]["size"] == [184, 152]
    text = capsys.readouterr().out
    assert f"matches: {found['matches']}\n" in text
    assert f"inliers: {found['inliers']}\n" in text
    assert "geometry: homography" in text


@pytest.mark.parametrize("count", [1, 2])
def test_warnings_of_the_extractor_are_shown(
    photos: tuple[Path, Path],
    flags: list[str],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Extractor, "warnings", ("made for this run only",))
    images = [*map(str, photos)][:count]
    assert view([*images, *flags, "--output-dir", str(tmp_path / "out")]) == 0
    assert "  warning: made for this run only\n" in capsys.readouterr().out


def test_photographs_turned_apart_by_exif_are_reported(
    photos: tuple[Path, Path], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("c.jpg", "d.jpg"):
        Image.open(photos[0]).save(photos[0].with_name(name), exif=exif)
    turned = [str(photos[0].with_name(name)) for name in ("c.jpg", "d.jpg")]
    assert view([str(photos[0]), turned[0], *flags]) == 0
    assert "EXIF orientation is 1 in a.png and 6 in c.jpg" in capsys.readouterr().out
    assert view([*turned, *flags]) == 0
    assert "orientation" not in capsys.readouterr().out


def test_a_photograph_that_is_stored_turned_is_matched_upright(
    photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled model, whose features the view from the side does not match."""
    first, second = photos
    with Image.open(second) as image:
        on_side = image.transpose(Image.Transpose.ROTATE_270)
    on_side.save(tmp_path / "on_side.png")
    loose = "--reliability-thr 0 --repeatability-thr 0 --min-size 64 --top-k 300"
    flags = ["--gpu", "-1", *loose.split(), "--output-dir", str(tmp_path / "out")]
    assert view([str(first), str(second), *flags]) == 0
    upright = numbers(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    turned = [str(first), str(tmp_path / "on_side.png"), "--rotations", "auto"]
    assert view([*turned, *flags]) == 0
    found = numbers(tmp_path / "out")
    assert list(found["turned"].values()) == [0, 270]
    assert found["matches"] == upright["matches"]
    # a point at (x, y) upright, counted from the corner, is stored at (H - y, x)
    height = upright["images"][1]["size"][1]
    stored = np.array([[0, -1, height], [1, 0, 0], [0, 0, 1]]) @ upright["H"]
    H = np.array(found["H"]) / found["H"][2][2]
    assert H == pytest.approx(stored / stored[2, 2], abs=0.2)
    capsys.readouterr()
    assert view([str(first), "--keypoints", "--rotations", "auto", *flags]) == 2
    assert "expected only with two image files" in one_error_line(capsys)


def test_names_that_are_alike_or_not_utf_8(
    photos: tuple[Path, Path], flags: list[str], tmp_path: Path
) -> None:
    folders = [tmp_path / "x", Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))]
    for folder, photo in zip(folders, photos):
        folder.mkdir()
        (folder / "1.png").write_bytes(photo.read_bytes())
    command = [str(folder / "1.png") for folder in folders]
    out = tmp_path / "out"
    assert view([*command, *flags, "--output-dir", str(out)]) == 0
    stem = os.fsdecode(b"x_1.png-\xe9_1.png")
    assert (out / f"{stem}.matches.png").is_file()
    assert numbers(out)["images"][0]["name"] == "x/1.png"


def test_known_cameras_give_a_pose(
    photos: tuple[Path, Path], flags: list[str], tmp_path: Path
) -> None:
    camera = ["--camera-model", "PINHOLE", "--camera-params", "150,150,92,76"]
    command = [*map(str, photos), *flags, *camera, "--output-dir", str(tmp_path / "v")]
    assert view(command) == 0
    found = numbers(tmp_path / "v")
    assert found["images"][1]["camera"]["params"] == [150, 150, 92, 76]
    assert set(found["cam2_from_cam1"]) == {"rotation_xyzw", "translation"}


def test_images_of_different_things_have_no_geometry(
    photos: tuple[Path, Path],
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(photos[1])
    command = [*map(str, photos), *flags, "--output-dir", str(tmp_path / "v")]
    assert view(command) == 0
    out = capsys.readouterr().out
    assert (
        "warning: found no geometry with enough inliers" in out
        and "inliers: 0\n" in out
        and "turned by 90 or 180 degrees, give --rotations auto" in out
    )
    view([*command, "--rotations", "exif"])
    assert "give --rotations auto" not in capsys.readouterr().out
    found = numbers(tmp_path / "v")
    assert found["geometry"] is None and found["inliers"] == 0
    assert not list((tmp_path / "v").glob("*.overlay.png"))


def test_keypoints_of_two_images_on_request(
    photos: tuple[Path, Path], flags: list[str], tmp_path: Path
) -> None:
    command = [*map(str, photos), *flags, "--output-dir", str(tmp_path / "v")]
    assert view([*command, "--keypoints"]) == 0
    names = {path.name for path in (tmp_path / "v").iterdir()}
    assert names == {
        f"{photo.name}.{kind}.png" for photo in photos for kind in ("keypoints", "maps")
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a.png", "c.png"], "c.png: found no such file"),
        (["a.png", "b é.png", "--camera-model", "PINHOLE"], "expected both or none"),
        (
            ["a.png", "b é.png", "--camera-model", "LENS", "--camera-params", "1"],
            "expected one of DIVISION, ",
        ),
        (
            ["a.png", "b é.png", "--camera-model", "PINHOLE", "--camera-params", "1,2"],
            "expected the numbers fx, fy, cx, cy",
        ),
        (["a.png", "b é.png", "--ratio", "2"], "--ratio: found 2.0"),
        (["a.png", "b é.png", "--exclude", "x"], "--exclude: expected only with"),
    ],
)
def test_what_cannot_be_viewed_is_one_line(
    photos: tuple[Path, Path],
    flags: list[str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos[0].parent)
    assert view([*arguments, *flags]) == 2
    assert message in one_error_line(capsys)
    assert len(list(Path().iterdir())) == 2
