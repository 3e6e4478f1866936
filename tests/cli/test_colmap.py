"""kapture_r2d2_colmap as a user types it, on shifted views of one texture."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageFilter

from r2d2_kapture.cli.colmap import main
from r2d2_kapture.io.colmap.check import check_database
from tests.commands import one_error_line, work_in

SHIFTS = {"a.png": (0, 0), "été/b c.png": (16, 4), "été/d.png": (8, 20)}
SIZE = (160, 120)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (160, 200), dtype=np.uint8))
    texture = noise.filter(ImageFilter.GaussianBlur(1.5))
    for name, (x, y) in SHIFTS.items():
        path = tmp_path / "my photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texture.crop((x, y, x + SIZE[0], y + SIZE[1])).convert("RGB").save(path)
    return tmp_path / "my photos"


@pytest.fixture
def flags(photos: Path, checkpoint_path: Path) -> list[str]:
    words = ["--images", str(photos), "--database", str(photos.parent / "a b.db")]
    words += ["--model", str(checkpoint_path), "--quiet", "--gpu", "-1"]
    words += ["--reliability-thr", "0", "--repeatability-thr", "0"]
    words += ["--min-size", "160", "--top-k", "200", "--precision", "fp32"]
    return [*words, "--match.gpu", "-1"]


def test_images_to_database_then_resume(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 0
    output = capsys.readouterr().out
    assert work_in(output, "colmap") == "3 photographs, 3 pairs"
    for line in ("verified pairs: 3", "images: 3"):
        assert f"  {line}" in output
    report = json.loads((photos.parent / "a b_r2d2/colmap_report.json").read_text())
    assert report["with_focal_length"] == 0 and report["cameras_of_folder"] == 3
    path = photos.parent / "a b.db"
    check_database(path)
    with closing(pycolmap.Database.open(str(path))) as database:
        images = [
            database.read_image_with_name(name) for name in ("a.png", "été/d.png")
        ]
        first, second = (image.image_id for image in images)
        inliers = database.read_two_view_geometry(first, second).inlier_matches
        xy1, xy2 = (database.read_keypoints(i) for i in (first, second))
        assert not database.read_all_cameras()[0].has_prior_focal_length
    assert len(inliers) >= 15
    moved = xy1[inliers[:, 0]] - xy2[inliers[:, 1]]
    assert np.abs(np.median(moved, axis=0) - SHIFTS["été/d.png"]).max() < 0.5
    assert main(flags) == 0
    assert (
        work_in(capsys.readouterr().out, "colmap")
        == "3 photographs, 3 pairs, already done"
    )


def test_images_left_out_are_exit_code_1(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    assert main(flags) == 1
    assert "failed: broken.jpg" in capsys.readouterr().out.replace(f"{photos}/", "")


def test_models_are_made_if_asked_and_their_lack_is_reported(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = photos.parent / "sparse"
    assert main([*flags, "--sparse", str(sparse), "--map.min-matches", "500"]) == 2
    assert "no image could be registered" in one_error_line(capsys)
    assert not sparse.exists()
    check_database(photos.parent / "a b.db")
    # shifted views of one plane are those of a camera that turns
    assert main([*flags, "--sparse", str(sparse)]) == 2
    assert "no depth" in one_error_line(capsys)
    flags += ["--map.refine-intrinsics", "false"]
    assert main([*flags, "--sparse", str(sparse)]) == 0
    said = capsys.readouterr().out
    assert work_in(said, "colmap") == "3 photographs, 3 pairs: 3 in the map"
    assert str(sparse / "report.html") in said
    page = (sparse / "report.html").read_text(encoding="utf-8")
    assert '<section id="summary">' in page and "3 of 3" in page
    assert "3 pairs verified" in page and "3 images registered" in page
    assert b"data:image/jpeg" in (sparse / "report.html").read_bytes()
    assert pycolmap.Reconstruction(str(sparse / "0")).num_reg_images() == 3


def test_bad_inputs_are_one_line(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "old.db").write_bytes(b"SQLite format 3\0 and nothing else")
    section = photos.parent / "section.yaml"
    section.write_text("refine: off\n", "utf-8")
    for others, words in (
        (["--config", str(section)], "refine: found False, expected settings by name"),
        (["--images", str(photos / "absent")], "absent"),
        (["--database", str(photos.parent / "old.db")], "old.db"),
        (["--database", str(photos / "inside.db")], "inside the folder"),
        (["--pairs", str(photos.parent / "absent.txt")], "absent.txt"),
        (["--verify.geometry", "known_poses"], "--verify.geometry"),
        (["--map.method", "triangulate"], "--map.method"),
        (["--exhaustive-limit", "-1"], "--exhaustive-limit"),
    ):
        assert main([*flags, *others]) == 2
        assert words in one_error_line(capsys)
    assert main(["--database", "a.db"]) == 2
    assert "--images: missing" in one_error_line(capsys)
    assert not (photos.parent / "a b.db").exists()
