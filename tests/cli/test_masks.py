"""``--masks`` and ``--exclude`` as a user types them, in all that extracts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.cli.colmap import main as colmap
from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.extract_images import main as extract_images
from r2d2_kapture.cli.pipeline import main as pipeline
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.io.features.npz import read_npz
from r2d2_kapture.io.kapture.local_features import open_local_features
from tests.commands import work_in
from tests.scenes.kapture_files import write_noise_dataset

NAMES = ["a.png", "b c.png", "sub-deeper.png", "sub/deeper/d.png", "sub/é à.png"]
SIZE = (64, 48)


@pytest.fixture
def flags(checkpoint_path: Path) -> list[str]:
    words = "--reliability-thr 0 --repeatability-thr 0 --min-size 32 --gpu -1 --top-k 9"
    return ["--model", str(checkpoint_path), *words.split(), "--precision", "fp32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = write_noise_dataset(tmp_path / "dataset")
    return root / "sensors" / "records_data"


@pytest.fixture
def masks(photos: Path, tmp_path: Path) -> Path:
    """The right half of every image is kept, but of the last, which has no mask."""
    folder = tmp_path / "masks"
    for name in NAMES[:-1]:
        save_mask(folder / f"{name}.png", right_half())
    return folder


def right_half(size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, size[0] // 2 :] = 255
    return mask


def save_mask(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def columns(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    nearest: npt.NDArray[np.float32] = np.floor(keypoints[:, 0] + 0.5)
    return nearest


def test_extract(
    photos: Path, masks: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos.parents[1]
    command = ["--kapture-root", str(root), *flags, "--masks", str(masks)]
    assert extract(command) == 0
    out = capsys.readouterr().out
    assert f"found no mask of 1 of 5 images: '{NAMES[-1]}'; expected" in out
    tables = open_local_features([root], "tiny")
    for name in NAMES:
        x = columns(tables.read(name, SIZE).keypoints)
        assert len(x) == 9
        assert (x.min() >= SIZE[0] // 2) == (name != NAMES[-1])
    assert extract(command) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"


def test_a_changed_or_missing_mask_is_a_changed_image(
    photos: Path, masks: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(photos.parents[1]), *flags]
    masked = [*command, "--masks", str(masks)]
    assert extract(masked) == 0
    save_mask(masks / "a.png.png", 255 - right_half())
    capsys.readouterr()
    assert extract(masked) == 0
    out = capsys.readouterr().out
    assert (
        work_in(out, "extract") == "1 photograph, 4 already done, N keypoints"
        and "images or masks replaced" in out
        and "'a.png'" in out
    )
    tables = open_local_features([photos.parents[1]], "tiny")
    assert columns(tables.read("a.png", SIZE).keypoints).max() < SIZE[0] // 2
    (masks / "a.png.png").unlink()
    assert extract(masked) == 0
    assert (
        work_in(capsys.readouterr().out, "extract")
        == "1 photograph, 4 already done, N keypoints"
    )
    assert extract(command) == 0
    assert (
        work_in(capsys.readouterr().out, "extract")
        == "3 photographs, 2 already done, N keypoints"
    )


def test_a_mask_of_another_size_fails_its_image(
    photos: Path, masks: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(masks / "a.png.png", right_half((48, 64)))
    (masks / "b c.png.png").write_bytes(b"no mask")
    command = ["--kapture-root", str(photos.parents[1]), *flags]
    assert extract([*command, "--masks", str(masks)]) == 1
    out = capsys.readouterr().out
    assert work_in(out, "extract") == "3 photographs, 2 failed, N keypoints"
    assert "a.png.png: found a mask of 48 x 64 pixels, expected the 64 x 48 of" in out
    assert "b c.png.png: found no known image format" in out


def test_an_image_that_its_mask_blackens_is_named(
    photos: Path, masks: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(masks / "a.png.png", 0 * right_half())
    command = ["--kapture-root", str(photos.parents[1]), *flags]
    assert extract([*command, "--masks", str(masks)]) == 0
    assert "images without keypoints: 1 ('a.png'); " in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["beside", "inside", "by stem"])
def test_extract_images(
    photos: Path,
    masks: Path,
    flags: list[str],
    tmp_path: Path,
    layout: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if layout == "inside":
        masks = masks.rename(photos / "masks")
    if layout == "beside":
        for name in NAMES[:-1]:
            (masks / f"{name}.png").rename(photos / f"{name}.png")
        masks = photos
    if layout == "by stem":
        for name in NAMES[:-1]:
            (masks / f"{name}.png").rename(masks / name)
    output = tmp_path / "out"
    command = ["--images", str(photos), "--masks", str(masks), *flags]
    assert extract_images([*command, "--output-dir", str(output)]) == 0
    out = capsys.readouterr().out
    assert work_in(out, "extract_images") == "5 photographs, N keypoints"
    assert ("4 left out" in out) == (layout != "by stem")
    for name in NAMES[:-1]:
        features = read_npz(output / f"{name}.r2d2")
        assert columns(features.keypoints).min() >= SIZE[0] // 2
    assert extract_images([*command, "--output-dir", str(output)]) == 0
    assert (
        work_in(capsys.readouterr().out, "extract_images")
        == "5 photographs, already done"
    )


def test_masks_that_fit_no_image_are_reported(
    photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(tmp_path / "masks" / "dataset" / "a.png", right_half())
    command = ["--images", str(photos), *flags, "--output-dir", str(tmp_path / "out")]
    assert extract_images([*command, "--masks", str(tmp_path / "masks")]) == 0
    assert "found no mask of 5 of 5 images" in capsys.readouterr().out
    assert extract_images([*command, "--masks", str(tmp_path / "nothing")]) == 2
    assert (
        "found no such file or folder, expected folder of masks"
        in capsys.readouterr().err
    )


def test_colmap(photos: Path, masks: Path, flags: list[str], tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    command = ["--images", str(photos), "--database", str(database), *flags]
    command += ["--quiet", "--match.gpu", "-1", "--exclude", "sub", "b*"]
    colmap([*command, "--masks", str(masks)])
    with closing(pycolmap.Database.open(str(database))) as opened:
        images = {image.name: image.image_id for image in opened.read_all_images()}
        assert sorted(images) == ["a.png", "sub-deeper.png"]
        for image_id in images.values():
            keypoints = opened.read_keypoints(image_id)
            assert len(keypoints) == 9
            assert np.floor(keypoints[:, 0]).min() >= SIZE[0] // 2
    report = json.loads((tmp_path / "a_r2d2" / "colmap_report.json").read_text())
    assert f"2 left out by --exclude sub: '{NAMES[3]}', '{NAMES[4]}'" in (
        report["warnings"]
    )


def test_view(
    photos: Path, masks: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        str(photos),
        *flags,
        "--masks",
        str(masks),
        "--exclude",
        "sub",
        "b c.png",
    ]
    assert view([*command, "--output-dir", str(masks.parent / "pictures")]) == 0
    out = capsys.readouterr().out
    assert work_in(out, "view") == "2 photographs"
    assert "left out by --exclude sub" in out


def test_extract_leaves_names_out(
    photos: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(photos.parents[1]), *flags]
    assert extract([*command, "--exclude", "sub/deeper", "--exclude", "b*"]) == 0
    out = capsys.readouterr().out
    assert work_in(out, "extract") == "3 photographs, N keypoints"
    assert "1 left out by --exclude b*: 'b c.png'" in out
    assert extract([*command, "--exclude", "*"]) == 2
    assert "5 left out by --exclude *" in capsys.readouterr().err


def test_the_pipeline_wants_masks_for_what_it_extracts(
    photos: Path,
    masks: Path,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = photos.parents[1]
    assert extract(["--kapture-root", str(root), *flags]) == 0
    command = ["--mapping", str(root), "--output", str(tmp_path / "work")]
    assert pipeline([*command, "--masks", str(masks)]) == 2
    assert "found existing features" in capsys.readouterr().err
