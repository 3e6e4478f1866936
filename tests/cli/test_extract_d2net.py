"""The commands of extraction with a D2-Net: same stages, formats and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from r2d2_kapture.cli.export import main as export
from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.extract_images import main as extract_images
from r2d2_kapture.cli.match import main as match
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.manifest import read_manifest
from r2d2_kapture.models.checkpoints import serialize_checkpoint
from r2d2_kapture.models.registry import Architecture
from tests.commands import one_error_line, work_in
from tests.scenes.networks import random_d2net


@pytest.fixture
def flags(d2net_path: Path) -> list[str]:
    return ["--model", str(d2net_path), "--gpu", "-1", "--precision", "fp32"]


@pytest.mark.parametrize("tar", [False, True])
def test_a_dataset_is_extracted_resumed_and_redone(
    kapture_root: Path, flags: list[str], tar: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), "--extractor", "d2net", *flags]
    command += ["--tar"] * tar
    assert extract([*command, "--multiscale"]) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, N keypoints"
    assert extract([*command, "--multiscale"]) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"
    assert extract(command) == 2
    assert "multiscale: True, not False" in one_error_line(capsys)
    assert extract([*command, "--no-relu", "--force"]) == 0
    folder = kapture_root / "reconstruction/keypoints/d2"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert manifest.settings == {
        "extractor": "d2net",
        "preprocessing": "caffe",
        "max_edge": 1600,
        "max_sum_edges": 2800,
        "multiscale": False,
        "relu": False,
        "max_keypoints": 0,
        "precision": "fp32",
    }
    assert "relu: false" in (folder / "extract_config.yaml").read_text()
    tables = open_local_features([kapture_root], "d2")
    features = tables.read("a.png", (64, 48))
    assert features.descriptors.shape == (len(features), 16)
    assert len(features) > 5
    assert set(features.scales) == {92.0}


def test_settings_that_were_kept_can_be_given_again(
    kapture_root: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), *flags]
    assert extract([*command, "--max-keypoints", "7"]) == 0
    kept = kapture_root / "reconstruction/keypoints/d2/extract_config.yaml"
    copy = kapture_root / "mine.yaml"
    copy.write_bytes(kept.read_bytes())
    capsys.readouterr()
    assert extract([*command, "--config", str(copy)]) == 0
    assert work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"


def test_files_hold_x_y_and_one_over_the_scale(
    kapture_root: Path, flags: list[str], tmp_path: Path
) -> None:
    image = kapture_root / "sensors/records_data/sub/é à.png"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{image}\n", encoding="utf-8")
    command = ["--extractor", "d2net", "--images", str(listed), "--multiscale", *flags]
    assert extract_images([*command, "--format", "npz"]) == 0
    with np.load(image.with_name("é à.png.d2-net")) as archive:
        fields = dict(archive)
    assert set(fields["keypoints"][:, 2]) == {2.0, 1.0, 0.5}
    count = len(fields["keypoints"])
    assert fields["scores"].shape == (count,)
    assert fields["descriptors"].shape == (count, 16)
    output = tmp_path / "mat"
    assert (
        extract_images([*command, "--format", "mat", "--output-dir", str(output)]) == 0
    )
    stored = loadmat(output / "é à.png.d2-net", appendmat=False)
    for name in ("keypoints", "descriptors"):
        np.testing.assert_array_equal(stored[name], fields[name])
    np.testing.assert_array_equal(stored["scores"].ravel(), fields["scores"])


@pytest.mark.parametrize("first, second", [("npz", "mat"), ("mat", "npz")])
def test_a_file_of_the_other_format_is_not_overwritten(
    kapture_root: Path,
    flags: list[str],
    first: str,
    second: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = kapture_root / "sensors/records_data/a.png"
    command = ["--images", str(image), *flags]
    assert extract_images([*command, "--format", first]) == 0
    path = image.with_name("a.png.d2-net")
    before = path.read_bytes()
    capsys.readouterr()
    assert extract_images([*command, "--format", second]) == 2
    assert "expected" in one_error_line(capsys)
    assert path.read_bytes() == before
    assert extract_images([*command, "--format", second, "--force"]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--extractor", "r2d2"], "holds D2Net, expected --extractor d2net"),
        (["--top-k", "9", "--scale-f", "2"], "--scale-f, --top-k: found for a model"),
        (["--max-edge", "-1"], "--max-edge: found -1"),
        (["--preprocessing", "keras"], None),
        (["--format", "colmap-text", "--output-dir", "{root}/out"], "only 128"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    kapture_root: Path,
    flags: list[str],
    arguments: list[str],
    message: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = [a.replace("{root}", str(kapture_root)) for a in arguments]
    image = str(kapture_root / "sensors/records_data/a.png")
    command = ["--images", image, *flags, *typed]
    if message is None:  # told by the parser, with its usage
        with pytest.raises(SystemExit) as caught:
            extract_images(command)
        assert caught.value.code == 2
        return
    assert extract_images(command) == 2
    assert message in one_error_line(capsys)


def test_settings_of_d2net_are_refused_for_r2d2(
    kapture_root: Path, checkpoint_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(kapture_root), "--model", str(checkpoint_path)]
    assert extract([*command, "--multiscale", "--no-relu"]) == 2
    error = one_error_line(capsys)
    assert "--multiscale, --no-relu: found for a model of r2d2" in error
    assert extract([*command, "--extractor", "d2net"]) == 2
    assert "expected --extractor r2d2" in one_error_line(capsys)
    assert not (kapture_root / "reconstruction").exists()


def test_pictures_of_what_the_network_sees(
    kapture_root: Path, flags: list[str], tmp_path: Path
) -> None:
    image = str(kapture_root / "sensors/records_data/a.png")
    command = [image, "--output-dir", str(tmp_path), "--max-keypoints", "5"]
    assert view([*command, *flags]) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "a.png.keypoints.png",
        "a.png.maps.png",
    }


def test_features_are_matched_and_exported(
    kapture_root: Path,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = ["--kapture-root", str(kapture_root)]
    assert extract([*root, *flags]) == 0
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("a.png, b c.png, 1\n")
    command = ["--features", str(kapture_root), "--pairs", str(pairs)]
    assert match([*command, "--output", str(tmp_path / "work")]) == 0
    assert work_in(capsys.readouterr().out, "match") == "1 pair, N matches"
    assert export([*root, "--to", "h5", "--output", str(tmp_path / "f.h5")]) == 0
    database = tmp_path / "colmap.db"
    assert export([*root, "--to", "colmap-db", "--output", str(database)]) == 0
    assert database.stat().st_size > 0
    capsys.readouterr()
    text = ["--to", "colmap-text", "--output", str(tmp_path / "text")]
    assert export([*root, *text]) == 2
    assert "16 values, COLMAP's text format holds only 128" in one_error_line(capsys)


def test_weights_that_know_their_preprocessing_are_extracted_with_it(
    kapture_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            random_d2net(),
            Architecture(name="d2net", width=2, descriptor_dim=16),
            training={"preprocessing": "torch"},
            license_name="CC0",
        )
    )
    command = ["--kapture-root", str(kapture_root), "--model", str(path), "--gpu", "-1"]
    assert extract([*command, "--preprocessing", "caffe"]) == 2
    assert "trained with torch; give" in one_error_line(capsys)
    assert not (kapture_root / "reconstruction").exists()
    assert extract(command) == 0
    assert "preprocessing: torch" in capsys.readouterr().out
    folder = kapture_root / "reconstruction/keypoints/ours"
    report = json.loads((folder / "extract_report.json").read_text("utf-8"))
    assert report["preprocessing"] == "torch"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None and manifest.settings["preprocessing"] == "torch"
    # to say it changes nothing, nor do the settings that were kept
    kept = ["--config", str(folder / "extract_config.yaml")]
    for more in (["--preprocessing", "torch"], kept):
        capsys.readouterr()
        assert extract([*command, *more]) == 0
        assert (
            work_in(capsys.readouterr().out, "extract") == "5 photographs, already done"
        )
