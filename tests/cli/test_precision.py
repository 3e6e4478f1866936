"""--precision on processors of both kinds, in every command that runs a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from r2d2_kapture.cli import (
    colmap,
    extract,
    extract_images,
    hpatches,
    pair_poses,
    pipeline,
    train,
    view,
)
from r2d2_kapture.io.outputs.manifest import read_manifest
from r2d2_kapture.synthetic.dataset import write_room_dataset
from tests.processors import as_processor
from tests.scenes.images import write_crops

BF16 = "--precision bf16 --gpu -1"
COMMANDS: dict[Callable[[list[str]], int], str] = {
    extract.main: f"--kapture-root {{root}} {BF16}",
    extract_images.main: f"--images {{images}} --output-dir {{output}} {BF16}",
    view.main: f"{{images}}/a.png --output-dir {{output}} {BF16}",
    colmap.main: f"--images {{images}} --database {{output}} {BF16}",
    pipeline.main: "--mapping {root} --output {output} --extract.precision bf16 "
    "--extract.gpu -1",
    hpatches.main: "--root {sequences} --output {output} --gpu -1 "
    "--sweep precision=fp32,bf16",
    pair_poses.main: f"--kapture-root {{posed}} --output {{output}} {BF16}",
}


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = write_room_dataset(
        tmp_path_factory.mktemp("room"),
        mapping_images=2,
        query_images=1,
        image_size=(48, 36),
    )
    return room.mapping


@pytest.fixture
def places(kapture_root: Path, posed: Path, tmp_path: Path) -> dict[str, Path]:
    write_crops(tmp_path / "sequences" / "v_wall", 0)
    return {
        "root": kapture_root,
        "posed": posed,
        "images": kapture_root / "sensors" / "records_data",
        "sequences": tmp_path / "sequences",
        "output": tmp_path / "output",
    }


def assert_refused(
    main: Callable[[list[str]], int],
    typed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    as_processor(monkeypatch, "AVX2")
    assert main(typed) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --precision bf16: ") and line.count("\n") == 1
    assert "found AVX2" in line and "use auto or fp32" in line


@pytest.mark.parametrize("model", ["R2D2", "D2-Net"])
@pytest.mark.parametrize("main", COMMANDS)
def test_bf16_is_refused_where_the_processor_has_none(
    main: Callable[[list[str]], int],
    model: str,
    places: dict[str, Path],
    checkpoint_path: Path,
    d2net_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = checkpoint_path if model == "R2D2" else d2net_path
    typed = [word.format(**places) for word in COMMANDS[main].split()]
    assert_refused(main, [*typed, "--model", str(weights)], monkeypatch, capsys)
    folders = (places["output"], places["root"] / "reconstruction")
    made = [path for folder in folders for path in folder.rglob("*")]
    assert {path.name for path in made} <= {".lock", "names.json"}


@pytest.mark.parametrize("architecture", ["r2d2", "fast_r2d2", "d2net"])
def test_training_in_bf16_is_refused_where_the_processor_has_none(
    architecture: str,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = ["--images", str(places["images"]), "--output", str(places["output"])]
    typed += ["--architecture", architecture, *BF16.split()]
    assert_refused(train.main, typed, monkeypatch, capsys)
    assert not places["output"].exists()


@pytest.mark.parametrize("model", ["R2D2", "D2-Net"])
def test_auto_is_float32_where_the_processor_has_no_bf16(
    model: str,
    places: dict[str, Path],
    checkpoint_path: Path,
    d2net_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    as_processor(monkeypatch, "AVX2")
    weights = checkpoint_path if model == "R2D2" else d2net_path
    command = ["--kapture-root", str(places["root"]), "--model", str(weights)]
    assert extract.main([*command, "--gpu", "-1"]) == 0
    assert "precision: fp32" in capsys.readouterr().out
    folder = places["root"] / "reconstruction/keypoints" / weights.stem
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None and manifest.settings["extractor"]


@pytest.mark.parametrize("preset", sorted(Path("configs/train").glob("*.yaml")))
def test_presets_of_training_leave_the_precision_to_the_processor(preset: Path) -> None:
    assert "precision" not in preset.read_text(encoding="utf-8")
