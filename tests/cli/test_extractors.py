"""The commands with extractors other than those of this package's networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2d2_kapture.cli.colmap import main as colmap
from r2d2_kapture.cli.export import main as export
from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.extract_images import main as extract_images
from r2d2_kapture.cli.match import main as match
from r2d2_kapture.cli.pipeline import main as pipeline
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.manifest import read_manifest
from tests.commands import one_error_line, work_in
from tests.scenes.images import textured_image

SIFT = ["--extractor", "sift"]
FAST_IS_NOT_FOR_SIFT = (
    "error: --preset fast: is for r2d2 (scale_f, min_size, max_size, top_k); leave it "
    "out with --extractor sift"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of a texture, 20 pixels apart."""
    folder = tmp_path_factory.mktemp("photos")
    texture = textured_image(120, 180)
    for name, left in (("a.png", 0), ("b.png", 20)):
        Image.fromarray(texture[:, left : left + 160]).save(folder / name)
    return folder


def test_a_dataset_is_extracted_without_a_model_matched_and_exported(
    kapture_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), *SIFT]
    assert extract([*command, "--sift-max-keypoints", "50"]) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, N keypoints"
    assert extract([*command, "--sift-max-keypoints", "50"]) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"
    assert extract(command) == 2
    assert "max_keypoints: 50, not 8192" in one_error_line(capsys)
    r2d2 = ["--extractor", "r2d2", "--keypoints-type", "sift"]
    assert extract(["--kapture-root", str(kapture_root), *r2d2]) == 2
    line = one_error_line(capsys)
    assert "made with extractor: sift, not r2d2; choose another --" in line
    folder = kapture_root / "reconstruction/keypoints/sift"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None and manifest.model == {"name": "sift"}
    assert manifest.settings == {
        "extractor": "sift",
        "root": True,
        "upright": False,
        "max_keypoints": 50,
        "peak_threshold": 0.02 / 3,
        "edge_threshold": 10.0,
        "first_octave": -1,
        "max_edge": 3200,
        "precision": "fp32",
    }
    kept = (folder / "extract_config.yaml").read_text()
    assert "extractor: sift\nsift_root: true\n" in kept and "top_k" not in kept
    # what is kept can be given again
    for flag in ("--config", "--preset"):
        again = [flag, str(folder / "extract_config.yaml")]
        assert extract(["--kapture-root", str(kapture_root), *again]) == 0
        work = work_in(capsys.readouterr().out, "extract")
        assert work == "5 photographs, already done"
    tables = open_local_features([kapture_root], "sift")
    names = tables.keypoints.image_names
    assert tables.descriptors.read_stored(names[0]).dtype == np.uint8
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(f"{names[0]}, {names[1]}, 1\n")
    inputs = ["--features", str(kapture_root), "--pairs", str(pairs)]
    assert match([*inputs, "--output", str(tmp_path / "matches")]) == 0
    source = ["--kapture-root", str(kapture_root)]
    for kind in ("h5", "colmap-text", "colmap-db"):
        command = [*source, "--to", kind, "--output", str(tmp_path / kind)]
        assert export(command) == 0
        capsys.readouterr()
        assert export(command) == 0
        assert work_in(capsys.readouterr().out, "export").endswith("already done")


@pytest.mark.parametrize("file_format", ["npz", "mat", "h5", "colmap-text"])
def test_image_files_are_extracted_into_every_format(
    photos: Path, tmp_path: Path, file_format: str
) -> None:
    command = ["--images", str(photos), "--output-dir", str(tmp_path), *SIFT]
    assert extract_images([*command, "--format", file_format]) == 0
    ends = {"npz": ".sift", "mat": ".sift.mat", "colmap-text": ".txt"}
    if file_format in ends:
        assert (tmp_path / f"a.png{ends[file_format]}").is_file()
    report = json.loads((tmp_path / "extract_report.json").read_text())
    assert report["done"] == 2 and report["device"] == "cpu"
    assert extract_images([*command, "--format", file_format]) == 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--top-k", "9"], "--top-k: found for --extractor sift, expected only for r2"),
        (["--no-relu"], "--no-relu: found for --extractor sift, expected only for d2n"),
        (["--aliked-threshold", "0.1"], "--aliked-threshold: found for --extractor si"),
        (["--model", "r2d2_v2"], "--model r2d2_v2: found for --extractor sift, which"),
        (["--sift-max-keypoints=-1"], "error: --sift-max-keypoints: found -1, expect"),
        (["--precision", "bf16"], "--precision bf16: found for --extractor sift, exp"),
        (["--preset", "fast"], FAST_IS_NOT_FOR_SIFT),
    ],
)
def test_what_sift_does_not_have_is_refused_in_one_line(
    kapture_root: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert extract(["--kapture-root", str(kapture_root), *SIFT, *flags]) == 2
    assert message in one_error_line(capsys)
    assert not (kapture_root / "reconstruction").exists()


def test_a_pipeline_names_the_flag_as_it_was_typed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("extractor: sift\nsift_root: false\n")
    command = ["--images", str(photos), "--output", str(tmp_path / "out")]
    command += ["--preset", str(tmp_path / "mine.yaml")]
    assert pipeline([*command, "--extract.sift-max-edge=-1"]) == 2
    assert "error: --extract.sift-max-edge: found -1, exp" in one_error_line(capsys)
    assert pipeline([*command, "--extract.top-k", "9"]) == 2
    assert "error: --extract.top-k: found for --extractor si" in one_error_line(capsys)
    assert pipeline([*command[:-2], "--preset", "fast", *SIFT]) == 2
    assert one_error_line(capsys) == FAST_IS_NOT_FOR_SIFT
    assert not (tmp_path / "out").exists()


def test_settings_of_sift_are_refused_for_a_model(
    kapture_root: Path, checkpoint_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), "--model", str(checkpoint_path)]
    assert extract([*command, "--sift-upright"]) == 2
    assert "--sift-upright: found for a model of r2d2, expected" in one_error_line(
        capsys
    )
    assert extract([*command, "--extractor", "surf"]) == 2
    assert "expected one of r2d2, d2net, sift, aliked, disk" in one_error_line(capsys)


def test_weights_of_a_file(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kornia = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    torch.save(kornia.DISK().state_dict(), tmp_path / "mine.pth")
    command = ["--images", str(photos), "--output-dir", str(tmp_path / "out")]
    command += ["--extractor", "disk"]
    assert extract_images(command) == 2
    assert "--extractor disk: found no --model" in one_error_line(capsys)
    assert extract_images([*command, "--model", str(tmp_path / "mine.pth")]) == 0
    settings = (tmp_path / "out/extract_config.yaml").read_text()
    assert "extractor: disk\ndisk_max_keypoints: 5000\n" in settings


def test_two_images_are_viewed(photos: Path, tmp_path: Path) -> None:
    pair = [str(photos / name) for name in ("a.png", "b.png")]
    assert view([*pair, "--output-dir", str(tmp_path), *SIFT]) == 0
    (found,) = tmp_path.glob("*.matches.json")
    numbers = json.loads(found.read_text())
    assert numbers["model"] == "sift" and numbers["inliers"] > 30
    assert view([*pair, "--keypoints", "--output-dir", str(tmp_path), *SIFT]) == 0
    assert (tmp_path / "a.png.keypoints.png").is_file()
    assert not (tmp_path / "a.png.maps.png").exists()  # sift has none


def test_a_pipeline_takes_an_extractor(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    work = tmp_path / "work"
    command = ["--images", str(folder), "--output", str(work), "--quiet", *SIFT]
    code = pipeline([*command, "--extract.sift-max-keypoints", "300"])
    capsys.readouterr()
    assert code in (0, 1, 2)  # a plane without parallax may have no map
    tables = open_local_features([work / "features"], "sift")
    assert tables.keypoints.image_names == ["a.png", "b.png"]
    assert tables.keypoints.count("a.png") == 300


def test_a_database_takes_an_extractor(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--images", str(photos), "--database", str(tmp_path / "a.db"), *SIFT]
    assert colmap(command) == 0
    assert work_in(capsys.readouterr().out, "colmap") == "2 photographs, 1 pair"
    assert colmap(command) == 0
    assert colmap([*command, "--sift-upright"]) == 2
    assert "upright: False, not True" in one_error_line(capsys)
