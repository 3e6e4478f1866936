"""kapture_r2d2_train_view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli.train_view import main
from r2d2_kapture.models.checkpoints import serialize_checkpoint
from r2d2_kapture.models.registry import Architecture, build_network
from tests.commands import work_in

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = ["--crop-size=48", "--min-side=64", "--max-side=128", "--quiet"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_it_draws_pairs(photos: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "out"
    arguments = ["--images", str(photos), "--output", str(output), *SMALL]
    assert main([*arguments, "--batch-size", "2", "--step", "1"]) == 0
    assert len(list(output.glob("pair_*.png"))) == 2
    assert work_in(capsys.readouterr().out, "train_view") == "2 pairs"


def test_the_settings_of_a_run_are_understood(photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "train_config.yaml"
    config.write_text("learning_rate: 0.001\nbatch_size: 3\nramp_steps: 7\nseed: 4\n")
    arguments = ["--images", str(photos), "--output", str(tmp_path / "out"), *SMALL]
    assert main([f"--config={config}", *arguments]) == 0
    assert len(list((tmp_path / "out").glob("pair_*.png"))) == 3


def test_the_pairs_of_d2net_are_drawn_with_its_detections(photos, tmp_path) -> None:
    architecture = Architecture(name="d2net", width=1, descriptor_dim=8)
    model = tmp_path / "d2.safetensors"
    model.write_bytes(
        serialize_checkpoint(
            build_network(architecture), architecture, training={}, license_name="CC0"
        )
    )
    arguments = ["--images", str(photos), "--output", str(tmp_path / "out"), *SMALL]
    assert main(["--config=d2net", *arguments, "--model", str(model)]) == 0
    # its preset trains on one pair a step
    (path,) = (tmp_path / "out").glob("pair_*.png")
    picture = Image.open(path)
    assert picture.height > 0.5 * picture.width
    # the network is given the pixels that it was asked to be given
    drawn = path.read_bytes()
    again = [*arguments, "--model", str(model), "--batch-size=1", "--force"]
    for preprocessing, same in (("caffe", True), ("torch", False)):
        assert main([*again, "--config=d2net", "--preprocessing", preprocessing]) == 0
        assert (path.read_bytes() == drawn) == same


def test_maps_are_drawn_with_a_model(photos, tmp_path, checkpoint_path) -> None:
    arguments = ["--images", str(photos), "--output", str(tmp_path / "out"), *SMALL]
    assert main([*arguments, "--batch-size=1", "--model", str(checkpoint_path)]) == 0
    picture = Image.open(tmp_path / "out" / "pair_000000.png")
    assert picture.height > 0.8 * picture.width


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--images", "{photos}"], "--output"),
        (["--output", "{out}"], "--images"),
        (["--images", "{photos}", "--output", "{out}", "--jitter", "2"], "--jitter"),
        (["--images", "{out}", "--output", "{out}"], "found no such file or folder"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, capsys, arguments, named) -> None:
    places = {"photos": photos, "out": tmp_path / "out"}
    filled = [argument.format(**places) for argument in arguments]
    assert main([*filled, *SMALL]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and named in error
    assert error.count("\n") == 1
